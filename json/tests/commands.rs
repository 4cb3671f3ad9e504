//! What the commands do, one example after the other: order, numbers and formats as Dragonfly has them.

use damselfly_json::{
    Arithmetic, Condition, Deleted, Document, Format, JsonError, Path, PathError, Value, View,
    numbers_to_json, string_to_json,
};

fn document(text: &str) -> Document {
    let document = Document::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error:?}: {text}"));
    document.check();
    document
}

fn path(text: &str) -> Path {
    Path::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error:?}: {text}"))
}

fn text(document: &Document) -> String {
    document.check();
    String::from_utf8(document.to_json()).expect("UTF-8")
}

fn get_formatted(document: &Document, paths: &[&str], format: &Format<'_>) -> Result<String, JsonError> {
    let paths: Vec<_> = paths.iter().map(|text| (*text, path(text))).collect();
    let mut out = Vec::new();
    document.write_get(&paths, format, &mut out)?;
    Ok(String::from_utf8(out).expect("UTF-8"))
}

fn get(document: &Document, paths: &[&str]) -> Result<String, JsonError> {
    get_formatted(document, paths, &Format::default())
}

/// `(what goes in, what is stored)`: the documents of a recorded snapshot, and the borders of number formats.
#[test]
fn texts() {
    let nested = r#"{"a":1,"b":[1,2.5,true,null,"s"],"c":{"nested":{"deep":[[],{}]}},"unicode":"zażółć \u2603","esc":"q\"\\\n"}"#;
    let sorted = r#"{"a":1,"b":[1,2.5,true,null,"s"],"c":{"nested":{"deep":[[],{}]}},"esc":"q\"\\\n","unicode":"zażółć ☃"}"#;
    for (written, stored) in [
        (nested, sorted),
        ("[1,2,3]", "[1,2,3]"),
        (" { } ", "{}"),
        ("[\n]", "[]"),
        ("42", "42"),
        ("-1", "-1"),
        ("-0", "0"),
        ("0.1", "0.1"),
        ("1e100", "1e+100"),
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("18446744073709551615", "18446744073709551615"),
        ("18446744073709551616", "18446744073709551616"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("-9223372036854775809", "-9223372036854775809"),
        ("true", "true"),
        ("null", "null"),
        ("\"text\"", "\"text\""),
        ("1.0", "1.0"),
        ("-0.0", "-0.0"),
        ("100.0", "100.0"),
        ("1e10", "10000000000.0"),
        ("1E16", "10000000000000000.0"),
        ("1e17", "1e+17"),
        ("12345678901234567.0", "12345678901234568.0"),
        ("123456.789", "123456.789"),
        ("0.0001", "0.0001"),
        ("0.00012345", "0.00012345"),
        ("0.00001", "1e-05"),
        ("1.5e-7", "1.5e-07"),
        ("5e-324", "5e-324"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        (r#"{"b":1,"a":2,"b":3}"#, r#"{"a":2,"b":1}"#),
        (r#""\ud83d\udc09 \/ \u001f\u007f é""#, r#""🐉 / \u001F\u007F é""#),
        (r#"{"fourteen bytes":1,"fifteen bytes !":2}"#, r#"{"fifteen bytes !":2,"fourteen bytes":1}"#),
    ] {
        assert_eq!(text(&document(written)), stored);
        assert_eq!(text(&document(stored)), stored);
    }
    let rows: Vec<_> =
        (0..500).map(|n| format!(r#"{{"id":{n},"name":"row {n}","ok":{}}}"#, n % 2 == 0)).collect();
    let rows = format!(r#"{{"rows":[{}]}}"#, rows.join(","));
    assert_eq!(text(&document(&rows)), rows);
}

const PHONEBOOK: &str = r#"{"firstName":"John","lastName":"Smith","age":27,"address":{"street":"21 2nd Street",
    "city":"New York","state":"NY","zipcode":"10021-3100"},"phoneNumbers":[{"type":"home","number":"212 555-1234"},
    {"type":"office","number":"646 555-4567"}],"children":[],"spouse":null}"#;

/// JSON.GET: one path or several, both dialects, and the three formatting options.
#[test]
fn get_and_formats() {
    let book = document(PHONEBOOK);
    assert_eq!(get(&book, &["."]).expect("root"), text(&book));
    assert_eq!(get(&book, &["$"]).expect("root"), format!("[{}]", text(&book)));
    let is = |paths: &[&str], expected: &str| assert_eq!(get(&book, paths).as_deref(), Ok(expected));
    is(&["$.address.*"], r#"["New York","NY","21 2nd Street","10021-3100"]"#);
    is(&["$.firstName", "$.age"], r#"{"$.age":[27],"$.firstName":["John"]}"#);
    is(&[".firstName", "$.age"], r#"{"$.age":[27],".firstName":["John"]}"#);
    is(&["firstName", ".age"], r#"{".age":27,"firstName":"John"}"#);
    is(&["$.spouse.*"], "[]");
    is(&["$.children.*"], "[]");
    is(&["$..phoneNumbers[1].*"], r#"["646 555-4567","office"]"#);
    is(&["..number"], r#""646 555-4567""#);
    is(&["$.none", "firstName"], r#"{"$.none":[],"firstName":["John"]}"#);
    assert_eq!(get(&book, &["none"]), Err(JsonError::NoMatch));
    assert_eq!(get(&book, &[".", "none"]), Err(JsonError::NoMatch));

    let words = Format { indent: b"indent", newline: b"newline", space: b"space" };
    let formatted = |paths: &[&str]| get_formatted(&book, paths, &words).expect("matches");
    assert_eq!(
        formatted(&["$.address.*"]),
        r#"[newlineindent"New York",newlineindent"NY",newlineindent"21 2nd Street",newlineindent"10021-3100"newline]"#
    );
    assert_eq!(
        formatted(&["$.firstName", "$.age"]),
        r#"{newlineindent"$.age":space[newlineindentindent27newlineindent],newlineindent"$.firstName":space[newlineindentindent"John"newlineindent]newline}"#
    );
    assert_eq!(formatted(&[".children"]), "[]");
    let letters = Format { indent: b"t", newline: b"s", space: b"s" };
    assert_eq!(
        get_formatted(&book, &["$..phoneNumbers.*"], &letters).expect("matches"),
        r#"[st{stt"number":s"212 555-1234",stt"type":s"home"st},st{stt"number":s"646 555-4567",stt"type":s"office"st}s]"#
    );
    assert_eq!(
        book.mget(&path("$..number")).expect("few").as_deref(),
        Some(&br#"["212 555-1234","646 555-4567"]"#[..])
    );
    assert_eq!(book.mget(&path("none")), Ok(None));
    assert_eq!(book.mget(&path("age")).expect("few").as_deref(), Some(&b"27"[..]));
}

/// Every form of a path, and what it selects.
#[test]
fn paths() {
    let shop = document(
        r#"{"store":{"book":[{"c":"ref","price":8.95,"t":"A"},{"c":"fic","price":12.99,"t":"B","isbn":"1"},
        {"c":"fic","price":8,"t":"C","isbn":"2"},{"c":"fic","price":22.99,"t":"D"}],"bicycle":{"price":19.95}},
        "limit":10,"n":[0,1,2,3,4],"a-b":1,"ключ":2,"it's":3,"0":4}"#,
    );
    let is = |path: &str, expected: &str| assert_eq!(get(&shop, &[path]).as_deref(), Ok(expected), "{path}");
    is("$.store.book[0].t", r#"["A"]"#);
    is("$['store'][\"book\"][0]['t']", r#"["A"]"#);
    is("$.store.book[-1].t", r#"["D"]"#);
    is("$.store.book[-5].t", "[]");
    is("$.store.book[4].t", "[]");
    is("$.store.book[*].t", r#"["A","B","C","D"]"#);
    is("$.store.book.*.t", r#"["A","B","C","D"]"#);
    is("$..t", r#"["A","B","C","D"]"#);
    is("$..book[1:3].t", r#"["B","C"]"#);
    is("$..book[:2].t", r#"["A","B"]"#);
    is("$..book[-1:].t", r#"["D"]"#);
    is("$..book[0,2]['t','c']", r#"["A","ref","C","fic"]"#);
    is("$.n[::2]", "[0,2,4]");
    is("$.n[::-1]", "[4,3,2,1,0]");
    is("$.n[3:1:-1]", "[3,2]");
    is("$.n[-2:100]", "[3,4]");
    is("$.n[1:1]", "[]");
    is("$.n[::0]", "[]");
    is("$.n[ 1 , 2 ]", "[1,2]");
    is("$..price", "[19.95,8.95,12.99,8,22.99]");
    is("$.store..price", "[19.95,8.95,12.99,8,22.99]");
    is("$.a-b", "[1]");
    is("$.ключ", "[2]");
    is("$['it\\'s']", "[3]");
    is("$[\"it's\"]", "[3]");
    is("$.0", "[4]");
    is("$.limit.x", "[]");
    is("$.store.book[?(@.price < 10)].t", r#"["A","C"]"#);
    is("$.store.book[?@.price<$.limit].t", r#"["A","C"]"#);
    is("$.store.book[?(@.isbn)].t", r#"["B","C"]"#);
    is("$.store.book[?(!@.isbn)].t", r#"["A","D"]"#);
    is("$.store.book[?(@.c=='fic' && @.price>=12.99)].t", r#"["B","D"]"#);
    is("$.store.book[?(@.c=='ref' || (@.price > 20 && !(@.isbn)))].t", r#"["A","D"]"#);
    is("$.store.book[?(8 == @.price)].t", r#"["C"]"#);
    is("$.store.book[?(@.price == 8.0)].t", r#"["C"]"#);
    is("$.store.book[?(@.isbn != null)].t", r#"["A","B","C","D"]"#);
    is("$.store.book[?(@.x == @.y)].t", r#"["A","B","C","D"]"#);
    is("$.store.book[?(@.c > 'fid')].t", r#"["A"]"#);
    is("$.n[?(@ > 1)]", "[2,3,4]");
    is("$.n[?(@ != 2), 0]", "[0,1,3,4,0]");
    is("$..[?(@.price > 19)].price", "[19.95,22.99]");
    is("$[?(@ == 10)]", "[10]");
    is("store.book[0].t", r#""A""#);
    is(".store.book[0].t", r#""A""#);
    is("['limit']", "10");
    is("..price", "22.99");
    let nested = document(r#"{"a":{"a":{"b":1}},"b":[[2]]}"#);
    assert_eq!(get(&nested, &["$..a"]).as_deref(), Ok(r#"[{"a":{"b":1}},{"b":1}]"#));
    assert_eq!(get(&nested, &["$..*"]).as_deref(), Ok(r#"[{"a":{"b":1}},[[2]],{"b":1},1,[2],2]"#));
    assert_eq!(get(&nested, &["$..[0]"]).as_deref(), Ok("[[2],2]"));

    for bad in [
        "$.",
        "$..",
        "$[",
        "$[]",
        "$[1",
        "$['a]",
        "$[1:2:3:4]",
        "$x",
        "$ x",
        "$.a b",
        "//*",
        "$.a[?]",
        "$.a[?()]",
        "$.a[?(1)]",
        "$.a[?(@.b[*] == 1)]",
        "$.a[?(@.b =~ 'x')]",
        "$.a[?(@.b == )]",
        "$[-]",
        "$['\\ud800']",
        "$[01a]",
        "$[99999999999999999999]",
        "$.a.[",
        "a..",
        "...",
        "$...a",
        "$.$",
        "$.a[?(@.b == 1]",
    ] {
        assert!(matches!(Path::parse(bad.as_bytes()), Err(PathError::Syntax(_))), "{bad}");
    }
    assert_eq!(Path::parse(b"$.\xff").err(), Some(PathError::Syntax(2)));
    assert!(path("$").is_root() && path(".").is_root() && path("").is_root());
    assert!(!path("$").is_legacy() && path(".").is_legacy() && path("").is_legacy());
}

fn set(document: &mut Document, at: &str, value: &str, condition: Condition) -> Result<bool, JsonError> {
    document.set(&path(at), Document::parse(value.as_bytes()).expect("JSON"), condition)
}

/// JSON.SET: replaces every match, adds where one place is named, never half.
#[test]
fn sets() {
    let mut doc = document(r#"{"a":{"b":1},"list":[1,2]}"#);
    assert_eq!(set(&mut doc, "$.a.b", "2", Condition::Always), Ok(true));
    assert_eq!(set(&mut doc, "$.a.c", r#"{"x":[]}"#, Condition::Always), Ok(true));
    assert_eq!(set(&mut doc, "$.a.b", "3", Condition::IfAbsent), Ok(false));
    assert_eq!(set(&mut doc, "$.a.d", "3", Condition::IfPresent), Ok(false));
    assert_eq!(set(&mut doc, "$.a.d", "4", Condition::IfAbsent), Ok(true));
    assert_eq!(set(&mut doc, "$.list[2]", "3", Condition::Always), Ok(true));
    assert_eq!(text(&doc), r#"{"a":{"b":2,"c":{"x":[]},"d":4},"list":[1,2,3]}"#);
    for nowhere in [
        "$.x.y",
        "$.list[5]",
        "$.list[-9]",
        "$.list.x",
        "$.a[0]",
        "$.a.b.c",
        "$..new",
        "$.a['p','q']",
        "$.*.z",
    ] {
        assert_eq!(set(&mut doc, nowhere, "0", Condition::Always), Err(JsonError::NoPlace), "{nowhere}");
    }
    assert_eq!(set(&mut doc, "$.list[*]", r#""a rather long text""#, Condition::Always), Ok(true));
    assert_eq!(set(&mut doc, ".list[0]", "null", Condition::Always), Ok(true));
    assert_eq!(
        text(&doc),
        r#"{"a":{"b":2,"c":{"x":[]},"d":4},"list":[null,"a rather long text","a rather long text"]}"#
    );
    assert_eq!(set(&mut doc, "$", "[7]", Condition::Always), Ok(true));
    assert_eq!(text(&doc), "[7]");
    // A match inside a match goes with it.
    let mut doc = document(r#"{"a":{"a":1},"b":{"a":2}}"#);
    assert_eq!(set(&mut doc, "$..a", "0", Condition::Always), Ok(true));
    assert_eq!(text(&doc), r#"{"a":0,"b":{"a":0}}"#);
}

/// JSON.DEL and JSON.CLEAR.
#[test]
fn deletes_and_clears() {
    let mut doc = document(r#"{"a":{"a":2,"b":3},"b":["a","b"],"nested":{"b":[true,"a","b"]}}"#);
    assert_eq!(doc.delete(&path("$..a")), Ok(Deleted::Values(1)));
    assert_eq!(text(&doc), r#"{"b":["a","b"],"nested":{"b":[true,"a","b"]}}"#);
    assert_eq!(doc.delete(&path("$..b[0,0,2,-1]")), Ok(Deleted::Values(4)));
    assert_eq!(text(&doc), r#"{"b":[],"nested":{"b":["a"]}}"#);
    assert_eq!(doc.delete(&path("$.none")), Ok(Deleted::Values(0)));
    assert_eq!(doc.delete(&path("nested.b[0]")), Ok(Deleted::Values(1)));
    assert_eq!(doc.delete(&path("$..*")), Ok(Deleted::Values(2)));
    assert_eq!(text(&doc), "{}");
    assert_eq!(doc.delete(&path("$")), Ok(Deleted::Root));

    let mut doc = document(r#"{"a":[1,[2]],"b":{"c":1},"d":3.5,"e":"x","f":true,"g":null,"h":1e2}"#);
    assert_eq!(doc.clear(&path("$.*")), Ok(4));
    assert_eq!(text(&doc), r#"{"a":[],"b":{},"d":0,"e":"x","f":true,"g":null,"h":0}"#);
    assert_eq!(doc.clear(&path("$")), Ok(1));
    assert_eq!(text(&doc), "{}");
}

/// The readers of sizes, types and names.
#[test]
fn reads() {
    let doc = document(r#"[1,2.5,"foó",true,null,{"x":1,"y":[1,{"z":1}]},[],18446744073709551616]"#);
    let all = path("$[*]");
    let names = ["integer", "number", "string", "boolean", "null", "object", "array", "integer"];
    assert_eq!(doc.types(&all).expect("few"), names);
    assert_eq!(doc.string_lengths(&path("$[1,2]")), Ok(vec![None, Some(4)]));
    assert_eq!(doc.array_lengths(&path("$[5,6]")), Ok(vec![None, Some(0)]));
    assert_eq!(doc.object_lengths(&path("$[5,6]")), Ok(vec![Some(2), None]));
    assert_eq!(doc.object_keys(&path("$[5,6]")), Ok(vec![Some(vec!["x", "y"]), None]));
    assert_eq!(doc.fields(&path("$")), Ok(vec![8 + 2 + 2 + 1]));
    assert_eq!(doc.fields(&path("$[0,6]")), Ok(vec![1, 0]));
    let weights = doc.memory(&path("$[0,2,5]")).expect("few");
    assert_eq!(weights[..2], [16, 16]);
    assert!(weights[2] > 100);
    assert_eq!(doc.memory(&path("$")).expect("one"), [16 + doc.heap_bytes()]);
    assert!(matches!(doc.root().view(), View::Array(elements) if elements.len() == 8));
    assert!(doc.get(&path("$[5]")).expect("one")[0].member("x").is_some());
}

/// JSON.ARRINDEX: both ends counted from either side, the end included.
#[test]
fn array_indexes() {
    let doc = document(r#"{"n":["a","b","a",1,1.0,[1],{"k":null}],"e":[],"s":"x"}"#);
    let find = |at: &str, wanted: &str, start, end| {
        let wanted = document(wanted);
        doc.array_index(&path(at), wanted.root(), start, end).expect("few")
    };
    assert_eq!(find("$.*", "\"a\"", 0, 0), [Some(-1), Some(0), None]);
    for (wanted, start, end, place) in [
        ("\"a\"", 1, 0, 2),
        ("\"a\"", 1, 1, -1),
        ("\"a\"", 1, 2, 2),
        ("\"a\"", -6, -1, 2),
        ("\"b\"", -100, 0, -1),
        ("1", 0, 0, 3),
        ("1.0", 0, 0, 4),
        ("[1]", 0, 0, 5),
        ("[1.0]", 0, 0, -1),
        (r#"{"k":null}"#, 0, 0, 6),
        (r#"{"k":null}"#, 100, 0, 6),
        (r#"{"k":null}"#, 100, 3, -1),
        ("\"a\"", 0, -100, 0),
        ("\"a\"", i64::MAX, i64::MIN, -1),
    ] {
        assert_eq!(find("$.n", wanted, start, end), [Some(place)], "{wanted} {start} {end}");
    }
}

/// The writers of arrays, strings and flags.
#[test]
fn array_and_string_writers() {
    let values = |texts: &[&str]| texts.iter().map(|text| document(text)).collect::<Vec<_>>();
    let mut doc = document(r#"{"a":[1],"b":[[]],"c":"s","d":true}"#);
    assert_eq!(
        doc.append_elements(&path("$.*"), &values(&["2", r#"{"x":"a string beyond fourteen"}"#])),
        Ok(vec![Some(3), Some(3), None, None])
    );
    // Both the array and the one inside it.
    assert_eq!(doc.append_elements(&path("$.b..[0]"), &values(&["9"])), Ok(vec![Some(1)]));
    assert_eq!(doc.insert_elements(&path("$.a"), Some(-1), &values(&["7", "8"])), Ok(vec![Some(5)]));
    assert_eq!(doc.insert_elements(&path("$.a"), Some(0), &values(&["0"])), Ok(vec![Some(6)]));
    assert_eq!(doc.insert_elements(&path("$.*"), Some(4), &values(&["0"])), Err(JsonError::OutOfRange));
    assert_eq!(doc.insert_elements(&path("$.a"), Some(-7), &values(&["0"])), Err(JsonError::OutOfRange));
    assert_eq!(
        text(&doc),
        r#"{"a":[0,1,2,7,8,{"x":"a string beyond fourteen"}],"b":[[9],2,{"x":"a string beyond fourteen"}],"c":"s","d":true}"#
    );
    let popped = |doc: &mut Document, at: &str, index| -> Vec<Option<Option<String>>> {
        let show = |value: Value| String::from_utf8(value.to_json()).expect("UTF-8");
        doc.pop(&path(at), index)
            .expect("few")
            .into_iter()
            .map(|one| one.map(|value| value.map(show)))
            .collect()
    };
    assert_eq!(popped(&mut doc, "$.a", 1), [Some(Some("1".into()))]);
    assert_eq!(popped(&mut doc, "$.a", -1), [Some(Some(r#"{"x":"a string beyond fourteen"}"#.into()))]);
    assert_eq!(popped(&mut doc, "$.a", 100), [Some(Some("8".into()))]);
    assert_eq!(popped(&mut doc, "$.a", -100), [Some(Some("0".into()))]);
    assert_eq!(popped(&mut doc, "$..b..*", -1), [Some(Some("9".into())), None, None, None, None]);
    assert_eq!(popped(&mut doc, "$.b[0]", 0), [Some(None)]);
    assert_eq!(text(&doc), r#"{"a":[2,7],"b":[[],2,{"x":"a string beyond fourteen"}],"c":"s","d":true}"#);

    for (start, stop, left) in [
        (1, 3, "[1,2,3]"),
        (-2, -1, "[3,4]"),
        (0, -2, "[0,1,2,3]"),
        (3, 1, "[]"),
        (5, 9, "[]"),
        (2, 99, "[2,3,4]"),
        (-99, 1, "[0,1]"),
        (i64::MIN, i64::MAX, "[0,1,2,3,4]"),
        (0, -99, "[0]"),
    ] {
        let mut doc = document("[0,1,2,3,4]");
        doc.trim(&path("$"), start, stop).expect("one");
        assert_eq!(text(&doc), left, "{start} {stop}");
    }

    assert_eq!(doc.append_string(&path("$.*"), "é beyond fourteen"), Ok(vec![None, None, Some(19), None]));
    assert_eq!(doc.toggle(&path("$.*")), Ok(vec![None, None, None, Some(false)]));
    assert_eq!(doc.toggle(&path("d")), Ok(vec![Some(true)]));
    assert_eq!(doc.string_lengths(&path("$.c")), Ok(vec![Some(19)]));
    doc.check();
    assert_eq!(string_to_json("a\"b"), br#""a\"b""#);
}

/// JSON.NUMINCRBY and JSON.NUMMULTBY: integers stay exact integers, overflow turns into doubles, infinity is an error
/// that changes nothing.
#[test]
fn arithmetic() {
    let mut doc = document(r#"{"a":1,"b":2.5,"c":"x","d":[10],"big":9223372036854775807}"#);
    let mut add = |at: &str, number: &str| {
        let results = doc.arithmetic(&path(at), Arithmetic::Add, number.as_bytes())?;
        doc.check();
        Ok(String::from_utf8(numbers_to_json(&results)).expect("UTF-8"))
    };
    assert_eq!(add("$.a", "2").as_deref(), Ok("[3]"));
    assert_eq!(add("$.a", "-10").as_deref(), Ok("[-7]"));
    assert_eq!(add("$.*", "0.5").as_deref(), Ok("[-6.5,3.0,9.223372036854776e+18,null,null]"));
    assert_eq!(add("$.d[0]", "9223372036854775807").as_deref(), Ok("[9223372036854775817]"));
    assert_eq!(add("$.d[0]", "9223372036854775807").as_deref(), Ok("[1.8446744073709552e+19]"));
    assert_eq!(add("$.none", "1").as_deref(), Ok("[]"));
    assert_eq!(add("$.a", "1e308").as_deref(), Ok("[1e+308]"));
    assert_eq!(add("$.*", "1.7e308").err(), Some(JsonError::Overflow));
    assert_eq!(add("$.b", "0").as_deref(), Ok("[3.0]"));
    for bad in ["", "x", "1x", "nan", "inf", "0x10", "1e999", " 1"] {
        assert_eq!(add("$.a", bad).err(), Some(JsonError::NotNumber), "{bad}");
    }
    let mut doc = document("[3,-4,0.5,9007199254740993]");
    let results = doc.arithmetic(&path("$[*]"), Arithmetic::Multiply, b"3").expect("finite");
    assert_eq!(numbers_to_json(&results), b"[9,-12,1.5,27021597764222979]");
}

/// JSON.MERGE, with the examples of RFC 7396.
#[test]
fn merges() {
    for (target, patch, result) in [
        (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
        (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
        (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
        (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
        (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
        (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
        (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
        (r#"{"a":"foo"}"#, "null", "null"),
        (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
        (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
        ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
        ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
    ] {
        let mut doc = document(target);
        assert_eq!(doc.merge(&path("$"), &document(patch)), Ok(true));
        assert_eq!(text(&doc), result);
    }
    let mut doc = document(r#"{"a":[{"x":1},{"y":2}]}"#);
    assert_eq!(doc.merge(&path("$.a[*]"), &document(r#"{"x":null,"z":"a text of some length"}"#)), Ok(true));
    assert_eq!(doc.merge(&path("$.new"), &document(r#"{"p":null,"q":1}"#)), Ok(true));
    assert_eq!(doc.merge(&path("$.no.where"), &document("1")), Err(JsonError::NoPlace));
    assert_eq!(
        text(&doc),
        r#"{"a":[{"z":"a text of some length"},{"y":2,"z":"a text of some length"}],"new":{"q":1}}"#
    );
}
