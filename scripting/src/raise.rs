//! Errors on their way from Rust functions into scripts.

use crate::lua::{Stack, Type};

/// An error that a function raises in the script that called it.
#[derive(Debug)]
pub(crate) enum Raise {
    /// A text, which gets the caller's position in front, as Lua's own errors have it.
    Text(Vec<u8>),
    /// A text without a position.
    Plain(&'static str),
    /// One of Redis' error tables: `{err = text}`.
    Table(Vec<u8>),
    /// A complaint about the argument of that number.
    Argument(usize, Vec<u8>),
    /// The value on top of the stack.
    Top,
    /// The limit of memory.
    Memory,
    /// Ends the script, whatever it has around the call.
    Abort,
}

impl Raise {
    /// An ordinary Lua error.
    pub(crate) fn text(text: impl Into<Vec<u8>>) -> Raise {
        Raise::Text(text.into())
    }

    /// What `luaL_argerror` says.
    pub(crate) fn argument(number: usize, text: impl Into<Vec<u8>>) -> Raise {
        Raise::Argument(number, text.into())
    }

    /// What `luaL_typerror` says.
    pub(crate) fn wrong_type(stack: &Stack, number: usize, wanted: &str) -> Raise {
        Raise::argument(number, format!("{wanted} expected, got {}", stack.type_of(number as i32).name()))
    }

    /// Pushes the error's value. False for the error that has none, because nobody may see it.
    pub(crate) fn push(self, stack: &mut Stack) -> bool {
        match self {
            Raise::Text(text) => push_with_position(stack, &text),
            Raise::Plain(text) => stack.push_bytes(text),
            Raise::Table(text) => push_error_table(stack, &text),
            Raise::Argument(number, text) => {
                let text = argument_text(stack, number, &text);
                push_with_position(stack, &text);
            }
            Raise::Top => {}
            Raise::Memory => stack.push_bytes("not enough memory"),
            Raise::Abort => return false,
        }
        true
    }
}

/// `user_script:3: text`
fn push_with_position(stack: &mut Stack, text: &[u8]) {
    let mut message = Vec::new();
    if let Some(position) = stack.position(1)
        && position.line > 0
    {
        message.extend_from_slice(&position.short_source);
        message.extend_from_slice(format!(":{}: ", position.line).as_bytes());
    }
    message.extend_from_slice(text);
    stack.push_bytes(message);
}

fn argument_text(stack: &Stack, number: usize, text: &[u8]) -> Vec<u8> {
    let position = stack.position(0);
    let mut number = number as i64;
    let mut name = b"?".to_vec();
    if let Some(position) = position {
        if position.method {
            number -= 1;
        }
        if let Some(called) = position.name {
            name = called;
        }
        if position.method && number == 0 {
            return [b"calling '", &name[..], b"' on bad self (", text, b")"].concat();
        }
    }
    [format!("bad argument #{number} to '").as_bytes(), &name, b"' (", text, b")"].concat()
}

/// Pushes `{err = text}`.
pub(crate) fn push_error_table(stack: &mut Stack, text: &[u8]) {
    stack.push_table(0, 2);
    stack.push_bytes(text);
    stack.set_field(-2, "err");
}

/// A number argument, as `luaL_checknumber` takes it.
pub(crate) fn check_number(stack: &Stack, number: usize) -> Result<f64, Raise> {
    stack.to_number(number as i32).ok_or_else(|| Raise::wrong_type(stack, number, "number"))
}

/// An integer argument, as `luaL_checkinteger` takes it: fractions are cut off.
pub(crate) fn check_integer(stack: &Stack, number: usize) -> Result<i64, Raise> {
    check_number(stack, number).map(|value| value as i64)
}

/// A string argument or a number's text, as `luaL_checklstring` takes them: a copy, so that the stack can change.
pub(crate) fn check_bytes(stack: &Stack, number: usize) -> Result<Vec<u8>, Raise> {
    match stack.type_of(number as i32) {
        Type::String => {
            let bytes = stack.bytes(number as i32).unwrap_or_default();
            // Whoever asks for them will read them as well.
            stack.work(bytes.len() >> 4);
            Ok(bytes.to_vec())
        }
        Type::Number => {
            let mut text = Vec::new();
            crate::lua::print_number(stack.number(number as i32).unwrap_or_default(), 14, &mut text);
            Ok(text)
        }
        _ => Err(Raise::wrong_type(stack, number, "string")),
    }
}
