//! What must hold whatever comes in: texts that are not JSON are refused, random work keeps the count of bytes exact
//! and clones untouched, matching agrees with the plainest evaluator there can be, and no path takes long.

use damselfly_json::{
    Arithmetic, Condition, DEPTH_MAX, Document, Format, JsonError, ParseError, Path, Value, View,
    path::PATH_LEN_MAX,
};

struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

fn random_json(random: &mut Xorshift, depth: usize) -> String {
    const LEAVES: &[&str] = &[
        "0",
        "-1",
        "1",
        "2",
        "1.5",
        "1e3",
        "true",
        "false",
        "null",
        "\"\"",
        "\"x\"",
        "\"a string of some length\"",
        "99999999999999999999",
    ];
    match random.below(if depth == 0 { 3 } else { 6 }) {
        0..3 => random.pick(LEAVES).to_owned(),
        3 => {
            let elements: Vec<_> = (0..random.below(5)).map(|_| random_json(random, depth - 1)).collect();
            format!("[{}]", elements.join(","))
        }
        _ => {
            let names = ["a", "b", "c", "a name that is long"];
            let member = |random: &mut Xorshift| {
                let name = random.pick(&names);
                format!("\"{name}\":{}", random_json(random, depth - 1))
            };
            let members: Vec<_> = (0..random.below(5)).map(|_| member(random)).collect();
            format!("{{{}}}", members.join(","))
        }
    }
}

fn random_path(random: &mut Xorshift) -> String {
    const PARTS: &[&str] = &[
        ".a",
        ".b",
        ".c",
        ".*",
        "..a",
        "..*",
        "[0]",
        "[-1]",
        "[1:]",
        "[::-2]",
        "['a','b']",
        "['a name that is long']",
        "[?(@.a)]",
        "[?(@ > 0)]",
        "[?(@.a == @.b)]",
        "..[0]",
        "[0,0]",
    ];
    let mut path = String::from("$");
    for _ in 0..random.below(4) {
        path.push_str(random.pick(PARTS));
    }
    path
}

fn parse(text: &str) -> Document {
    Document::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error:?}: {text}"))
}

/// The grammar's borders.
#[test]
fn what_is_not_json() {
    for bad in [
        "",
        " ",
        "{",
        "}",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "{\"a\" 1}",
        "{1:1}",
        "tru",
        "truex",
        "True",
        "nul",
        "nulll",
        "NaN",
        "Infinity",
        "-",
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "1.e1",
        "1e",
        "1e+",
        "0x10",
        "1_000",
        "\"",
        "\"a",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u123g\"",
        "\"\\u+123\"",
        "\"\\ud800\"",
        "\"\\ud800x\"",
        "\"\\ud800\\n\"",
        "\"\\ud800\\ud800\"",
        "\"\\udc00\"",
        "\"a\nb\"",
        "\"a\tb\"",
        "\"a\0b\"",
        "1 1",
        "[] []",
        "// c\n1",
        "/* c */1",
        "1 // c",
        "\u{feff}1",
        "\u{a0}1",
        "\"\\'\"",
    ] {
        assert!(matches!(Document::parse(bad.as_bytes()), Err(ParseError::Syntax(_))), "{bad:?}");
    }
    for bad in [
        &b"\"\xff\""[..],
        b"\"\xc3\"",
        b"\"\xed\xa0\x80\"",
        b"\"\xf5\x80\x80\x80\"",
        b"\xff",
        b"\"\xc0\x80\"",
    ] {
        assert_eq!(Document::parse(bad).err(), Some(ParseError::Encoding));
    }
    for large in ["1e309", "-1e309", "1e99999999999999999999"] {
        assert!(matches!(Document::parse(large.as_bytes()), Err(ParseError::Number(_))), "{large}");
    }
    assert_eq!(parse("1e-99999").to_json(), b"0.0");
    let digits = "9".repeat(100_000);
    assert_eq!(parse(&digits).to_json(), digits.as_bytes());
    let fraction = format!("0.{}", "1".repeat(100_000));
    assert_eq!(parse(&fraction).to_json(), b"0.1111111111111111");
}

/// Nesting is bounded when parsing and when documents are put into documents.
#[test]
fn depth_is_bounded() {
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert!(Document::parse(deep(DEPTH_MAX).as_bytes()).is_ok());
    assert_eq!(Document::parse(deep(DEPTH_MAX + 1).as_bytes()).err(), Some(ParseError::Depth));
    for open in ["[", "{\"a\":", "[{\"a\":", "[[],"] {
        let text = open.repeat(1_000_000);
        assert_eq!(Document::parse(text.as_bytes()).err(), Some(ParseError::Depth));
    }
    let mut doc = parse(&format!("{{\"a\":{}}}", deep(DEPTH_MAX - 1)));
    let innermost = Path::parse(format!("$.a{}", "[0]".repeat(DEPTH_MAX - 2)).as_bytes()).expect("short");
    assert_eq!(doc.append_elements(&innermost, &[parse("1")]), Ok(vec![Some(1)]));
    assert_eq!(doc.append_elements(&innermost, &[parse("[]")]), Err(JsonError::Depth));
    assert_eq!(doc.merge(&innermost, &parse("{\"a\":{}}")), Err(JsonError::Depth));
    let inside = Path::parse(format!("$.a{}", "[0]".repeat(DEPTH_MAX - 1)).as_bytes()).expect("short");
    assert_eq!(doc.set(&inside, parse("[]"), Condition::Always), Err(JsonError::Depth));
    assert_eq!(doc.set(&inside, parse("{}"), Condition::Always), Err(JsonError::Depth));
    assert_eq!(doc.set(&inside, parse("7"), Condition::Always), Ok(true));
    doc.check();
    assert!(Document::parse(&doc.to_json()).is_ok());
}

/// Random bytes near JSON, and random texts near paths: an answer, never a panic.
#[test]
fn mutated_texts() {
    let mut random = Xorshift(0x1234_5678);
    for _ in 0..20_000 {
        let mut text = random_json(&mut random, 4).into_bytes();
        for _ in 0..1 + random.below(3) {
            let at = random.below(text.len());
            text[at] = b"{}[]\",:\\u0e-.\xff\x00dt "[random.below(18)];
        }
        if let Ok(document) = Document::parse(&text) {
            document.check();
            let again = Document::parse(&document.to_json()).expect("our own");
            assert!(again.root().same(document.root()));
            assert_eq!(again.heap_bytes(), document.heap_bytes());
        }
        let mut path = random_path(&mut random).into_bytes();
        for _ in 0..1 + random.below(3) {
            let at = random.below(path.len());
            path[at] = b"$.*[]?@()'\"!&|=<>:,-0a\\ \xff"[random.below(25)];
        }
        if let Ok(path) = Path::parse(&path) {
            let _ = parse("[{\"a\":[1,2]},3]").get(&path);
        }
    }
}

/// The plainest evaluator: recursion over the document, one segment at a time, for paths made of a few parts.
mod plain {
    use super::{Value, View};

    pub fn children(value: &Value) -> Vec<(Option<&str>, &Value)> {
        match value.view() {
            View::Array(elements) => elements.iter().map(|element| (None, element)).collect(),
            View::Object(members) => {
                members.iter().map(|member| (Some(member.name()), member.value())).collect()
            }
            _ => Vec::new(),
        }
    }

    pub fn select<'v>(value: &'v Value, parts: &[&str], out: &mut Vec<&'v Value>) {
        let Some((part, rest)) = parts.split_first() else {
            out.push(value);
            return;
        };
        if let Some(step) = part.strip_prefix("..") {
            let step = if step.starts_with('[') { step.to_owned() } else { format!(".{step}") };
            descend(value, &step, rest, out);
            return;
        }
        let children = children(value);
        let count = children.len();
        for (at, (name, child)) in children.into_iter().enumerate() {
            let matches = match (*part, name) {
                (".*", _) => true,
                ("[0]", None) => at == 0,
                ("[-1]", None) => at + 1 == count,
                ("[1:]", None) => at >= 1,
                (part, Some(name)) => part.strip_prefix('.') == Some(name),
                _ => false,
            };
            if matches {
                select(child, rest, out);
            }
        }
    }

    fn descend<'v>(value: &'v Value, step: &str, rest: &[&str], out: &mut Vec<&'v Value>) {
        let parts: Vec<_> = std::iter::once(step).chain(rest.iter().copied()).collect();
        select(value, &parts, out);
        for (_, child) in children(value) {
            descend(child, step, rest, out);
        }
    }
}

#[test]
fn matches_as_the_plain_evaluator() {
    const PARTS: &[&str] = &[".a", ".b", ".*", "[0]", "[-1]", "[1:]", "..a", "..*", "..[0]"];
    let mut random = Xorshift(0xabcdef);
    let mut total = 0;
    for _ in 0..20_000 {
        let document = parse(&random_json(&mut random, 5));
        let parts: Vec<_> = (0..random.below(4)).map(|_| random.pick(PARTS)).collect();
        let path = Path::parse(format!("${}", parts.concat()).as_bytes()).expect("well formed");
        let mut expected = Vec::new();
        plain::select(document.root(), &parts, &mut expected);
        let found = document.get(&path).expect("small");
        assert_eq!(found.len(), expected.len(), "{parts:?} in {:?}", String::from_utf8(document.to_json()));
        assert!(found.iter().zip(&expected).all(|(a, b)| std::ptr::eq(*a, *b)), "{parts:?}");
        total += found.len();
    }
    assert!(total > 10_000, "{total}");
}

/// Random commands: the count of bytes stays exact, a clone keeps its text, and an error changes nothing.
#[test]
fn random_work() {
    let mut random = Xorshift(0xfeed);
    let mut errors = 0;
    for _ in 0..400 {
        let mut document = parse(&random_json(&mut random, 5));
        for _ in 0..40 {
            let clone = document.clone();
            let before = document.to_json();
            let text = random_path(&mut random);
            let path = Path::parse(text.as_bytes()).expect("well formed");
            let value = parse(&random_json(&mut random, 2));
            let index = random.below(7) as i64 - 3;
            let result = match random.below(12) {
                0 | 1 => document.set(&path, value, Condition::Always).map(drop),
                2 => document.merge(&path, &value).map(drop),
                3 => document.delete(&path).map(drop),
                4 => document.clear(&path).map(drop),
                5 => document.toggle(&path).map(drop),
                6 => document.append_string(&path, " and a little more").map(drop),
                7 => document.append_elements(&path, &[value, parse("0")]).map(drop),
                8 => document.insert_elements(&path, Some(index), &[value]).map(drop),
                9 => document.pop(&path, index).map(drop),
                10 => document.trim(&path, index, index + 2).map(drop),
                _ => document.arithmetic(&path, Arithmetic::Multiply, b"1.5e300").map(drop),
            };
            document.check();
            clone.check();
            assert_eq!(clone.to_json(), before, "{text}");
            if result.is_err() {
                errors += 1;
                assert_eq!(document.to_json(), before, "{text}");
            }
            let again = Document::parse(&document.to_json()).expect("our own");
            assert!(again.root().same(document.root()));
            if document.heap_bytes() > 100_000 {
                break;
            }
        }
    }
    assert!(errors > 100, "{errors}");
}

/// Paths that multiply end in an error, after work that is bounded by the document's size.
#[test]
fn greedy_paths() {
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let wide = format!("[{}]", ["{\"a\":[1,2,3],\"b\":{\"a\":0}}"; 5000].join(","));
    let heavy = format!("{}[{}]{}", "[".repeat(60), ["0"; 200_000].join(","), "]".repeat(60));
    for (name, text) in [("deep", deep), ("wide", wide), ("heavy", heavy)] {
        let mut document = parse(&text);
        let before = document.to_json();
        let mut refused = 0;
        for path in [
            "$..*..*..*..*",
            "$..*..*..*..*..*..*..*..*",
            "$..[?(@..a)]..[?(@..*..*)]",
            "$..[?(@..[?(@..[?(@..*)])])]",
            "$[?($..*..*..* && $..*..*)]",
            "$..[0,0,0,0,0,0,0,0]..[0,0,0,0,0,0,0,0]..[0,0,0,0,0,0,0,0]",
            "$..[?(@ == $)]..*",
            "$..*[::1,::1,::1,::1,::1,::1,::1]..*..*..*",
        ] {
            let path = Path::parse(path.as_bytes()).expect("well formed");
            refused += usize::from(document.get(&path).err() == Some(JsonError::TooManyMatches));
            let _ = document.memory(&path);
            let _ = document.fields(&path);
            let _ = document.object_keys(&path);
            let _ = document.array_index(&path, &Value::NULL, 0, 0);
            let mut out = Vec::new();
            if document.write_get(&[("$", path.clone())], &Format::default(), &mut out).is_err() {
                assert!(out.is_empty());
            }
            let value = parse("[1,2,3,4,5,6,7,8]");
            let _ = document.append_elements(&path, &[value]);
            document.check();
            document = Document::parse(&before).expect("our own");
        }
        assert!(refused >= 1, "{name}: {refused}");
    }
}

/// Long texts for paths and huge numbers in them.
#[test]
fn absurd_paths() {
    assert!(Path::parse(&vec![b'a'; PATH_LEN_MAX]).is_ok());
    for text in [
        "$".to_owned() + &".a".repeat(PATH_LEN_MAX),
        "$".to_owned() + &".a".repeat(300),
        format!("$[?{}@.a{}]", "(".repeat(100), ")".repeat(100)),
        format!("$[?{}@.a{}]", "@[?".repeat(100), "]".repeat(100)),
    ] {
        assert!(Path::parse(text.as_bytes()).is_err(), "{}", text.len());
    }
    assert!(Path::parse(format!("$[?{}@.a]", "!".repeat(5000)).as_bytes()).is_ok());
    let document = parse("[1,2,3]");
    for (text, count) in [
        ("$[9223372036854775807]", 0),
        ("$[-9223372036854775808]", 0),
        ("$[-9223372036854775808:9223372036854775807]", 3),
        ("$[::9223372036854775807]", 1),
        ("$[::-9223372036854775808]", 1),
        ("$[9223372036854775807:-9223372036854775808:-1]", 3),
    ] {
        let path = Path::parse(text.as_bytes()).expect("well formed");
        assert_eq!(document.get(&path).expect("small").len(), count, "{text}");
    }
}

/// Freeing in steps comes to an end in as many as it should take, keeps the count, and leaves clones whole.
#[test]
fn freed_in_steps() {
    let mut random = Xorshift(77);
    let parts: Vec<_> = (0..500).map(|_| random_json(&mut random, 6)).collect();
    let text = format!("[{}]", parts.join(","));
    let mut document = parse(&text);
    let whole = document.clone();
    // While a clone has everything there is nothing to free.
    assert!(document.clone().free_some(1));
    assert_eq!(whole.to_json(), document.to_json());
    drop(whole);
    let part = document.get(&Path::parse(b"$[100:200]").expect("a path")).expect("few");
    let kept: Vec<_> = part.into_iter().cloned().map(Document::from_value).collect();
    let shown: Vec<_> = kept.iter().map(Document::to_json).collect();
    let mut steps = 1;
    let mut before = document.heap_bytes();
    while !document.free_some(20) {
        assert!(document.heap_bytes() <= before);
        before = document.heap_bytes();
        steps += 1;
        assert!(steps < 10_000);
    }
    assert!(steps > 50, "{steps}");
    assert_eq!(document.to_json(), b"[]");
    for (document, shown) in kept.iter().zip(shown) {
        document.check();
        assert_eq!(document.to_json(), shown);
    }

    let mut document = parse(&text);
    while !document.free_some(100) {
        document.check();
    }
    document.check();
}
