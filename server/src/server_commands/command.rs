//! COMMAND: the command table, for clients.

use damselfly_commands::{Args, Command, CommandError, Flags, Keys, all, lookup};
use damselfly_config::glob::Pattern;
use damselfly_protocol::number::parse_i64;
use damselfly_protocol::{ReplyWriter, Requests};

use super::command_facts::{
    Begin, CATEGORIES, Find, KeySpec, flag_names, is_in_category, key_specs, key_uses, tips,
};
use super::subcommands::{self, Subcommand};
use super::syntax::{self, Argument, Kind};
use super::{Outcome, exactly, help, reply, wrong_shape};
use crate::connection::ConnectionId;
use crate::core::Core;

/// COMMAND [subcommand]
pub fn command(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    if args.is_empty() {
        return reply(core, id, |out| {
            out.array(listed().count());
            for command in listed() {
                write_info(out, command);
            }
        });
    }
    let word = args.take()?;
    match word.to_ascii_uppercase().as_slice() {
        b"COUNT" => {
            exactly(&args, 0, "command|count")?;
            reply(core, id, |out| out.int(listed().count() as i64))
        }
        b"INFO" => reply(core, id, |out| info(out, args)),
        b"DOCS" => reply(core, id, |out| docs(out, args)),
        b"LIST" => list(core, id, word, args),
        b"GETKEYS" => {
            if args.len() < 2 {
                return Err(CommandError::arity("command|getkeys"));
            }
            let keys = keys(args)?;
            reply(core, id, |out| {
                out.array(keys.len());
                for (key, _) in keys {
                    out.bulk(key);
                }
            })
        }
        b"GETKEYSANDFLAGS" => {
            if args.len() < 2 {
                return Err(CommandError::arity("command|getkeysandflags"));
            }
            let keys = keys(args)?;
            reply(core, id, |out| {
                out.array(keys.len());
                for (key, uses) in keys {
                    out.array(2);
                    out.bulk(key);
                    write_statuses(out, &uses.split(' ').collect::<Vec<_>>());
                }
            })
        }
        b"HELP" => {
            exactly(&args, 0, "command|help")?;
            help(core, id, "COMMAND", HELP)
        }
        _ => Err(CommandError::unknown_subcommand("command", word)),
    }
}

/// Commands that clients are told about.
fn listed() -> impl Iterator<Item = &'static Command> {
    all().filter(|command| !command.flags.has(Flags::HIDDEN))
}

/// A command or a sub-command by its full name, in any case.
enum Named {
    Command(&'static Command),
    Subcommand(&'static Command, &'static Subcommand),
}

fn named(name: &[u8]) -> Option<Named> {
    match name.iter().position(|byte| *byte == b'|') {
        None => lookup(name).map(|found| Named::Command(found.command)),
        Some(at) => {
            let command = lookup(&name[..at])?.command;
            let subcommand = subcommands::find(command, &name[at + 1..])?;
            Some(Named::Subcommand(command, subcommand))
        }
    }
}

/// COMMAND INFO [name ...]
fn info(out: &mut ReplyWriter<'_>, args: Args<'_>) {
    if args.is_empty() {
        out.array(listed().count());
        return listed().for_each(|command| write_info(out, command));
    }
    out.array(args.len());
    for name in args.rest() {
        match named(name) {
            None => out.null(),
            Some(Named::Command(command)) => write_info(out, command),
            Some(Named::Subcommand(command, subcommand)) => write_subcommand_info(out, command, subcommand),
        }
    }
}

/// Whether a command does nothing but hold sub-commands; COMMAND itself can do without one.
fn is_container(command: &Command) -> bool {
    command.name != "COMMAND" && !subcommands::of(command).is_empty()
}

fn categories(name: &str, of_group: Option<&str>, flags: Flags) -> Vec<String> {
    let of = CATEGORIES.iter().filter(|category| is_in_category(category, name, of_group, flags));
    of.map(|category| format!("@{category}")).collect()
}

fn write_info(out: &mut ReplyWriter<'_>, command: &Command) {
    let name = command.name.to_ascii_lowercase();
    let container = is_container(command);
    let flags = if container { Flags::NONE } else { command.flags };
    let (first, last, step) = if container { (0, 0, 0) } else { command.key_range() };
    out.array(10);
    out.bulk(name.as_bytes());
    out.int(command.arity.as_redis());
    write_statuses(out, &flag_names(flags));
    for number in [first, last, step] {
        out.int(number);
    }
    let of_group = if container { None } else { command.group.category() };
    // A container as such is in no category, whatever its name.
    write_statuses(out, &categories(if container { "" } else { command.name }, of_group, flags));
    write_tips(out, tips(&name));
    let specs = if container { Vec::new() } else { key_specs(command) };
    out.set(specs.len());
    for spec in specs {
        write_spec(out, spec);
    }
    let subcommands = subcommands::of(command);
    if subcommands.is_empty() {
        return out.set(0);
    }
    out.array(subcommands.len());
    for subcommand in subcommands {
        write_subcommand_info(out, command, subcommand);
    }
}

/// The key specification of a sub-command on a key.
fn subcommand_spec(subcommand: &Subcommand) -> Option<KeySpec> {
    let uses = match (subcommand.container, subcommand.name) {
        ("XGROUP", "CREATE" | "CREATECONSUMER") => "RW insert",
        ("XGROUP", "SETID") => "RW update",
        ("XGROUP", _) => "RW delete",
        ("XINFO", _) => "RO access",
        _ => "RO",
    };
    let find = Find::Range { last: 0, step: 1, limit: 0 };
    subcommand.has_key().then_some(KeySpec { uses, begin: Begin::Index(2), find })
}

fn write_subcommand_info(out: &mut ReplyWriter<'_>, command: &Command, subcommand: &Subcommand) {
    let name = subcommand.full_name();
    let spec = subcommand_spec(subcommand);
    out.array(10);
    out.bulk(name.as_bytes());
    out.int(subcommand.arity);
    write_statuses(out, &flag_names(subcommand.flags));
    for number in if spec.is_some() { [2, 2, 1] } else { [0, 0, 0] } {
        out.int(number);
    }
    write_statuses(out, &categories(command.name, command.group.category(), subcommand.flags));
    write_tips(out, tips(&name));
    out.set(usize::from(spec.is_some()));
    if let Some(spec) = spec {
        write_spec(out, spec);
    }
    out.set(0);
}

fn write_statuses(out: &mut ReplyWriter<'_>, words: &[impl AsRef<str>]) {
    out.set(words.len());
    for word in words {
        out.simple(word.as_ref());
    }
}

fn write_tips(out: &mut ReplyWriter<'_>, tips: &[&str]) {
    out.set(tips.len());
    for tip in tips {
        out.bulk(tip.as_bytes());
    }
}

fn write_spec(out: &mut ReplyWriter<'_>, spec: KeySpec) {
    out.map(3);
    out.bulk(b"flags");
    write_statuses(out, &spec.uses.split(' ').collect::<Vec<_>>());
    out.bulk(b"begin_search");
    match spec.begin {
        Begin::Index(index) => write_numbers(out, "index", &[("index", index)]),
        Begin::Keyword(word, from) => {
            write_kind(out, "keyword");
            out.map(2);
            out.bulk(b"keyword");
            out.bulk(word.as_bytes());
            out.bulk(b"startfrom");
            out.int(from);
        }
        Begin::Unknown => write_numbers(out, "unknown", &[]),
    }
    out.bulk(b"find_keys");
    match spec.find {
        Find::Range { last, step, limit } => {
            write_numbers(out, "range", &[("lastkey", last), ("keystep", step), ("limit", limit)]);
        }
        Find::Counted => write_numbers(out, "keynum", &[("keynumidx", 0), ("firstkey", 1), ("keystep", 1)]),
        Find::Unknown => write_numbers(out, "unknown", &[]),
    }
}

fn write_kind(out: &mut ReplyWriter<'_>, kind: &str) {
    out.map(2);
    out.bulk(b"type");
    out.bulk(kind.as_bytes());
    out.bulk(b"spec");
}

fn write_numbers(out: &mut ReplyWriter<'_>, kind: &str, numbers: &[(&str, i64)]) {
    write_kind(out, kind);
    out.map(numbers.len());
    for (name, number) in numbers {
        out.bulk(name.as_bytes());
        out.int(*number);
    }
}

/// COMMAND DOCS [name ...]: what the table says, its notation of the arguments also as it is written there.
fn docs(out: &mut ReplyWriter<'_>, args: Args<'_>) {
    let found: Vec<Named> = if args.is_empty() {
        listed().map(Named::Command).collect()
    } else {
        args.rest().filter_map(named).collect()
    };
    out.map(found.len());
    for named in found {
        match named {
            Named::Command(command) => {
                let subcommands = subcommands::of(command);
                out.bulk(command.name.to_ascii_lowercase().as_bytes());
                let arguments =
                    if subcommands.is_empty() { syntax::parse(command.syntax) } else { Vec::new() };
                out.map(4 + usize::from(!subcommands.is_empty()) + usize::from(!arguments.is_empty()));
                write_texts(out, command.summary, command);
                out.bulk(b"syntax");
                out.bulk(command.syntax.as_bytes());
                if !arguments.is_empty() {
                    out.bulk(b"arguments");
                    write_arguments(out, &arguments, &mut (0..key_specs(command).len().max(1) - 1));
                }
                if !subcommands.is_empty() {
                    out.bulk(b"subcommands");
                    out.map(subcommands.len());
                    for subcommand in subcommands {
                        out.bulk(subcommand.full_name().as_bytes());
                        out.map(3);
                        write_texts(out, subcommand.summary, command);
                    }
                }
            }
            Named::Subcommand(command, subcommand) => {
                out.bulk(subcommand.full_name().as_bytes());
                out.map(3);
                write_texts(out, subcommand.summary, command);
            }
        }
    }
}

fn write_texts(out: &mut ReplyWriter<'_>, summary: &str, command: &Command) {
    for (name, text) in [("summary", summary), ("since", command.since), ("group", command.group.name())] {
        out.bulk(name.as_bytes());
        out.bulk(text.as_bytes());
    }
}

/// Arguments as maps; each key names the next key specification, the last ones the last.
fn write_arguments(out: &mut ReplyWriter<'_>, arguments: &[Argument], specs: &mut std::ops::Range<usize>) {
    out.array(arguments.len());
    for argument in arguments {
        let is_key = argument.type_name() == "key";
        let flags: Vec<&str> = [
            (argument.optional, "optional"),
            (argument.multiple, "multiple"),
            (argument.multiple_token, "multiple_token"),
        ]
        .into_iter()
        .filter_map(|(is_set, name)| is_set.then_some(name))
        .collect();
        let parts = match &argument.kind {
            Kind::Block(parts) | Kind::OneOf(parts) => parts.as_slice(),
            Kind::Value | Kind::Token => &[],
        };
        let is_value = argument.kind == Kind::Value;
        out.map(
            2 + [is_value, is_key, argument.token.is_some(), !flags.is_empty(), !parts.is_empty()]
                .into_iter()
                .filter(|is_there| *is_there)
                .count(),
        );
        for (name, text) in [("name", argument.name.as_str()), ("type", argument.type_name())] {
            out.bulk(name.as_bytes());
            out.bulk(text.as_bytes());
        }
        if is_value {
            out.bulk(b"display_text");
            out.bulk(argument.name.as_bytes());
        }
        if is_key {
            out.bulk(b"key_spec_index");
            out.int(specs.next().unwrap_or(specs.end) as i64);
        }
        if let Some(token) = &argument.token {
            out.bulk(b"token");
            out.bulk(token.as_bytes());
        }
        if !flags.is_empty() {
            out.bulk(b"flags");
            write_statuses(out, &flags);
        }
        if !parts.is_empty() {
            out.bulk(b"arguments");
            write_arguments(out, parts, specs);
        }
    }
}

/// COMMAND LIST [FILTERBY MODULE module | ACLCAT category | PATTERN pattern]
fn list(core: &mut Core, id: ConnectionId, word: &[u8], mut args: Args<'_>) -> Outcome {
    enum Filter {
        Nothing,
        Category(Vec<u8>),
        Pattern(Pattern),
    }
    let mut filter = None;
    if !args.is_empty() {
        if args.len() != 3 || !args.take_word("FILTERBY") {
            return Err(if args.len() > 3 { wrong_shape("COMMAND", word) } else { CommandError::Syntax });
        }
        filter = Some(if args.take_word("MODULE") {
            // No command comes from a module.
            Filter::Nothing
        } else if args.take_word("ACLCAT") {
            Filter::Category(args.take()?.to_ascii_lowercase())
        } else if args.take_word("PATTERN") {
            Filter::Pattern(Pattern::new(args.take()?))
        } else {
            return Err(CommandError::Syntax);
        });
    }
    let takes = |full_name: &str, name: &str, of_group: Option<&str>, flags: Flags| match &filter {
        None => true,
        Some(Filter::Nothing) => false,
        Some(Filter::Category(wanted)) => CATEGORIES
            .iter()
            .any(|category| category.as_bytes() == wanted && is_in_category(category, name, of_group, flags)),
        Some(Filter::Pattern(pattern)) => pattern.matches(full_name.as_bytes()),
    };
    let mut names = Vec::new();
    for command in listed() {
        let name = command.name.to_ascii_lowercase();
        let of_group = command.group.category();
        let is_taken = if is_container(command) {
            takes(&name, "", None, Flags::NONE)
        } else {
            takes(&name, command.name, of_group, command.flags)
        };
        if is_taken {
            names.push(name);
        }
        for subcommand in subcommands::of(command) {
            let name = subcommand.full_name();
            if takes(&name, command.name, of_group, subcommand.flags) {
                names.push(name);
            }
        }
    }
    reply(core, id, |out| {
        out.array(names.len());
        for name in &names {
            out.bulk(name.as_bytes());
        }
    })
}

/// How a request uses its key, where that depends on its options.
fn actual_uses(command: &Command, parts: &[&[u8]]) -> Option<&'static [&'static str]> {
    let has = |word: &str| parts.iter().any(|part| part.eq_ignore_ascii_case(word.as_bytes()));
    match command.name {
        "SET" if parts.len() > 3 && has("GET") => Some(&["RW access update"]),
        "SET" => Some(&["OW update"]),
        "BITFIELD" if has("SET") || has("INCRBY") => Some(&["RW access update"]),
        "BITFIELD" => Some(&["RO access"]),
        _ => None,
    }
}

/// The keys of the request in `args`, each with how it is used.
fn keys<'a>(args: Args<'a>) -> Result<Vec<(&'a [u8], &'static str)>, CommandError> {
    const NO_COMMAND: CommandError = CommandError::text("ERR Invalid command specified");
    const NO_KEYS: CommandError = CommandError::text("ERR The command has no key arguments");
    const ARITY: CommandError = CommandError::text("ERR Invalid number of arguments specified for command");
    const INVALID: CommandError = CommandError::text("ERR Invalid arguments specified for command");
    let parts: Vec<&'a [u8]> = args.rest().collect();
    let command = lookup(parts[0]).ok_or(NO_COMMAND)?.command;
    if is_container(command) && parts.len() > 1 {
        let subcommand = subcommands::find(command, parts[1]).ok_or(NO_COMMAND)?;
        let spec = subcommand_spec(subcommand).ok_or(NO_KEYS)?;
        return if subcommand.allows(parts.len()) { Ok(vec![(parts[2], spec.uses)]) } else { Err(ARITY) };
    }
    if matches!(command.keys, Keys::None) {
        return Err(NO_KEYS);
    }
    if !command.arity.allows(parts.len()) {
        return Err(ARITY);
    }
    if let Keys::Counted { count, .. } = command.keys {
        let behind = parts.len().saturating_sub(count + 1) as i64;
        let least = i64::from(!command.flags.has(Flags::SCRIPT));
        parts
            .get(count)
            .and_then(|number| parse_i64(number))
            .filter(|number| (least..=behind).contains(number))
            .ok_or(INVALID)?;
    }
    let (mut bytes, mut requests, mut positions) = (Vec::new(), Requests::new(), Vec::new());
    assert!(requests.push_copy(&mut bytes, parts.iter().copied()), "a part of a request fits a buffer");
    command.key_positions(&requests.argv(&bytes, 0), &mut positions);
    if positions.is_empty() && !command.flags.has(Flags::SCRIPT) {
        return Err(INVALID);
    }
    let uses = actual_uses(command, &parts).unwrap_or(key_uses(command));
    Ok(positions.iter().enumerate().map(|(n, &at)| (parts[at], uses[n.min(uses.len() - 1)])).collect())
}

const HELP: &[&str] = &[
    "(no subcommand)",
    "    Describe all commands.",
    "COUNT",
    "    Tell the number of commands.",
    "DOCS [<command-name> ...]",
    "    Document these commands, or all.",
    "GETKEYS <full-command>",
    "    List the keys in a request.",
    "GETKEYSANDFLAGS <full-command>",
    "    List the keys in a request, each with how it is used.",
    "INFO [<command-name> ...]",
    "    Describe these commands, or all.",
    "LIST [FILTERBY (MODULE <module-name>|ACLCAT <category>|PATTERN <pattern>)]",
    "    List the names of commands.",
];
