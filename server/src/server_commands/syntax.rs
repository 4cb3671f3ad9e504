//! The arguments of a command as COMMAND DOCS describes them: a tree, read from the notation in the command table.
//!
//! The notation is that of Redis' manual. Words in capitals are themselves, others stand for what the client sends; `[ ]`
//! may be left out, `< >` holds together, `|` separates alternatives, and `[x ...]` behind `x` means that there may be
//! more of them. What follows a word in capitals belongs to it, up to the next such word or to what may be left out.

use std::iter::Peekable;

/// One argument, or several that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// What it is called.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The word in front of it, or that it is.
    pub token: Option<String>,
    /// May be left out.
    pub optional: bool,
    /// May come several times.
    pub multiple: bool,
    /// And each time with its token.
    pub multiple_token: bool,
}

/// What an argument is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What the client sends for it.
    Value,
    /// Nothing but its token.
    Token,
    /// All of these.
    Block(Vec<Argument>),
    /// One of these.
    OneOf(Vec<Argument>),
}

impl Argument {
    fn new(name: String, kind: Kind) -> Argument {
        Argument { name, kind, token: None, optional: false, multiple: false, multiple_token: false }
    }

    /// One argument for several; the only one stays itself.
    fn block(mut parts: Vec<Argument>) -> Argument {
        if parts.len() == 1 {
            return parts.remove(0);
        }
        let name = parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join("-");
        Argument::new(name, Kind::Block(parts))
    }

    /// The word that Redis has for what it is.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Token => "pure-token",
            Kind::Block(_) => "block",
            Kind::OneOf(_) => "oneof",
            Kind::Value => match self.name.as_str() {
                "key" | "key1" | "key2" | "newkey" | "source" | "sourcekey" | "destination" | "destkey"
                | "src" | "dst" => "key",
                "pattern" => "pattern",
                "increment" | "longitude" | "latitude" | "radius" | "score" | "weight" | "width"
                | "height" => "double",
                "seconds" | "milliseconds" | "count" | "offset" | "numkeys" | "numfields" | "index"
                | "decrement" | "cursor" | "db" | "bit" | "len" | "rank" | "num-matches"
                | "min-match-len" => "integer",
                name if name.starts_with("unix-time") => "unix-time",
                _ => "string",
            },
        }
    }
}

/// Reads a command's notation.
pub fn parse(syntax: &str) -> Vec<Argument> {
    let spaced = ["[", "]", "<", ">", "|"].iter().fold(syntax.to_string(), |text, sign| {
        // A sign that is a word of its own has blanks already; more of them do no harm.
        text.replace(sign, &format!(" {sign} "))
    });
    let mut words = spaced.split_whitespace().peekable();
    match alternatives(&mut words) {
        (mut one, _) if one.len() == 1 => one.remove(0),
        (several, _) => vec![one_of(several)],
    }
}

fn one_of(alternatives: Vec<Vec<Argument>>) -> Argument {
    let choices: Vec<Argument> =
        alternatives.into_iter().filter(|parts| !parts.is_empty()).map(Argument::block).collect();
    if choices.len() == 1 {
        return choices.into_iter().next().expect("one");
    }
    let name = choices.iter().map(|choice| choice.name.as_str()).collect::<Vec<_>>().join("-or-");
    Argument::new(name, Kind::OneOf(choices))
}

/// Up to the bracket that closes, which is taken too. Also, whether `...` was the last in front of it.
fn alternatives<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>) -> (Vec<Vec<Argument>>, bool) {
    let (mut found, mut repeats) = (Vec::new(), false);
    let mut sequence = Sequence::default();
    while let Some(word) = words.next() {
        repeats = false;
        match word {
            "]" | ">" => break,
            "|" => found.push(std::mem::take(&mut sequence).end()),
            "..." => repeats = matches!(words.peek(), Some(&"]")),
            "<" => {
                let (choices, _) = alternatives(words);
                sequence.value(one_of(choices));
            }
            "[" => {
                let (choices, more) = alternatives(words);
                if more && choices.len() == 1 && sequence.ends_with(&choices[0]) {
                    sequence.repeat(&choices[0]);
                } else {
                    let mut argument = one_of(choices);
                    argument.optional = true;
                    argument.multiple |= more;
                    sequence.other(argument);
                }
            }
            word if word.chars().any(|c| c.is_ascii_lowercase()) => {
                sequence.value(Argument::new(word.to_string(), Kind::Value));
            }
            word => sequence.token(word),
        }
        if repeats {
            // Back to the caller with it, past the bracket.
            words.next();
            break;
        }
    }
    found.push(sequence.end());
    (found, repeats)
}

/// Arguments one behind the other.
#[derive(Default)]
struct Sequence {
    done: Vec<Argument>,
    /// A token and what belongs to it so far.
    open: Option<(String, Vec<Argument>)>,
}

impl Sequence {
    fn close(&mut self) {
        let Some((token, mut parts)) = self.open.take() else { return };
        let name = token.to_ascii_lowercase();
        let mut argument = match parts.len() {
            0 => Argument::new(name, Kind::Token),
            1 => parts.remove(0),
            _ => Argument::new(name, Kind::Block(parts)),
        };
        argument.token = Some(token);
        self.done.push(argument);
    }

    fn end(mut self) -> Vec<Argument> {
        self.close();
        self.done
    }

    fn token(&mut self, word: &str) {
        self.close();
        self.open = Some((word.to_string(), Vec::new()));
    }

    fn value(&mut self, argument: Argument) {
        match &mut self.open {
            Some((_, parts)) => parts.push(argument),
            None => self.done.push(argument),
        }
    }

    /// Something that belongs to no token.
    fn other(&mut self, argument: Argument) {
        self.close();
        self.done.push(argument);
    }

    /// Whether these are the last arguments so far.
    fn ends_with(&self, last: &[Argument]) -> bool {
        match (&self.open, last) {
            (Some((token, parts)), [one]) if one.token.as_deref() == Some(token) => {
                parts.len() == 1 && parts[0].name == one.name
            }
            (Some((_, parts)), last) => parts.ends_with(last),
            (None, last) => self.done.ends_with(last),
        }
    }

    /// These, which are the last ones, may come several times.
    fn repeat(&mut self, last: &[Argument]) {
        let with_token = matches!(last, [one] if one.token.is_some());
        if with_token {
            self.close();
        }
        let list = self.open.as_mut().map_or(&mut self.done, |(_, parts)| parts);
        let parts = list.split_off(list.len() - last.len());
        let mut argument = Argument::block(parts);
        argument.multiple = true;
        argument.multiple_token = with_token;
        list.push(argument);
    }
}

#[cfg(test)]
mod tests {
    use super::{Argument, Kind, parse};

    /// The tree in one line: `TOKEN=name:type?+`, with `?` for optional and `+` for multiple.
    fn show(arguments: &[Argument]) -> String {
        let one = |argument: &Argument| {
            let mut text = argument.token.as_ref().map_or(String::new(), |token| format!("{token}="));
            match &argument.kind {
                Kind::Token => {}
                Kind::Value => text += &format!("{}:{}", argument.name, argument.type_name()),
                Kind::Block(parts) => text += &format!("({})", show(parts)),
                Kind::OneOf(parts) => text += &format!("{{{}}}", show(parts)),
            }
            text += if argument.optional { "?" } else { "" };
            text += if argument.multiple { "+" } else { "" };
            text + if argument.multiple_token { "+" } else { "" }
        };
        arguments.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    /// Each part of the notation.
    #[test]
    fn notation() {
        for (syntax, tree) in [
            ("", ""),
            ("key", "key:key"),
            ("key [key ...]", "key:key+"),
            ("[channel [channel ...]]", "channel:string?+"),
            ("key value [key value ...]", "(key:key value:string)+"),
            ("key [NX | XX] [GET]", "key:key {NX= XX=}? GET=?"),
            ("[EX seconds | KEEPTTL]", "{EX=seconds:integer KEEPTTL=}?"),
            ("[LIMIT offset count]", "LIMIT=(offset:integer count:integer)?"),
            ("[GET pattern [GET pattern ...]] [ASC | DESC]", "GET=pattern:pattern?++ {ASC= DESC=}?"),
            ("STREAMS key [key ...] id [id ...]", "STREAMS=(key:key+ id:string+)"),
            (
                "[AGGREGATE <SUM | MIN>] [COUNT count [ANY]]",
                "AGGREGATE={SUM= MIN=}? (COUNT=count:integer ANY=?)?",
            ),
            ("key [GET encoding offset ...]", "key:key GET=(encoding:string offset:integer)?+"),
            ("<* | id> <MAXLEN | MINID> [= | ~]", "{*= id:string} {MAXLEN= MINID=} {== ~=}?"),
        ] {
            assert_eq!(show(&parse(syntax)), tree, "{syntax}");
        }
    }

    /// Every command's notation is understood: no sign is left over in a name, and what has keys shows one.
    #[test]
    fn all_commands() {
        fn names(arguments: &[Argument], check: &mut dyn FnMut(&Argument)) {
            for argument in arguments {
                check(argument);
                if let Kind::Block(parts) | Kind::OneOf(parts) = &argument.kind {
                    names(parts, check);
                }
            }
        }
        for command in damselfly_commands::all() {
            names(&parse(command.syntax), &mut |argument| {
                let name = &argument.name;
                assert!(
                    !name.is_empty() && !name.contains(['[', ']', '<', '>', '|']),
                    "{}: {name}",
                    command.name
                );
                assert!(!name.contains("..."), "{}: {name}", command.name);
            });
        }
    }
}
