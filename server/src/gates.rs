//! Commands that flags take away or give another name: `--restricted_commands` and `--command_alias`.
//!
//! Both are resolved once, at start. A restricted command costs a test of a flag on its way, an alias is only looked
//! for where no command has the name.

use std::collections::HashMap;

use damselfly_commands::{Found, all, lookup};
use damselfly_config::Config;

/// What is answered to a client of another than an admin port.
pub const RESTRICTED: &str = "ERR Cannot execute restricted command (admin only)";

/// Aliases are compared in upper case, in memory of this size: no command's name is longer.
const NAME_LEN_MAX: usize = 64;

/// See the module's head.
pub struct Gates {
    /// By command number; empty if nothing is restricted.
    restricted: Box<[bool]>,
    aliases: HashMap<Box<[u8]>, Found>,
}

impl Gates {
    /// What the flags say; an error if they name what does not exist or hide what does.
    pub fn new(config: &Config) -> Result<Gates, String> {
        let find = |flag: &str, name: &str| {
            lookup(name.as_bytes()).ok_or_else(|| format!("--{flag}: there is no command {name}"))
        };
        let mut restricted = Vec::new();
        for name in &config.restricted_commands {
            restricted.resize(all().count(), false);
            restricted[find("restricted_commands", name)?.index] = true;
        }
        let mut aliases = HashMap::new();
        for (alias, original) in &config.command_aliases {
            if lookup(alias.as_bytes()).is_some() {
                return Err(format!("--command_alias: {alias} is a command already"));
            }
            if alias.len() > NAME_LEN_MAX {
                return Err(format!("--command_alias: {alias} is longer than {NAME_LEN_MAX} bytes"));
            }
            aliases.insert(alias.as_bytes().into(), find("command_alias", original)?);
        }
        Ok(Gates { restricted: restricted.into(), aliases })
    }

    /// Whether only admin ports may run this command.
    #[inline]
    pub fn restricts(&self, index: usize) -> bool {
        !self.restricted.is_empty() && self.restricted[index]
    }

    /// The command behind an alias.
    #[cold]
    pub fn alias(&self, name: &[u8]) -> Option<Found> {
        if self.aliases.is_empty() || name.len() > NAME_LEN_MAX {
            return None;
        }
        let mut upper = [0; NAME_LEN_MAX];
        let upper = &mut upper[..name.len()];
        upper.copy_from_slice(name);
        upper.make_ascii_uppercase();
        self.aliases.get(&*upper).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates(args: &[&str]) -> Result<Gates, String> {
        let args = std::iter::once("damselfly").chain(args.iter().copied()).map(Into::into);
        let parsed = Config::from_args(args, std::iter::empty(), &|_| unreachable!("no files are named"));
        Gates::new(&parsed.expect("good flags").config)
    }

    #[test]
    fn names() {
        let found = |name: &str| lookup(name.as_bytes()).expect("a command");
        let both = gates(&["--restricted_commands=Keys,debug", "--command_alias=___get=GET"]).unwrap();
        assert!(both.restricts(found("KEYS").index) && both.restricts(found("DEBUG").index));
        assert!(!both.restricts(found("GET").index));
        assert_eq!(both.alias(b"___Get").map(|found| found.index), Some(found("GET").index));
        assert!(both.alias(b"get2").is_none() && both.alias(&[b'x'; 1000]).is_none());
        let none = gates(&[]).unwrap();
        assert!(!none.restricts(found("KEYS").index) && none.alias(b"x").is_none());
        for wrong in
            ["--restricted_commands=nonesuch", "--command_alias=x=nonesuch", "--command_alias=SET=GET"]
        {
            assert!(gates(&[wrong]).is_err(), "{wrong}");
        }
    }
}
