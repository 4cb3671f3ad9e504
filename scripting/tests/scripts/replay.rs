//! Scripts that were run by redis-server 7.0, and what it answered (`redis7.txt`), run by the engine.

use crate::fake::{Fake, engine, eval};
use damselfly_protocol::sha1;
use damselfly_scripting::Ended;

/// Undoes `\xNN`.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        out.push(u8::from_str_radix(&rest[at + 2..at + 4], 16).expect("two digits"));
        rest = &rest[at + 4..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// All in one engine, one after the other: the same answers, byte for byte.
#[test]
fn same_answers_as_redis() {
    let mut engine = engine();
    let mut host = Fake::default();
    let mut wrong = Vec::new();
    let text = include_str!("redis7.txt");
    let lines: Vec<&str> = text.lines().collect();
    for case in lines.chunks(2) {
        let call = case[0].strip_prefix("> ").expect("a call");
        let expected = unescape(case[1].strip_prefix("= ").expect("an answer"));
        let mut words: Vec<Vec<u8>> = call.split('\t').map(unescape).collect();
        let script = words.remove(0);
        let keys: usize = String::from_utf8(words.remove(0)).expect("digits").parse().expect("a number");
        let words: Vec<&[u8]> = words.iter().map(|word| &word[..]).collect();
        let (answer, ended) = eval(&mut engine, &mut host, &script, &words[..keys], &words[keys..]);
        assert_ne!(ended, Ended::Unknown);
        if answer != expected {
            wrong.push(format!(
                "{}\n  want {}\n  got  {}",
                String::from_utf8_lossy(&script),
                expected.escape_ascii(),
                answer.escape_ascii()
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), lines.len() / 2, wrong.join("\n"));
    assert_eq!(sha1::LEN, 20);
}
