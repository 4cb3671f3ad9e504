//! The client's mistakes, with Redis' words for them.

use std::borrow::Cow;
use std::fmt;

/// What a handler returns: its reply is already written, or this is the reply.
pub type CmdResult = Result<(), CommandError>;

/// A command that could not be carried out. `Display` is the reply without the leading `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The key holds another type.
    WrongType,
    /// Options that make no sense.
    Syntax,
    /// Not a 64-bit integer.
    NotInteger,
    /// Not a float.
    NotFloat,
    /// RENAME and others need the key to exist.
    NoSuchKey,
    /// A database that is not there.
    DbIndexOutOfRange,
    /// A count or an offset outside its bounds.
    OutOfRange,
    /// Wrong number of arguments for the command with this lower-case name.
    Arity(Cow<'static, str>),
    /// A time to live that is not a time; the command's lower-case name.
    InvalidExpire(&'static str),
    /// A string would exceed `proto-max-bulk-len`.
    StringTooLong,
    /// COPY and MOVE onto the very same key.
    SameObject,
    /// RESTORE of a payload whose footer is right and whose value is not.
    BadPayload,
    /// `maxmemory` is reached and nothing can be evicted.
    OutOfMemory,
    /// Any other text, with its prefix (`ERR`, `BUSYKEY`...).
    Text(Cow<'static, str>),
}

impl CommandError {
    /// An error with a text of its own.
    pub const fn text(text: &'static str) -> CommandError {
        CommandError::Text(Cow::Borrowed(text))
    }

    /// An error with a text made up now.
    pub fn owned(text: String) -> CommandError {
        CommandError::Text(Cow::Owned(text))
    }

    /// The arity error for a command, or sub-command as `client|kill`.
    pub fn arity(name: &str) -> CommandError {
        CommandError::Arity(Cow::Owned(name.to_ascii_lowercase()))
    }

    /// The error for a sub-command that its container does not have.
    pub fn unknown_subcommand(container: &str, subcommand: &[u8]) -> CommandError {
        CommandError::owned(format!(
            "ERR unknown subcommand '{}'. Try {} HELP.",
            printable(subcommand, 128),
            container.to_ascii_uppercase()
        ))
    }
}

/// At most `len_max` bytes of a client's text, for error messages: text as is, everything else as Redis' `%s` shows it.
pub fn printable(bytes: &[u8], len_max: usize) -> Cow<'_, str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(len_max)])
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CommandError::WrongType => "WRONGTYPE Operation against a key holding the wrong kind of value",
            CommandError::Syntax => "ERR syntax error",
            CommandError::NotInteger => "ERR value is not an integer or out of range",
            CommandError::NotFloat => "ERR value is not a valid float",
            CommandError::NoSuchKey => "ERR no such key",
            CommandError::DbIndexOutOfRange => "ERR DB index is out of range",
            CommandError::OutOfRange => "ERR value is out of range",
            CommandError::StringTooLong => "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
            CommandError::SameObject => "ERR source and destination objects are the same",
            CommandError::BadPayload => "ERR Bad data format",
            CommandError::OutOfMemory => "OOM command not allowed when used memory > 'maxmemory'.",
            CommandError::Arity(name) => {
                return write!(f, "ERR wrong number of arguments for '{name}' command");
            }
            CommandError::InvalidExpire(name) => {
                return write!(f, "ERR invalid expire time in '{name}' command");
            }
            CommandError::Text(text) => text,
        })
    }
}

impl From<damselfly_keyspace::WrongType> for CommandError {
    fn from(_: damselfly_keyspace::WrongType) -> CommandError {
        CommandError::WrongType
    }
}

impl std::error::Error for CommandError {}
