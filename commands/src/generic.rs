//! Keys, whatever they hold.

use damselfly_keyspace::Class;

use crate::{Args, Arity, CmdResult, Command, Cx, Flags, Group, Keys, Merge, Run, ServerCommand, Spread};

pub(crate) const COMMANDS: &[&Command] = &[&DEL, &KEYS, &RANDOMKEY, &RM, &SCAN];

const DEL: Command = Command {
    name: "DEL",
    arity: Arity::AtLeast(2),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::WRITE,
    spread: Spread::Split { step: 1, merge: Merge::Sum },
    group: Group::Generic,
    since: "1.0.0",
    syntax: "key [key ...]",
    summary: "Removes keys.",
    run: Run::Shard(del),
};

fn del(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    let mut removed = 0;
    for key in args.rest() {
        if cx.ks.remove(cx.db, key) {
            cx.changed(key, Class::Generic, "del");
            removed += 1;
        }
    }
    cx.out.int(removed);
    Ok(())
}

const KEYS: Command = Command {
    name: "KEYS",
    arity: Arity::Exactly(2),
    keys: Keys::None,
    flags: Flags::READ.with(Flags::DANGEROUS),
    spread: Spread::Single,
    group: Group::Generic,
    since: "1.0.0",
    syntax: "pattern",
    summary: "Returns all keys that match a pattern.",
    run: Run::Server(ServerCommand::Keys),
};

const RANDOMKEY: Command = Command {
    name: "RANDOMKEY",
    arity: Arity::Exactly(1),
    keys: Keys::None,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Generic,
    since: "1.0.0",
    syntax: "",
    summary: "Returns a random key of the database.",
    run: Run::Server(ServerCommand::RandomKey),
};

const RM: Command = Command {
    name: "RM",
    arity: Arity::Exactly(2),
    keys: Keys::None,
    flags: Flags::WRITE.with(Flags::DANGEROUS),
    spread: Spread::Single,
    group: Group::Generic,
    since: "dragonfly",
    syntax: "pattern",
    summary: "Removes all keys that match a pattern.",
    run: Run::Server(ServerCommand::Rm),
};

const SCAN: Command = Command {
    name: "SCAN",
    arity: Arity::AtLeast(2),
    keys: Keys::None,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Generic,
    since: "2.8.0",
    syntax: "cursor [MATCH pattern] [COUNT count] [TYPE type]",
    summary: "Walks the keys of the database in steps.",
    run: Run::Server(ServerCommand::Scan),
};
