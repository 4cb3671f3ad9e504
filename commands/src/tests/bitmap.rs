//! Bits and fields of strings: what the scripts over a whole server do not show.

use super::session::Session;

/// Numbers are their decimal text, and what becomes a number again is one.
#[test]
fn numbers_are_text() {
    Session::new().check(
        "
        SET n 17 -> +OK
        GETBIT n 2 -> :1
        BITCOUNT n -> :8
        BITPOS n 1 -> :2
        BITFIELD_RO n GET u8 #0 -> *1 :49
        SETBIT n 6 1 -> :0
        INCR n -> :38
        BITFIELD n INCRBY u8 0 1 -> *1 :52
        GET n -> $2 48
        INCR n -> :49
        BITOP NOT d n -> :2
        BITOP NOT d d -> :2
        INCR d -> :50
        ",
    );
}

/// The time to live stays when bits change and goes when BITOP stores.
#[test]
fn time_to_live() {
    Session::new().check(
        "
        SET k a EX 5 -> +OK
        SETBIT k 100 1 -> :0
        TTL k -> :5
        BITFIELD k SET u8 400 1 -> *1 :0
        TTL k -> :5
        BITOP AND k k -> :51
        TTL k -> :-1
        ",
    );
}

/// An event for every change and for nothing else; one for all steps of a BITFIELD.
#[test]
fn events() {
    let mut session = Session::new();
    for (line, events) in [
        ("SETBIT b 0 1", "setbit b"),
        ("SETBIT b 0 1", ""),
        ("SETBIT b 100 0", "setbit b"),
        ("SETBIT b 100 0", ""),
        ("SETBIT b 0 2", ""),
        ("BITFIELD b SET u8 0 128", ""),
        ("BITFIELD b SET u8 0 129 SET u8 0 3", "setbit b"),
        ("BITFIELD b OVERFLOW FAIL INCRBY u8 0 300", ""),
        ("BITFIELD b OVERFLOW FAIL SET u8 1000 300", "setbit b"),
        ("BITFIELD missing GET u8 1000", "keymiss missing"),
        ("BITOP OR d missing", "keymiss missing"),
        ("BITOP OR d b", "set d"),
        ("BITOP OR d missing", "keymiss missing, del d"),
        ("GETBIT b 0", ""),
        ("BITCOUNT b", ""),
        ("BITPOS b 1", ""),
    ] {
        assert_eq!(session.events_of(line), events, "{line}");
    }
}

/// Nothing is made longer than `proto-max-bulk-len`, save by the width of a field that begins below it.
#[test]
fn longest_string() {
    let mut session = Session::new();
    session.env.string_len_max = 16;
    session.check(
        "
        SETBIT b 127 1 -> :0
        SETBIT b 128 1 -> -ERR bit offset is not an integer or out of range
        GETBIT b 128 -> -ERR bit offset is not an integer or out of range
        BITFIELD b SET u8 #16 1 -> -ERR bit offset is not an integer or out of range
        BITFIELD b SET u8 #15 1 -> *1 :1
        BITFIELD b GET i64 127 -> *1 :-9223372036854775808
        STRLEN b -> :16
        BITFIELD b SET u63 127 0 -> *1 :4611686018427387904
        STRLEN b -> :24
        ",
    );
}

/// Every width at every position of a byte, against a look at single bits.
#[test]
fn fields_are_their_bits() {
    let mut session = Session::new();
    let mut state = 5u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut model = [false; 200];
    for (signed, width, offset) in (0..2u32).flat_map(|signed| {
        (1..=63 + signed).flat_map(move |width| (0..9).map(move |offset| (signed == 1, width, offset)))
    }) {
        let offset = offset + next() as usize % 100;
        let bits = next() >> (64 - width);
        let value = if signed { ((bits << (64 - width)) as i64) >> (64 - width) } else { bits as i64 };
        let old = (0..width as usize).fold(0u64, |old, n| old << 1 | u64::from(model[offset + n]));
        let old = if signed { ((old << (64 - width)) as i64) >> (64 - width) } else { old as i64 };
        for n in 0..width as usize {
            model[offset + n] = bits >> (width as usize - 1 - n) & 1 == 1;
        }
        let field = format!("{}{width}", if signed { 'i' } else { 'u' });
        let line = format!("BITFIELD b SET {field} {offset} {value} GET {field} {offset}");
        assert_eq!(session.run(&line), format!("*2 :{old} :{value}"), "{line}");
    }
    for (at, bit) in model.into_iter().enumerate() {
        assert_eq!(session.run(&format!("GETBIT b {at}")), format!(":{}", u8::from(bit)));
    }
}

/// Sums at the edges of every kind of field.
#[test]
fn overflow() {
    Session::new().check(
        "
        BITFIELD b OVERFLOW SAT SET i8 0 -129 GET i8 0 -> *2 :0 :-128
        BITFIELD b OVERFLOW SAT SET i8 0 -9223372036854775808 GET i8 0 -> *2 :-128 :127
        BITFIELD b SET i8 0 -9223372036854775808 GET i8 0 -> *2 :127 :0
        BITFIELD b OVERFLOW SAT SET u8 0 -1 GET u8 0 -> *2 :0 :255
        BITFIELD b OVERFLOW SAT INCRBY u8 0 -9223372036854775808 -> *1 :0
        BITFIELD b OVERFLOW SAT INCRBY i64 0 -9223372036854775808 INCRBY i64 0 -1 -> *2 :-9223372036854775808 :-9...
        BITFIELD b SET i64 0 -9223372036854775808 INCRBY i64 0 -1 -> *2 :-9223372036854775808 :9223372036854775807
        BITFIELD u SET u63 0 9223372036854775807 INCRBY u63 0 9223372036854775807 -> *2 :0 :9223372036854775806
        ",
    );
}
