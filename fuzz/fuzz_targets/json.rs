//! Any text as a document and any text as a path: nothing panics or takes long, what is printed reads back as the same,
//! and every command that changes a document keeps its count of bytes and leaves copies alone.

#![no_main]

use damselfly_json::{Arithmetic, Condition, Document, Format, Path};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // A path, a value and a document, apart by zero bytes.
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let (path, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let path = Path::parse(path);
    let value = Document::parse(value);
    let Ok(document) = Document::parse(parts.next().unwrap_or_default()) else { return };
    document.check();
    let text = document.to_json();
    let again = Document::parse(&text).expect("what was printed is JSON");
    assert_eq!(again.to_json(), text);
    let Ok(path) = path else { return };

    let _ = document.types(&path);
    let _ = document.mget(&path);
    let _ = document.string_lengths(&path);
    let _ = document.object_keys(&path);
    let _ = document.memory(&path);
    let _ = document.fields(&path);
    let format = Format { indent: b" ", newline: b"\n", space: b" " };
    let _ = document.write_get(&[("a", path.clone()), ("b", path.clone())], &format, &mut Vec::new());

    // Whether it worked or not, the copy is sound, and the original is as it was.
    let change = |change: &dyn Fn(&mut Document)| {
        let mut copy = document.clone();
        change(&mut copy);
        copy.check();
        let mut copy = again.clone();
        change(&mut copy);
        change(&mut copy);
        copy.check();
        while !copy.free_some(7) {}
    };
    change(&|copy| _ = copy.delete(&path));
    change(&|copy| _ = copy.clear(&path));
    change(&|copy| _ = copy.toggle(&path));
    change(&|copy| _ = copy.append_string(&path, "tail of a string"));
    change(&|copy| _ = copy.pop(&path, -1));
    change(&|copy| _ = copy.trim(&path, 1, -2));
    change(&|copy| _ = copy.arithmetic(&path, Arithmetic::Add, b"1.5"));
    change(&|copy| _ = copy.arithmetic(&path, Arithmetic::Multiply, b"3"));
    if let Ok(value) = value {
        let _ = document.array_index(&path, value.root(), 0, 0);
        change(&|copy| _ = copy.set(&path, value.clone(), Condition::Always));
        change(&|copy| _ = copy.merge(&path, &value));
        change(&|copy| _ = copy.insert_elements(&path, Some(-1), std::slice::from_ref(&value)));
    }
    document.check();
    assert_eq!(document.to_json(), text);
});
