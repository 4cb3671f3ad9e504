//! Function libraries: what FUNCTION LOAD reads and FCALL runs.
//!
//! A library's code runs once, in globals that only have `redis.register_function` and the log; the functions that it
//! registers then live in globals that lead to everything. Both are the same table, whose metatable is turned around
//! when loading is over, because a function keeps the globals that it was made with.

use crate::context::Context;
use crate::lua::{Kept, Stack, Type};
use crate::raise::{Raise, check_bytes};
use crate::shebang::{self, ScriptFlags};

/// A function of a library, as FUNCTION LIST shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionInfo {
    /// What FCALL calls it.
    pub name: String,
    /// What the library says about it.
    pub description: Option<Vec<u8>>,
    /// What it declares.
    pub flags: ScriptFlags,
}

impl FunctionInfo {
    /// What functions are found by: see [`key_of`].
    pub fn key(&self) -> String {
        key_of(&self.name)
    }
}

/// What a function is found by that is called by this name: to FCALL upper and lower case are the same.
pub fn key_of(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// A library, as FUNCTION LIST shows it and as FUNCTION DUMP saves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Of the first line.
    pub name: String,
    /// The complete source: what to load in order to have the library.
    pub source: Vec<u8>,
    /// In the order of their registration.
    pub functions: Vec<FunctionInfo>,
}

/// Functions that a library may register. Each keeps a number in the registry, and all threads load all of them.
pub(crate) const FUNCTIONS_MAX: usize = 10_000;

/// What a library registers while it is loaded.
pub(crate) type Registrations = Vec<(FunctionInfo, Kept)>;

/// Splits a library into its name and its body. The error is a complete reply text.
pub(crate) fn split(source: &[u8]) -> Result<(String, &[u8]), Vec<u8>> {
    let line = source.strip_prefix(b"#!").ok_or(b"ERR Missing library metadata")?;
    let end = line.iter().position(|byte| *byte == b'\n').ok_or(b"ERR Invalid library metadata")?;
    let (line, body) = (&line[..end], &source[2 + end..]);
    let words = shebang::words(line).ok_or(b"ERR Invalid library metadata")?;
    // Nothing, if it does not stand right behind the `#!`.
    let (engine, words) = if line.first().is_some_and(u8::is_ascii_whitespace) {
        (&b""[..], &words[..])
    } else {
        let (engine, words) = words.split_first().ok_or(b"ERR Invalid library metadata")?;
        (&engine[..], words)
    };
    let mut name = None;
    for word in words {
        match word.strip_prefix(b"name=") {
            Some(_) if name.is_some() => {
                return Err(b"ERR Invalid metadata value, name argument was given multiple times".to_vec());
            }
            Some(given) => name = Some(given),
            None => return Err([b"ERR Invalid metadata value given: ", &word[..]].concat()),
        }
    }
    let name = name.ok_or(b"ERR Library name was not given")?;
    let name = valid_name(name).ok_or_else(|| [b"ERR ", BAD_NAME.as_bytes()].concat())?;
    if !engine.eq_ignore_ascii_case(b"lua") {
        return Err([b"ERR Engine '", engine, b"' not found"].concat());
    }
    Ok((name, body))
}

const BAD_NAME: &str = "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long";

fn valid_name(name: &[u8]) -> Option<String> {
    let valid = !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    valid.then(|| String::from_utf8_lossy(name).into_owned())
}

fn refuse(text: &str) -> Raise {
    Raise::Table([b"ERR ", text.as_bytes()].concat())
}

/// `redis.register_function(name, callback)` or `redis.register_function{function_name = , callback = , ...}`
pub(crate) fn register(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    let mut flags = ScriptFlags { declared: true, ..ScriptFlags::default() };
    let mut description = None;
    let mut name = None;
    let mut callback = false;
    match stack.top() {
        1 => {
            if stack.type_of(1) != Type::Table {
                return Err(refuse(
                    "calling redis.register_function with a single argument is only applicable to Lua table \
                     (representing named arguments).",
                ));
            }
            // Position 2 is the callback's.
            stack.push_bool(false);
            stack.push_nil();
            while stack.next(1) {
                let key = check_bytes(stack, 3).map_err(|_| {
                    refuse("named argument key given to redis.register_function is not a string")
                })?;
                match &key[..] {
                    b"function_name" => {
                        name = Some(check_bytes(stack, 4).map_err(|_| {
                            refuse("function_name argument given to redis.register_function must be a string")
                        })?);
                    }
                    b"description" => {
                        description = Some(check_bytes(stack, 4).map_err(|_| {
                            refuse("description argument given to redis.register_function must be a string")
                        })?);
                    }
                    b"callback" => {
                        if stack.type_of(4) != Type::Function {
                            return Err(refuse(
                                "callback argument given to redis.register_function must be a function",
                            ));
                        }
                        stack.push_copy(4);
                        stack.insert(2);
                        stack.remove(3);
                        callback = true;
                    }
                    b"flags" => flags = read_flags(stack)?,
                    _ => return Err(refuse("unknown argument given to redis.register_function")),
                }
                stack.pop(1);
            }
            if name.is_none() {
                return Err(refuse("redis.register_function must get a function name argument"));
            }
            if !callback {
                return Err(refuse("redis.register_function must get a callback argument"));
            }
        }
        2 => {
            name = Some(
                check_bytes(stack, 1)
                    .map_err(|_| refuse("first argument to redis.register_function must be a string"))?,
            );
            if stack.type_of(2) != Type::Function {
                return Err(refuse("second argument to redis.register_function must be a function"));
            }
        }
        _ => return Err(refuse("wrong number of arguments to redis.register_function")),
    }
    let name = valid_name(&name.unwrap_or_default()).ok_or_else(|| refuse(BAD_NAME))?;
    let Some(library) = &mut cx.library else {
        return Err(refuse("redis.register_function can only be called on FUNCTION LOAD command"));
    };
    if library.iter().any(|(known, _)| known.key() == key_of(&name)) {
        return Err(refuse("Function already exists in the library"));
    }
    if library.len() >= FUNCTIONS_MAX {
        return Err(refuse("too many functions in the library"));
    }
    stack.push_copy(2);
    library.push((FunctionInfo { name, description, flags }, stack.keep()));
    Ok(0)
}

/// The flags in the table on top.
fn read_flags(stack: &mut Stack) -> Result<ScriptFlags, Raise> {
    if stack.type_of(-1) != Type::Table {
        return Err(refuse(
            "flags argument to redis.register_function must be a table representing function flags",
        ));
    }
    let mut flags = ScriptFlags { declared: true, ..ScriptFlags::default() };
    for n in 1.. {
        stack.raw_geti(-1, n);
        let known = match stack.type_of(-1) {
            Type::Nil => {
                stack.pop(1);
                break;
            }
            Type::String => flags.set(stack.bytes(-1).unwrap_or_default()),
            _ => false,
        };
        if !known {
            return Err(refuse("unknown flag given"));
        }
        stack.pop(1);
    }
    Ok(flags)
}
