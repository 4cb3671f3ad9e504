//! What may stand behind `->`, and what of it is compared between servers.
//!
//! ```text
//! OK  +OK            a status line
//! "v"                a string; bare words are strings inside brackets: [a b c]
//! 12  :12            an integer
//! ,1.5  ,inf         a number: a RESP3 double or a RESP2 string
//! nil                nothing, in any spelling
//! !ERR syntax        an error that starts so, up to the end of the line or ` # `; inside brackets !"ERR ..."
//! [a 1 nil]          an array, in this order
//! unordered {a b}    an array or set, in any order
//! map {k v}          a RESP3 map or a flat array, pairs in any order
//! pairs [m ,1]       a flat array, an array of pairs or a map, in this order
//! one-of {a b}       any one of these
//! array 3 of X       three elements, each of them X; `array * of X` for any number
//! subset 2 of {a b}  so many different ones of these, in any order; `subset * of {..}` for any number
//! like "a*"          a string that matches, * and ? being wildcards
//! <int>  <int 1..9>  any integer, or one of a range
//! <string> <array> <map> <double> <error>   any of that kind
//! true false         a RESP3 boolean or 1 and 0
//! ~                  anything
//! ```
//!
//! Where the expectation is definite, the two servers must agree byte for byte. Where it is open (`~`, `<..>`,
//! `like`, `one-of`, variables) they need not, and where it leaves the order open the order is not compared:
//! [`Expect::comparable`] cuts a reply down to what must be equal.

use crate::lex::{Lexer, Lookup, Word};
use crate::reply::Reply;

/// Deepest nesting of brackets.
const DEPTH_MAX: usize = 16;

/// One expectation.
#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    Anything,
    Status(Vec<u8>),
    Text(Vec<u8>),
    Int(i64),
    IntRange(i64, i64),
    Double(f64),
    Bool(bool),
    Nil,
    Error(Vec<u8>),
    Like(Vec<u8>),
    Kind(Kind),
    Array(Vec<Expect>),
    Unordered(Vec<Expect>),
    Map(Vec<(Expect, Expect)>),
    Pairs(Vec<(Expect, Expect)>),
    OneOf(Vec<Expect>),
    /// So many elements (any number if `None`), each as given.
    ArrayOf(Option<usize>, Box<Expect>),
    /// So many different members (any number if `None`) of the list.
    Subset(Option<usize>, Vec<Expect>),
    /// Matched, but different from server to server because a variable is part of it.
    Own(Box<Expect>),
}

/// The open kinds of reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Int,
    String,
    Array,
    Map,
    Double,
    Error,
}

/// Parses the text behind `->`.
pub fn parse(source: &str, lookup: Lookup<'_>) -> Result<Expect, String> {
    let mut lexer = Lexer::expectation(source, lookup);
    let expect = one(&mut lexer, 0)?.ok_or("nothing behind ->")?;
    match lexer.ahead() {
        None => Ok(expect),
        Some(_) => Err(format!("left over behind the expectation: {:?}", lexer.rest())),
    }
}

fn one(lexer: &mut Lexer<'_>, depth: usize) -> Result<Option<Expect>, String> {
    if depth > DEPTH_MAX {
        return Err(format!("brackets nested deeper than {DEPTH_MAX}"));
    }
    Ok(many(lexer, depth)?.map(|mut list| if list.len() == 1 { Ok(list.remove(0)) } else { Err(list.len()) }))
        .and_then(|found| found.transpose().map_err(|count| format!("{count} expectations where one fits")))
}

/// One expectation or, from a range, several.
fn many(lexer: &mut Lexer<'_>, depth: usize) -> Result<Option<Vec<Expect>>, String> {
    let expect = match lexer.ahead() {
        None => return Ok(None),
        Some(b'[') => Expect::Array(list(lexer, b'[', b']', depth)?),
        Some(b'<') => {
            lexer.bump();
            kind(lexer.until('>')?, lexer)?
        }
        Some(b'!') => {
            lexer.bump();
            if lexer.ahead() == Some(b'"') || depth > 0 {
                Expect::Error(single(lexer)?.bytes)
            } else {
                let text = lexer.rest().split(" # ").next().unwrap_or_default().trim_end();
                let prefix = Expect::Error(text.as_bytes().to_vec());
                while lexer.ahead().is_some() {
                    lexer.bump();
                }
                prefix
            }
        }
        Some(_) => {
            let words = lexer.words()?.ok_or("nothing where an expectation should be")?;
            if words.len() > 1 {
                return Ok(Some(words.iter().map(|word| scalar(word, depth)).collect::<Result<_, _>>()?));
            }
            let word = &words[0];
            match word.bare() {
                Some("unordered") => Expect::Unordered(list(lexer, b'{', b'}', depth)?),
                Some("one-of") => Expect::OneOf(list(lexer, b'{', b'}', depth)?),
                Some("map") => Expect::Map(pairs(list(lexer, b'{', b'}', depth)?)?),
                Some("pairs") => Expect::Pairs(pairs(list(lexer, b'[', b']', depth)?)?),
                Some("like") => Expect::Like(single(lexer)?.bytes),
                Some("array") => {
                    let count = count(lexer)?;
                    Expect::ArrayOf(count, Box::new(one(lexer, depth + 1)?.ok_or("nothing after `of`")?))
                }
                Some("subset") => Expect::Subset(count(lexer)?, list(lexer, b'{', b'}', depth)?),
                _ => scalar(word, depth)?,
            }
        }
    };
    Ok(Some(vec![expect]))
}

/// `3 of` or `* of`.
fn count(lexer: &mut Lexer<'_>) -> Result<Option<usize>, String> {
    let word = single(lexer)?;
    let text = word.bare().ok_or("a count stands without quotes")?;
    let count = if text == "*" {
        None
    } else {
        Some(text.parse().map_err(|_| format!("a count should stand where {text:?} does"))?)
    };
    if single(lexer)?.bare() == Some("of") { Ok(count) } else { Err("`of` should follow the count".into()) }
}

fn single(lexer: &mut Lexer<'_>) -> Result<Word, String> {
    let mut words = lexer.words()?.ok_or("a word is missing")?;
    if words.len() == 1 { Ok(words.remove(0)) } else { Err("a range stands where one word fits".into()) }
}

fn list(lexer: &mut Lexer<'_>, open: u8, close: u8, depth: usize) -> Result<Vec<Expect>, String> {
    if lexer.ahead() != Some(open) {
        return Err(format!("{:?} is missing before {:?}", char::from(open), lexer.rest()));
    }
    lexer.bump();
    let mut found = Vec::new();
    loop {
        match lexer.ahead() {
            Some(byte) if byte == close => {
                lexer.bump();
                return Ok(found);
            }
            Some(_) => found.extend(many(lexer, depth + 1)?.unwrap_or_default()),
            None => return Err(format!("{:?} is missing", char::from(close))),
        }
    }
}

fn pairs(flat: Vec<Expect>) -> Result<Vec<(Expect, Expect)>, String> {
    if flat.len() % 2 == 1 {
        return Err("an odd number of elements where pairs stand".into());
    }
    let mut flat = flat.into_iter();
    let mut pairs = Vec::new();
    while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// The inside of `<...>`.
fn kind(inside: &str, lexer: &Lexer<'_>) -> Result<Expect, String> {
    let Some((name, range)) = inside.split_once(' ') else {
        return Ok(Expect::Kind(match inside {
            "int" => Kind::Int,
            "string" => Kind::String,
            "array" => Kind::Array,
            "map" => Kind::Map,
            "double" => Kind::Double,
            "error" => Kind::Error,
            _ => return Err(format!("unknown kind <{inside}>")),
        }));
    };
    let (low, high) = range.split_once("..").ok_or_else(|| format!("no range in <{inside}>"))?;
    if name != "int" {
        return Err(format!("only <int> has ranges, not <{name}>"));
    }
    let bound = |text: &str| -> Result<i64, String> {
        let word = single(&mut lexer.nested(text))?;
        let digits = String::from_utf8_lossy(&word.bytes).into_owned();
        digits.parse().map_err(|_| format!("not a number: {digits:?}"))
    };
    Ok(Expect::IntRange(bound(low)?, bound(high)?))
}

fn scalar(word: &Word, depth: usize) -> Result<Expect, String> {
    let expect = match word.bare() {
        None => Expect::Text(word.bytes.clone()),
        Some("~") => Expect::Anything,
        Some("nil") => Expect::Nil,
        Some("true") => Expect::Bool(true),
        Some("false") => Expect::Bool(false),
        Some(text) => {
            if let Some(status) = text.strip_prefix('+') {
                Expect::Status(status.as_bytes().to_vec())
            } else if let Some(digits) = text.strip_prefix(',') {
                Expect::Double(digits.parse().map_err(|_| format!("not a number: {digits:?}"))?)
            } else if let Some(digits) = text.strip_prefix(':') {
                Expect::Int(digits.parse().map_err(|_| format!("not an integer: {digits:?}"))?)
            } else if let Ok(number) = text.parse() {
                Expect::Int(number)
            } else if depth > 0 {
                Expect::Text(word.bytes.clone())
            } else {
                Expect::Status(word.bytes.clone())
            }
        }
    };
    Ok(if word.variable { Expect::Own(Box::new(expect)) } else { expect })
}

impl Expect {
    /// Whether `reply` satisfies the expectation.
    pub fn matches(&self, reply: &Reply) -> bool {
        match self {
            Expect::Anything => true,
            Expect::Status(text) => matches!(reply, Reply::Simple(found) if found == text),
            Expect::Text(text) => {
                matches!(reply, Reply::Bulk(found) | Reply::Verbatim(_, found) if found == text)
            }
            Expect::Int(number) => matches!(reply, Reply::Int(found) if found == number),
            Expect::IntRange(low, high) => {
                matches!(reply, Reply::Int(found) if (low..=high).contains(&found))
            }
            Expect::Double(number) => {
                double(reply).is_some_and(|found| found == *number || (found.is_nan() && number.is_nan()))
            }
            Expect::Bool(value) => *reply == Reply::Bool(*value) || *reply == Reply::Int(i64::from(*value)),
            Expect::Nil => reply.is_null(),
            Expect::Error(prefix) => {
                matches!(reply, Reply::Error(text) | Reply::BlobError(text) if text.starts_with(prefix))
            }
            Expect::Like(pattern) => reply.text().is_some_and(|text| glob(pattern, text)),
            Expect::Kind(Kind::Int) => matches!(reply, Reply::Int(_)),
            Expect::Kind(Kind::String) => reply.text().is_some(),
            Expect::Kind(Kind::Array) => reply.elements().is_some(),
            Expect::Kind(Kind::Map) => flattened(reply).is_some(),
            Expect::Kind(Kind::Double) => double(reply).is_some(),
            Expect::Kind(Kind::Error) => matches!(reply, Reply::Error(_) | Reply::BlobError(_)),
            Expect::Array(expected) => match reply {
                Reply::Array(found) | Reply::Push(found) => in_order(expected, found),
                _ => false,
            },
            Expect::Unordered(expected) => {
                reply.elements().is_some_and(|found| assign(expected, found).is_some())
            }
            Expect::Map(expected) => {
                flattened(reply).is_some_and(|found| assign_pairs(expected, &found).is_some())
            }
            Expect::Pairs(expected) => paired(reply).is_some_and(|found| {
                expected.len() == found.len()
                    && expected
                        .iter()
                        .zip(&found)
                        .all(|(expect, pair)| expect.0.matches(&pair.0) && expect.1.matches(&pair.1))
            }),
            Expect::OneOf(choices) => choices.iter().any(|choice| choice.matches(reply)),
            Expect::ArrayOf(count, each) => reply.elements().is_some_and(|found| {
                count.is_none_or(|count| count == found.len())
                    && found.iter().all(|element| each.matches(element))
            }),
            Expect::Subset(count, members) => reply.elements().is_some_and(|found| {
                let mut distinct = found.to_vec();
                distinct.sort();
                distinct.dedup();
                count.is_none_or(|count| count == found.len())
                    && distinct.len() == found.len()
                    && found.iter().all(|element| members.iter().any(|member| member.matches(element)))
            }),
            Expect::Own(expect) => expect.matches(reply),
        }
    }

    /// What of a reply, which matches, must be the same on another server.
    pub fn comparable(&self, reply: &Reply) -> Reply {
        let open = |what: &str| Reply::Simple(format!("<{what}>").into_bytes());
        match self {
            Expect::Anything | Expect::Own(_) | Expect::OneOf(_) => open("any"),
            Expect::IntRange(..) | Expect::Kind(Kind::Int) => open("int"),
            Expect::Like(_) | Expect::Kind(Kind::String) => match reply {
                Reply::Simple(_) => open("status"),
                Reply::Verbatim(format, _) => Reply::Verbatim(format.clone(), Vec::new()),
                _ => open("string"),
            },
            Expect::Kind(Kind::Double) => match reply {
                Reply::Double(_) => open("double"),
                _ => open("string"),
            },
            Expect::Kind(_) | Expect::ArrayOf(..) | Expect::Subset(..) => match reply {
                Reply::Set(_) => open("set"),
                Reply::Map(_) => open("map"),
                Reply::Push(_) => open("push"),
                _ => open("array"),
            },
            Expect::Array(expected) => match reply {
                Reply::Array(found) => Reply::Array(each(expected, found)),
                Reply::Push(found) => Reply::Push(each(expected, found)),
                _ => reply.clone(),
            },
            Expect::Unordered(expected) => {
                let found = reply.elements().unwrap_or_default();
                let Some(order) = assign(expected, found) else { return reply.clone() };
                let sorted =
                    expected.iter().zip(order).map(|(expect, at)| expect.comparable(&found[at])).collect();
                match reply {
                    Reply::Set(_) => Reply::Set(sorted),
                    Reply::Push(_) => Reply::Push(sorted),
                    _ => Reply::Array(sorted),
                }
            }
            Expect::Map(expected) => {
                let Some(found) = flattened(reply) else { return reply.clone() };
                let Some(order) = assign_pairs(expected, &found) else { return reply.clone() };
                let sorted = expected.iter().zip(order).map(|(expect, at)| {
                    (expect.0.comparable(&found[at].0), expect.1.comparable(&found[at].1))
                });
                match reply {
                    Reply::Map(_) => Reply::Map(sorted.collect()),
                    _ => Reply::Array(sorted.flat_map(|(key, value)| [key, value]).collect()),
                }
            }
            _ => reply.clone(),
        }
    }
}

fn in_order(expected: &[Expect], found: &[Reply]) -> bool {
    expected.len() == found.len() && expected.iter().zip(found).all(|(expect, reply)| expect.matches(reply))
}

fn each(expected: &[Expect], found: &[Reply]) -> Vec<Reply> {
    expected.iter().zip(found).map(|(expect, reply)| expect.comparable(reply)).collect()
}

/// For each expectation the place of its reply: each taken once, the first that fits. Scripts write the definite
/// expectations first, so taking the first that fits never takes the only one of somebody else.
fn assign(expected: &[Expect], found: &[Reply]) -> Option<Vec<usize>> {
    assign_by(expected.len(), found.len(), |at, place| expected[at].matches(&found[place]))
}

fn assign_pairs(expected: &[(Expect, Expect)], found: &[(Reply, Reply)]) -> Option<Vec<usize>> {
    assign_by(expected.len(), found.len(), |at, place| {
        expected[at].0.matches(&found[place].0) && expected[at].1.matches(&found[place].1)
    })
}

fn assign_by(expected: usize, found: usize, fits: impl Fn(usize, usize) -> bool) -> Option<Vec<usize>> {
    if expected != found {
        return None;
    }
    let mut taken = vec![false; found];
    let mut places = Vec::with_capacity(expected);
    for at in 0..expected {
        let place = (0..found).find(|place| !taken[*place] && fits(at, *place))?;
        taken[place] = true;
        places.push(place);
    }
    Some(places)
}

/// The pairs of a map or of a flat array.
fn flattened(reply: &Reply) -> Option<Vec<(Reply, Reply)>> {
    match reply {
        Reply::Map(pairs) => Some(pairs.clone()),
        Reply::Array(flat) if flat.len() % 2 == 0 => {
            Some(flat.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
        }
        _ => None,
    }
}

/// The pairs of a map, of a flat array, or of an array of arrays of two.
fn paired(reply: &Reply) -> Option<Vec<(Reply, Reply)>> {
    if let Reply::Array(elements) = reply
        && elements.iter().all(|element| matches!(element, Reply::Array(pair) if pair.len() == 2))
    {
        let pair = |element: &Reply| element.elements().map(|pair| (pair[0].clone(), pair[1].clone()));
        return elements.iter().map(pair).collect();
    }
    flattened(reply)
}

fn double(reply: &Reply) -> Option<f64> {
    match reply {
        Reply::Double(digits) | Reply::Bulk(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        _ => None,
    }
}

/// Whether all of `text` matches `pattern`, where `*` is any bytes and `?` one byte. Linear but for one retreat
/// point, so a pattern cannot take exponential time.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retreat: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            retreat = Some((p + 1, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((after_star, from)) = retreat {
            p = after_star;
            t = from + 1;
            retreat = Some((after_star, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.as_bytes().to_vec())
    }

    fn check(source: &str, reply: &Reply, fits: bool) {
        let lookup = |name: &str| (name == "x").then(|| b"7".to_vec());
        let expect = parse(source, &lookup).expect(source);
        assert_eq!(expect.matches(reply), fits, "{source} against {reply}");
    }

    /// Each line of the table in the module's head, with a reply that fits and one that does not.
    #[test]
    fn grammar() {
        let ok = Reply::Simple(b"OK".to_vec());
        let flat = Reply::Array(vec![bulk("a"), bulk("1"), bulk("b"), bulk("2")]);
        let set = Reply::Set(vec![bulk("b"), bulk("a")]);
        let map = Reply::Map(vec![(bulk("b"), bulk("2")), (bulk("a"), bulk("1"))]);
        let error = Reply::Error(b"ERR syntax error".to_vec());
        for (source, fits, other) in [
            ("OK", &ok, &bulk("OK")),
            ("+OK  # yes", &ok, &bulk("OK")),
            ("\"v\"", &bulk("v"), &ok),
            ("12", &Reply::Int(12), &bulk("12")),
            ("$x", &Reply::Int(7), &Reply::Int(8)),
            (",1.5", &Reply::Double(b"1.5".to_vec()), &bulk("1.6")),
            ("nil", &Reply::NullArray, &ok),
            ("!ERR syntax # note", &error, &ok),
            ("!ERR other", &Reply::Error(b"ERR other".to_vec()), &error),
            ("[a \"1\" b \"2\"]", &flat, &set),
            ("unordered {a b}", &set, &flat),
            ("map {a \"1\" b \"2\"}", &map, &set),
            ("map {b ~ a ~}", &flat, &set),
            ("pairs [a \"1\" b \"2\"]", &flat, &map),
            ("one-of {a b}", &bulk("b"), &bulk("c")),
            ("array 4 of one-of {a b \"1\" \"2\"}", &flat, &set),
            ("subset 2 of {a b c}", &set, &flat),
            ("like \"*1?x\"", &bulk("a12x"), &bulk("a1x")),
            ("<int 1..$x>", &Reply::Int(7), &Reply::Int(8)),
            ("<error>", &error, &ok),
            ("true", &Reply::Int(1), &Reply::Int(0)),
        ] {
            check(source, fits, true);
            check(source, other, false);
        }
    }

    /// What is open in the expectation is not compared; what is definite is.
    #[test]
    fn comparable_parts() {
        let lookup = |_: &str| Some(b"7".to_vec());
        let same = |source: &str, one: &Reply, two: &Reply| {
            let expect = parse(source, &lookup).expect(source);
            assert!(expect.matches(one) && expect.matches(two), "{source}");
            expect.comparable(one) == expect.comparable(two)
        };
        assert!(same(
            "unordered {a b}",
            &Reply::Set(vec![bulk("a"), bulk("b")]),
            &Reply::Set(vec![bulk("b"), bulk("a")])
        ));
        assert!(!same("unordered {a}", &Reply::Set(vec![bulk("a")]), &Reply::Array(vec![bulk("a")])));
        assert!(same("<int>", &Reply::Int(1), &Reply::Int(2)));
        assert!(!same(",1", &bulk("1"), &bulk("1.0")));
        assert!(!same("nil", &Reply::NullBulk, &Reply::NullArray));
        assert!(!same("!ERR", &Reply::Error(b"ERR a".to_vec()), &Reply::Error(b"ERR b".to_vec())));
    }

    /// Mistakes in an expectation are found when the file is read.
    #[test]
    fn mistakes() {
        for source in
            ["", "[a", "a b", "map {a}", "<nothing>", "array x of 1", "<int 1>", "{1..2}", "subset 2 {a}"]
        {
            assert!(parse(source, &|_| None).is_err(), "{source}");
        }
    }
}
