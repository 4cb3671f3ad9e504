//! Tests over the table: a command added wrongly is told so.

use super::*;

#[test]
fn names_are_unique_and_found_in_any_case() {
    for command in all() {
        assert_eq!(command.name, command.name.to_ascii_uppercase());
        for name in [command.name.to_string(), command.name.to_lowercase()] {
            assert!(std::ptr::eq(lookup(name.as_bytes()).expect(&name).command, command), "{name} is declared twice");
        }
    }
    for missing in ["", "GE", "GETT", "NOSUCHCOMMAND", &"X".repeat(100), "GET\0", "\r\n"] {
        assert!(lookup(missing.as_bytes()).is_none(), "{missing:?}");
    }
}

/// Declarations do not contradict themselves.
#[test]
fn declarations_agree() {
    for command in all() {
        let name = command.name;
        let least = match command.arity {
            Arity::Exactly(n) | Arity::AtLeast(n) => n,
        };
        assert!(least >= 1, "{name}: the name itself counts");
        let has_keys = !matches!(command.keys, Keys::None);
        if has_keys && matches!(command.run, Run::Shard(_)) {
            assert!(
                command.flags.has(Flags::READ) != command.flags.has(Flags::WRITE),
                "{name}: reads or writes its keys"
            );
        }
        assert!(
            !command.flags.has(Flags::GROWS) || command.flags.has(Flags::WRITE),
            "{name}: what grows writes"
        );
        if let Keys::Range { last, .. } = command.keys {
            assert!(last == -1 || last == -2 || last > 1, "{name}: one key is Keys::First");
        }
        if matches!(command.spread, Spread::Single) {
            assert!(
                matches!(command.keys, Keys::None | Keys::First | Keys::By(_)),
                "{name}: several keys need a rule for several shards"
            );
        }
        assert!(command.summary.ends_with('.'), "{name}: the summary is a sentence");
    }
}
