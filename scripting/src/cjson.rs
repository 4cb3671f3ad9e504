//! The `cjson` library: JSON, with the settings and the messages of the library in Redis.
//!
//! Each instance (`cjson` itself, and what `cjson.new()` gives) has its settings in a cell of Lua's memory, which is the
//! second upvalue of its functions. Those of `cjson` are put back before each script, so that no script can change
//! what another one gets.

use crate::context::Context;
use crate::lua::{Function, Stack, Type, print_number, read_number};
use crate::raise::{Raise, check_bytes, check_integer};

const FUNCTIONS: &[(&str, Function)] = &[
    ("encode", encode),
    ("decode", decode),
    ("encode_sparse_array", encode_sparse_array),
    ("encode_max_depth", |stack, _| {
        one_argument(stack)?;
        integer_option(stack, 1, (1, i32::MAX), |settings| &mut settings.encode_depth_max)
    }),
    ("decode_max_depth", |stack, _| {
        one_argument(stack)?;
        integer_option(stack, 1, (1, i32::MAX), |settings| &mut settings.decode_depth_max)
    }),
    ("encode_number_precision", |stack, _| {
        one_argument(stack)?;
        integer_option(stack, 1, (1, 14), |settings| &mut settings.precision)
    }),
    ("encode_keep_buffer", |stack, _| {
        one_argument(stack)?;
        choice(stack, 1, &["off", "on"], |settings| &mut settings.keep_buffer)
    }),
    ("encode_invalid_numbers", |stack, _| {
        one_argument(stack)?;
        choice(stack, 1, &["off", "on", "null"], |settings| &mut settings.encode_invalid)
    }),
    ("decode_invalid_numbers", |stack, _| {
        one_argument(stack)?;
        choice(stack, 1, &["off", "on"], |settings| &mut settings.decode_invalid)
    }),
    ("new", |stack, _| {
        stack.push_cell(Settings::default());
        push_instance(stack);
        Ok(1)
    }),
];

/// Nesting that no setting allows to exceed: a level takes about 200 bytes of the thread's stack.
const DEPTH_MAX: i32 = 2500;

/// What the functions of an instance can be told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    sparse_convert: i32,
    sparse_ratio: i32,
    sparse_safe: i32,
    encode_depth_max: i32,
    decode_depth_max: i32,
    precision: i32,
    /// Without meaning here: the buffer is always Rust's.
    keep_buffer: i32,
    /// Off, on, null.
    encode_invalid: i32,
    decode_invalid: i32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            sparse_convert: 0,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_depth_max: 1000,
            decode_depth_max: 1000,
            precision: 14,
            keep_buffer: 1,
            encode_invalid: 0,
            decode_invalid: 1,
        }
    }
}

/// Replaces the settings' cell on top by an instance of the library that uses it.
pub(crate) fn push_instance(stack: &mut Stack) {
    stack.push_table(0, FUNCTIONS.len() + 3);
    for (name, function) in FUNCTIONS {
        stack.push_copy(-2);
        stack.push_function(*function, 1);
        stack.set_field(-2, name);
    }
    stack.push_null_pointer();
    stack.set_field(-2, "null");
    stack.push_bytes("cjson");
    stack.set_field(-2, "_NAME");
    stack.push_bytes("2.1.0");
    stack.set_field(-2, "_VERSION");
    stack.remove(-2);
}

/// The settings of the instance whose function runs.
fn settings<R>(stack: &mut Stack, work: impl FnOnce(&mut Settings) -> R) -> R {
    stack.cell(Stack::upvalue(2), work)
}

/// At most one argument, nil if there is none.
fn one_argument(stack: &mut Stack) -> Result<(), Raise> {
    arguments(stack, 1)
}

fn arguments(stack: &mut Stack, count: usize) -> Result<(), Raise> {
    if stack.top() > count {
        return Err(Raise::argument(count + 1, "found too many arguments"));
    }
    stack.set_top(count);
    Ok(())
}

fn integer_option(
    stack: &mut Stack,
    argument: usize,
    (min, max): (i32, i32),
    which: fn(&mut Settings) -> &mut i32,
) -> Result<usize, Raise> {
    if stack.type_of(argument as i32) != Type::Nil {
        let value = check_integer(stack, argument)? as i32;
        if value < min || value > max {
            return Err(Raise::argument(1, format!("expected integer between {min} and {max}")));
        }
        settings(stack, |settings| *which(settings) = value);
    }
    let value = settings(stack, |settings| *which(settings));
    stack.push_number(f64::from(value));
    Ok(1)
}

fn choice(
    stack: &mut Stack,
    argument: usize,
    names: &[&str],
    which: fn(&mut Settings) -> &mut i32,
) -> Result<usize, Raise> {
    match stack.type_of(argument as i32) {
        Type::Nil => {}
        Type::Boolean => {
            let value = i32::from(stack.truth(argument as i32));
            settings(stack, |settings| *which(settings) = value);
        }
        _ => {
            let name = check_bytes(stack, argument)?;
            let value = names
                .iter()
                .position(|known| known.as_bytes() == name)
                .ok_or_else(|| Raise::argument(argument, [b"invalid option '", &name[..], b"'"].concat()))?;
            settings(stack, |settings| *which(settings) = value as i32);
        }
    }
    match settings(stack, |settings| *which(settings)) {
        value @ (0 | 1) => stack.push_bool(value == 1),
        value => stack.push_bytes(names[value as usize]),
    }
    Ok(1)
}

/// `cjson.encode_sparse_array([convert [, ratio [, safe]]])`
fn encode_sparse_array(stack: &mut Stack, _: &mut Context) -> Result<usize, Raise> {
    arguments(stack, 3)?;
    choice(stack, 1, &["off", "on"], |settings| &mut settings.sparse_convert)?;
    integer_option(stack, 2, (0, i32::MAX), |settings| &mut settings.sparse_ratio)?;
    integer_option(stack, 3, (0, i32::MAX), |settings| &mut settings.sparse_safe)?;
    Ok(3)
}

/// `cjson.encode(value)`
fn encode(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    if stack.top() != 1 {
        return Err(Raise::argument(1, "expected 1 argument"));
    }
    let settings = settings(stack, |settings| *settings);
    let mut writer = Writer { settings, out: Vec::new() };
    writer.value(stack, cx, 0)?;
    stack.push_bytes(writer.out);
    Ok(1)
}

struct Writer {
    settings: Settings,
    out: Vec<u8>,
}

impl Writer {
    /// Appends the value on top, which stays.
    fn value(&mut self, stack: &mut Stack, cx: &mut Context, depth: i32) -> Result<(), Raise> {
        match stack.type_of(-1) {
            Type::String => self.string(stack.bytes(-1).unwrap_or_default()),
            Type::Number => self.number(stack.number(-1).unwrap_or_default())?,
            Type::Boolean => self.out.extend_from_slice(if stack.truth(-1) { b"true" } else { b"false" }),
            Type::Table => self.table(stack, cx, depth + 1)?,
            Type::Nil => self.out.extend_from_slice(b"null"),
            Type::LightUserdata if stack.is_null_pointer(-1) => self.out.extend_from_slice(b"null"),
            other => return Err(cannot(other, "type not supported")),
        }
        cx.pause(stack, 1)?;
        if self.out.len() > (1 << 20) {
            cx.pause_for(stack, self.out.len())?;
        }
        Ok(())
    }

    fn table(&mut self, stack: &mut Stack, cx: &mut Context, depth: i32) -> Result<(), Raise> {
        if depth > self.settings.encode_depth_max.min(DEPTH_MAX) || stack.ensure(6).is_err() {
            return Err(Raise::text(format!("Cannot serialise, excessive nesting ({depth})")));
        }
        match self.array_len(stack, cx)? {
            Some(len) if len > 0 => {
                self.out.push(b'[');
                for n in 1..=len {
                    if n > 1 {
                        self.out.push(b',');
                    }
                    stack.raw_geti(-1, n);
                    self.value(stack, cx, depth)?;
                    stack.pop(1);
                }
                self.out.push(b']');
            }
            _ => self.object(stack, cx, depth)?,
        }
        Ok(())
    }

    /// The highest index, if all keys are positive integers and not too far apart.
    fn array_len(&self, stack: &mut Stack, cx: &mut Context) -> Result<Option<usize>, Raise> {
        let (mut max, mut items) = (0f64, 0f64);
        stack.push_nil();
        while stack.next(-2) {
            stack.pop(1);
            cx.pause(stack, 1)?;
            match stack.number(-1) {
                Some(key) if key >= 1.0 && key.floor() == key => {
                    max = max.max(key);
                    items += 1.0;
                }
                _ => {
                    stack.pop(1);
                    return Ok(None);
                }
            }
        }
        let ratio = f64::from(self.settings.sparse_ratio);
        if ratio > 0.0 && max > items * ratio && max > f64::from(self.settings.sparse_safe) {
            if self.settings.sparse_convert == 0 {
                return Err(cannot(Type::Table, "excessively sparse array"));
            }
            return Ok(None);
        }
        // Without a ratio, a far index would make us write nulls for ever.
        if max > f64::from(i32::MAX) {
            return Err(cannot(Type::Table, "excessively sparse array"));
        }
        Ok(Some(max as usize))
    }

    fn object(&mut self, stack: &mut Stack, cx: &mut Context, depth: i32) -> Result<(), Raise> {
        self.out.push(b'{');
        let mut first = true;
        stack.push_nil();
        while stack.next(-2) {
            if !first {
                self.out.push(b',');
            }
            first = false;
            match stack.type_of(-2) {
                Type::Number => {
                    self.out.push(b'"');
                    self.number(stack.number(-2).unwrap_or_default())?;
                    self.out.extend_from_slice(b"\":");
                }
                Type::String => {
                    self.string(stack.bytes(-2).unwrap_or_default());
                    self.out.push(b':');
                }
                other => return Err(cannot(other, "table key must be a number or string")),
            }
            self.value(stack, cx, depth)?;
            stack.pop(1);
        }
        self.out.push(b'}');
        Ok(())
    }

    fn number(&mut self, number: f64) -> Result<(), Raise> {
        match self.settings.encode_invalid {
            _ if number.is_finite() => {}
            0 => return Err(cannot(Type::Number, "must not be NaN or Inf")),
            1 if number.is_nan() => {
                self.out.extend_from_slice(b"nan");
                return Ok(());
            }
            1 => {}
            _ => {
                self.out.extend_from_slice(b"null");
                return Ok(());
            }
        }
        print_number(number, self.settings.precision as usize, &mut self.out);
        Ok(())
    }

    fn string(&mut self, text: &[u8]) {
        self.out.reserve(text.len() + 2);
        self.out.push(b'"');
        let mut plain = 0;
        for (at, byte) in text.iter().enumerate() {
            let short = match byte {
                b'"' | b'\\' | b'/' => *byte,
                8 => b'b',
                9 => b't',
                10 => b'n',
                12 => b'f',
                13 => b'r',
                0..32 | 127 => 0,
                _ => continue,
            };
            self.out.extend_from_slice(&text[plain..at]);
            plain = at + 1;
            if short != 0 {
                self.out.extend_from_slice(&[b'\\', short]);
            } else {
                self.out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
            }
        }
        self.out.extend_from_slice(&text[plain..]);
        self.out.push(b'"');
    }
}

fn cannot(what: Type, why: &str) -> Raise {
    Raise::text(format!("Cannot serialise {}: {why}", what.name()))
}

/// `cjson.decode(text)`
fn decode(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    if stack.top() != 1 {
        return Err(Raise::argument(1, "expected 1 argument"));
    }
    let mut text = check_bytes(stack, 1)?;
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        return Err(Raise::text("JSON parser does not support UTF-16 or UTF-32"));
    }
    // A zero ends the text for the original, and for strtod.
    text.push(0);
    let settings = settings(stack, |settings| *settings);
    let mut reader = Reader { text: &text, at: 0, settings };
    let token = reader.next()?;
    reader.value(stack, cx, token, 0)?;
    match reader.next()? {
        (Token::End, _) => Ok(1),
        found => Err(reader.unexpected("the end", found)),
    }
}

enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    String(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

impl Token {
    fn name(&self) -> &'static str {
        match self {
            Token::ObjectBegin => "T_OBJ_BEGIN",
            Token::ObjectEnd => "T_OBJ_END",
            Token::ArrayBegin => "T_ARR_BEGIN",
            Token::ArrayEnd => "T_ARR_END",
            Token::String(_) => "T_STRING",
            Token::Number(_) => "T_NUMBER",
            Token::Boolean(_) => "T_BOOLEAN",
            Token::Null => "T_NULL",
            Token::Colon => "T_COLON",
            Token::Comma => "T_COMMA",
            Token::End => "T_END",
            Token::Error(text) => text,
        }
    }
}

/// A token and where it begins.
type Found = (Token, usize);

struct Reader<'a> {
    /// Ends with a zero.
    text: &'a [u8],
    at: usize,
    settings: Settings,
}

impl Reader<'_> {
    fn unexpected(&self, wanted: &str, (token, at): Found) -> Raise {
        Raise::text(format!("Expected {wanted} but found {} at character {}", token.name(), at + 1))
    }

    /// Pushes the value that begins with `token`.
    fn value(&mut self, stack: &mut Stack, cx: &mut Context, token: Found, depth: i32) -> Result<(), Raise> {
        cx.pause(stack, 1)?;
        match token.0 {
            Token::String(text) => stack.push_bytes(text),
            Token::Number(number) => stack.push_number(number),
            Token::Boolean(value) => stack.push_bool(value),
            Token::Null => stack.push_null_pointer(),
            Token::ObjectBegin => self.object(stack, cx, depth + 1)?,
            Token::ArrayBegin => self.array(stack, cx, depth + 1)?,
            _ => return Err(self.unexpected("value", token)),
        }
        Ok(())
    }

    fn descend(&mut self, stack: &mut Stack, depth: i32) -> Result<(), Raise> {
        if depth > self.settings.decode_depth_max.min(DEPTH_MAX) || stack.ensure(6).is_err() {
            return Err(Raise::text(format!(
                "Found too many nested data structures ({depth}) at character {}",
                self.at
            )));
        }
        Ok(())
    }

    fn object(&mut self, stack: &mut Stack, cx: &mut Context, depth: i32) -> Result<(), Raise> {
        self.descend(stack, depth)?;
        stack.push_table(0, 0);
        let mut token = self.next()?;
        if matches!(token.0, Token::ObjectEnd) {
            return Ok(());
        }
        loop {
            match token.0 {
                Token::String(key) => stack.push_bytes(key),
                _ => return Err(self.unexpected("object key string", token)),
            }
            token = self.next()?;
            if !matches!(token.0, Token::Colon) {
                return Err(self.unexpected("colon", token));
            }
            token = self.next()?;
            self.value(stack, cx, token, depth)?;
            stack.raw_set(-3)?;
            token = self.next()?;
            match token.0 {
                Token::ObjectEnd => return Ok(()),
                Token::Comma => token = self.next()?,
                _ => return Err(self.unexpected("comma or object end", token)),
            }
        }
    }

    fn array(&mut self, stack: &mut Stack, cx: &mut Context, depth: i32) -> Result<(), Raise> {
        self.descend(stack, depth)?;
        stack.push_table(0, 0);
        let mut token = self.next()?;
        if matches!(token.0, Token::ArrayEnd) {
            return Ok(());
        }
        for n in 1.. {
            self.value(stack, cx, token, depth)?;
            stack.raw_seti(-2, n);
            token = self.next()?;
            match token.0 {
                Token::ArrayEnd => break,
                Token::Comma => token = self.next()?,
                _ => return Err(self.unexpected("comma or array end", token)),
            }
        }
        Ok(())
    }

    /// The byte at an offset from here; zeros beyond the end.
    fn peek(&self, offset: usize) -> u8 {
        self.text.get(self.at + offset).copied().unwrap_or(0)
    }

    fn next(&mut self) -> Result<Found, Raise> {
        while matches!(self.peek(0), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        let start = self.at;
        let single = match self.peek(0) {
            b'{' => Some(Token::ObjectBegin),
            b'}' => Some(Token::ObjectEnd),
            b'[' => Some(Token::ArrayBegin),
            b']' => Some(Token::ArrayEnd),
            b':' => Some(Token::Colon),
            b',' => Some(Token::Comma),
            0 => return Ok((Token::End, start)),
            _ => None,
        };
        if let Some(token) = single {
            self.at += 1;
            return Ok((token, start));
        }
        let token = match self.peek(0) {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => {
                if self.settings.decode_invalid == 0 && self.is_invalid_number() {
                    Token::Error("invalid number")
                } else {
                    self.number()
                }
            }
            b't' if self.word(b"true") => Token::Boolean(true),
            b'f' if self.word(b"false") => Token::Boolean(false),
            b'n' if self.word(b"null") => Token::Null,
            b'+' | b'i' | b'I' | b'n' | b'N'
                if self.settings.decode_invalid != 0 && self.is_invalid_number() =>
            {
                self.number()
            }
            _ => Token::Error("invalid token"),
        };
        let at = if matches!(token, Token::Error(_)) { self.at } else { start };
        Ok((token, at))
    }

    fn word(&mut self, word: &[u8]) -> bool {
        let found = self.text[self.at..].starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    /// What C reads as a number and JSON does not.
    fn is_invalid_number(&self) -> bool {
        if self.peek(0) == b'+' {
            return true;
        }
        let skip = usize::from(self.peek(0) == b'-');
        let (first, second) = (self.peek(skip), self.peek(skip + 1));
        if first == b'0' {
            return second | 0x20 == b'x' || second.is_ascii_digit();
        }
        if first <= b'9' {
            return false;
        }
        let rest = &self.text[self.at + skip..];
        rest.get(..3)
            .is_some_and(|word| word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"nan"))
    }

    fn number(&mut self) -> Token {
        let (number, len) = read_number(&self.text[self.at..]);
        if len == 0 {
            return Token::Error("invalid number");
        }
        self.at += len;
        Token::Number(number)
    }

    fn string(&mut self) -> Token {
        let mut out = Vec::new();
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0)).unwrap_or(0);
            out.extend_from_slice(&rest[..plain]);
            self.at += plain;
            match self.peek(0) {
                b'"' => {
                    self.at += 1;
                    return Token::String(out);
                }
                b'\\' => {}
                _ => return Token::Error("unexpected end of string"),
            }
            let byte = match self.peek(1) {
                byte @ (b'"' | b'\\' | b'/') => byte,
                b'b' => 8,
                b't' => 9,
                b'n' => 10,
                b'f' => 12,
                b'r' => 13,
                b'u' => match self.unicode(&mut out) {
                    Some(len) => {
                        self.at += len;
                        continue;
                    }
                    None => return Token::Error("invalid unicode escape code"),
                },
                _ => return Token::Error("invalid escape code"),
            };
            out.push(byte);
            self.at += 2;
        }
    }

    /// Appends what an escape here stands for, as UTF-8; gives the escape's length.
    fn unicode(&self, out: &mut Vec<u8>) -> Option<usize> {
        let (mut code, mut len) = (self.hex(2)?, 6);
        if code & 0xF800 == 0xD800 {
            if code & 0x400 != 0 || self.peek(6) != b'\\' || self.peek(7) != b'u' {
                return None;
            }
            let low = self.hex(8)?;
            if low & 0xFC00 != 0xDC00 {
                return None;
            }
            code = 0x1_0000 + ((code & 0x3FF) << 10 | low & 0x3FF);
            len = 12;
        }
        let text = char::from_u32(code)?;
        out.extend_from_slice(text.encode_utf8(&mut [0; 4]).as_bytes());
        Some(len)
    }

    fn hex(&self, offset: usize) -> Option<u32> {
        (0..4).try_fold(0, |code, i| Some(code << 4 | char::from(self.peek(offset + i)).to_digit(16)?))
    }
}
