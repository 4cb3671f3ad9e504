//! First lines of scripts: `#!lua name=... flags=...`, and Dragonfly's `--!df flags=...`.

/// What a script or function declares about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScriptFlags {
    /// The script has a `#!` line: it declares what it needs. One without runs under the rules of old.
    pub declared: bool,
    /// `no-writes`: commands that write are refused, and `_RO` calls are allowed.
    pub no_writes: bool,
    /// `allow-oom`: runs although memory is used up.
    pub allow_oom: bool,
    /// `allow-stale`: runs on a replica that has lost its primary.
    pub allow_stale: bool,
    /// `no-cluster`: does not run in a cluster.
    pub no_cluster: bool,
    /// `allow-cross-slot-keys`: may use keys of several slots.
    pub allow_cross_slot_keys: bool,
    /// `allow-undeclared-keys` (Dragonfly): may use keys that are not in KEYS.
    pub allow_undeclared_keys: bool,
    /// `disable-atomicity` (Dragonfly): other commands may run between those of the script.
    pub disable_atomicity: bool,
}

impl ScriptFlags {
    /// Sets a flag of Redis' by its name; false if there is none.
    pub(crate) fn set(&mut self, name: &[u8]) -> bool {
        let flag = match name {
            b"no-writes" => &mut self.no_writes,
            b"allow-oom" => &mut self.allow_oom,
            b"allow-stale" => &mut self.allow_stale,
            b"no-cluster" => &mut self.no_cluster,
            b"allow-cross-slot-keys" => &mut self.allow_cross_slot_keys,
            _ => return false,
        };
        *flag = true;
        true
    }

    /// The names of the flags that are set, as FUNCTION LIST shows them.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        [
            (self.no_writes, "no-writes"),
            (self.allow_oom, "allow-oom"),
            (self.allow_stale, "allow-stale"),
            (self.no_cluster, "no-cluster"),
            (self.allow_cross_slot_keys, "allow-cross-slot-keys"),
        ]
        .into_iter()
        .filter_map(|(set, name)| set.then_some(name))
    }

    /// Sets flags of Dragonfly's, for scripts by `--!df` and for all of them by a setting; false if there is none of
    /// that name.
    pub fn set_dragonfly(&mut self, name: &str) -> bool {
        match name {
            "allow-undeclared-keys" => self.allow_undeclared_keys = true,
            "disable-atomicity" => self.disable_atomicity = true,
            // Numbers are doubles here anyway.
            "legacy-float" => {}
            _ => return false,
        }
        true
    }
}

/// Splits a script into its flags and its body, which keeps the line break after the shebang so that lines count on.
/// The error is a complete reply text.
pub(crate) fn split(source: &[u8]) -> Result<(ScriptFlags, &[u8]), Vec<u8>> {
    let mut flags = ScriptFlags::default();
    let Some(line) = source.strip_prefix(b"#!") else {
        dragonfly_flags(source, &mut flags)?;
        return Ok((flags, source));
    };
    flags.declared = true;
    let end = line.iter().position(|byte| *byte == b'\n').ok_or(b"ERR Invalid script shebang")?;
    let (line, body) = (&line[..end], &source[2 + end..]);
    let words = words(line).ok_or(b"ERR Invalid engine in script shebang")?;
    let engine = if line.first().is_some_and(u8::is_ascii_whitespace) { None } else { words.first() };
    match engine {
        Some(engine) if engine == b"lua" => {}
        other => {
            let engine = other.map_or(&b""[..], |engine| engine);
            return Err([b"ERR Unexpected engine in script shebang: #!", engine].concat());
        }
    }
    for word in &words[1..] {
        let Some(names) = word.strip_prefix(b"flags=") else {
            return Err([b"ERR Unknown lua shebang option: ", &word[..]].concat());
        };
        for name in names.split(|byte| *byte == b',') {
            if !names.is_empty() && !flags.set(name) {
                return Err([b"ERR Unexpected flag in script shebang: ", name].concat());
            }
        }
    }
    dragonfly_flags(&body[1..], &mut flags)?;
    Ok((flags, body))
}

/// `--!df flags=name,name` on the first line.
fn dragonfly_flags(source: &[u8], flags: &mut ScriptFlags) -> Result<(), Vec<u8>> {
    let Some(line) = source.strip_prefix(b"--!df flags=") else { return Ok(()) };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    for name in line.split(|byte| matches!(byte, b',' | b' ' | b'\r')).filter(|name| !name.is_empty()) {
        let known = std::str::from_utf8(name).is_ok_and(|name| flags.set_dragonfly(name));
        if !known {
            return Err([b"ERR Invalid argument: Invalid flag: ", name].concat());
        }
    }
    Ok(())
}

/// Splits a line at spaces, with quotes as in Redis' configuration. None if quotes do not match.
pub(crate) fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        rest = &rest[blank..];
        if rest.is_empty() {
            return Some(words);
        }
        let mut word = Vec::new();
        let mut quote = None;
        loop {
            let Some((&byte, after)) = rest.split_first() else {
                if quote.is_some() {
                    return None;
                }
                break;
            };
            rest = after;
            match quote {
                Some(mark) if byte == mark => {
                    // A closing quote ends the word.
                    if rest.first().is_some_and(|next| !next.is_ascii_whitespace()) {
                        return None;
                    }
                    break;
                }
                Some(b'"') if byte == b'\\' && !rest.is_empty() => {
                    word.push(rest[0]);
                    rest = &rest[1..];
                }
                Some(_) => word.push(byte),
                None if byte == b'"' || byte == b'\'' => quote = Some(byte),
                None if byte.is_ascii_whitespace() => break,
                None => word.push(byte),
            }
        }
        words.push(word);
    }
}
