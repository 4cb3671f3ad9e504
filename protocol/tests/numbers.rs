//! Number parsing, printing and adding against what redis-server 7.0.15 (x86-64) answered.
//!
//! `numbers.txt` has a line per case, fields separated by tabs: `incrbyfloat stored increment answer`,
//! `zscore score answer` and `incrby increment answer`. Inputs are random, with a share of near misses, cancellation
//! (x plus nearly -x), hexadecimal floats and exponents at both ends of the 80-bit format.

use damselfly_protocol::number::{DOUBLE_LEN_MAX, fmt_double_17, incr_by_float, parse_f64, parse_i64};

#[test]
fn recorded_answers() {
    let mut cases = [0; 3];
    let mut accepted = [0; 3];
    for line in include_str!("numbers.txt").lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let (kind, got, expected) = match fields[..] {
            ["incrbyfloat", stored, increment, answer] => {
                let sum = incr_by_float(stored.as_bytes(), increment.as_bytes());
                (0, sum.unwrap_or_else(|error| error.to_string()), answer)
            }
            ["zscore", score, answer] => {
                let mut buf = [0; DOUBLE_LEN_MAX];
                let printed =
                    parse_f64(score.as_bytes()).map(|number| fmt_double_17(number, &mut buf).to_owned());
                (1, printed.unwrap_or_else(|| "ERR value is not a valid float".to_owned()), answer)
            }
            ["incrby", increment, answer] => {
                let number = parse_i64(increment.as_bytes()).map(|number| number.to_string());
                (
                    2,
                    number.unwrap_or_else(|| "ERR value is not an integer or out of range".to_owned()),
                    answer,
                )
            }
            _ => panic!("malformed line: {line}"),
        };
        assert_eq!(got, expected, "{line}");
        cases[kind] += 1;
        accepted[kind] += usize::from(!expected.starts_with("ERR"));
    }
    assert!(cases[0] >= 3000 && cases[1] >= 1500 && cases[2] >= 300, "the recording is whole: {cases:?}");
    assert!(accepted.iter().zip(cases).all(|(accepted, cases)| accepted * 5 > cases), "and not all refusals");
}
