//! Replies byte for byte in both versions of the protocol, and as an independent decoder reads them.

use damselfly_protocol::{Proto, ReplyWriter};
use redis_protocol::resp2::types::OwnedFrame as Frame2;
use redis_protocol::resp3::types::OwnedFrame as Frame3;

fn written(proto: Proto, write: impl Fn(&mut ReplyWriter<'_>)) -> String {
    let mut out = Vec::new();
    write(&mut ReplyWriter::new(&mut out, proto));
    String::from_utf8(out).unwrap()
}

#[track_caller]
fn check(write: impl Fn(&mut ReplyWriter<'_>), resp2: &str, resp3: &str) {
    assert_eq!(written(Proto::Resp2, &write), resp2);
    assert_eq!(written(Proto::Resp3, &write), resp3);
}

#[track_caller]
fn same(write: impl Fn(&mut ReplyWriter<'_>), both: &str) {
    check(write, both, both);
}

#[test]
fn same_in_both_versions() {
    same(|w| w.ok(), "+OK\r\n");
    same(|w| w.pong(), "+PONG\r\n");
    same(|w| w.queued(), "+QUEUED\r\n");
    same(|w| w.simple("string"), "+string\r\n");
    same(|w| w.error("ERR syntax error"), "-ERR syntax error\r\n");
    same(|w| w.bulk(b""), "$0\r\n\r\n");
    same(|w| w.bulk(b"a\r\nb"), "$4\r\na\r\nb\r\n");
    same(|w| w.bulk_int(-12), "$3\r\n-12\r\n");
    same(|w| w.bulk_int(i64::MIN), "$20\r\n-9223372036854775808\r\n");
    same(|w| w.array(0), "*0\r\n");
    same(|w| w.array(1234), "*1234\r\n");
    same(|w| w.raw(b":1\r\n"), ":1\r\n");
}

#[test]
fn different_in_resp3() {
    check(|w| w.null(), "$-1\r\n", "_\r\n");
    check(|w| w.null_array(), "*-1\r\n", "_\r\n");
    check(|w| w.map(6), "*12\r\n", "%6\r\n");
    check(|w| w.set(6), "*6\r\n", "~6\r\n");
    check(|w| w.push(3), "*3\r\n", ">3\r\n");
    check(|w| w.bool(true), ":1\r\n", "#t\r\n");
    check(|w| w.bool(false), ":0\r\n", "#f\r\n");
    check(|w| w.double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n");
    check(|w| w.double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n");
    check(|w| w.verbatim("txt", b"a b"), "$3\r\na b\r\n", "=7\r\ntxt:a b\r\n");
    check(
        |w| w.big_number("123456789012345678901"),
        "$21\r\n123456789012345678901\r\n",
        "(123456789012345678901\r\n",
    );
}

/// Lengths and integers around every change of width, against the standard library's printing.
#[test]
fn integers_of_every_width() {
    let mut numbers = vec![0, i64::MIN, i64::MAX];
    for power in 0..19 {
        let n = 10i64.pow(power);
        numbers.extend([n - 1, n, n + 1, 1 - n, -n, -n - 1, n * 7]);
    }
    for n in numbers {
        same(|w| w.int(n), &format!(":{n}\r\n"));
        if let Ok(len) = usize::try_from(n) {
            same(|w| w.array(len), &format!("*{len}\r\n"));
        }
    }
    for len in (0..=40).chain([99, 100, 101, 999, 1000, 100_000]) {
        let text: String = ('0'..='z').cycle().take(len).collect();
        same(|w| w.bulk(text.as_bytes()), &format!("${len}\r\n{text}\r\n"));
    }
}

/// Whoever chooses an error's text must not choose the next reply.
#[test]
fn line_breaks_cannot_leave_a_line() {
    same(|w| w.error("ERR unknown command 'a\r\n+OK\r\n'"), "-ERR unknown command 'a  +OK  '\r\n");
    same(|w| w.simple("a\nb"), "+a b\r\n");
}

/// Any guess gives the same bytes, alone, nested, and with output before and after.
#[test]
fn deferred_lengths() {
    for likely in [0, 3, 10, 12345] {
        for len in [0, 9, 10, 150] {
            let write = |w: &mut ReplyWriter<'_>| {
                w.ok();
                let outer = w.deferred(likely);
                let inner = w.deferred(likely);
                for i in 0..len {
                    w.int(i);
                }
                w.fill_array(inner, len as usize);
                let map = w.deferred(likely);
                w.bulk(b"k");
                w.bulk(b"v");
                w.fill_map(map, 1);
                let set = w.deferred(likely);
                w.fill_set(set, 0);
                w.fill_array(outer, 3);
                w.pong();
            };
            let ints: String = (0..len).map(|i| format!(":{i}\r\n")).collect();
            check(
                write,
                &format!("+OK\r\n*3\r\n*{len}\r\n{ints}*2\r\n$1\r\nk\r\n$1\r\nv\r\n*0\r\n+PONG\r\n"),
                &format!("+OK\r\n*3\r\n*{len}\r\n{ints}%1\r\n$1\r\nk\r\n$1\r\nv\r\n~0\r\n+PONG\r\n"),
            );
        }
    }
}

#[test]
#[should_panic(expected = "innermost first")]
fn deferred_out_of_order() {
    let mut out = Vec::new();
    let mut w = ReplyWriter::new(&mut out, Proto::Resp2);
    let outer = w.deferred(1);
    let inner = w.deferred(1);
    w.fill_array(outer, 1000);
    w.fill_array(inner, 0);
}

/// A decoder that is not ours takes everything we write, to the last byte.
#[test]
fn an_independent_decoder_agrees() {
    let everything = |w: &mut ReplyWriter<'_>| {
        w.array(11);
        w.ok();
        w.error("WRONGTYPE no");
        w.int(-7);
        w.bulk(b"bytes\xff");
        w.null();
        w.null_array();
        w.double(0.1);
        w.bool(true);
        w.map(1);
        w.bulk(b"k");
        w.set(1);
        w.int(1);
        w.verbatim("txt", b"text");
        w.big_number("12");
    };
    let mut out = Vec::new();
    everything(&mut ReplyWriter::new(&mut out, Proto::Resp2));
    let (frame, used) = redis_protocol::resp2::decode::decode(&out).unwrap().unwrap();
    assert_eq!(used, out.len());
    let Frame2::Array(frames) = frame else { panic!("an array") };
    assert_eq!(frames[2], Frame2::Integer(-7));
    assert_eq!(frames[6], Frame2::BulkString(b"0.10000000000000001".to_vec()));

    out.clear();
    everything(&mut ReplyWriter::new(&mut out, Proto::Resp3));
    let (frame, used) = redis_protocol::resp3::decode::complete::decode(&out).unwrap().unwrap();
    assert_eq!(used, out.len());
    let Frame3::Array { data, .. } = frame else { panic!("an array") };
    assert_eq!(data[4], Frame3::Null);
    assert_eq!(data[6], Frame3::Double { data: 0.1, attributes: None });
    assert_eq!(data[7], Frame3::Boolean { data: true, attributes: None });
}
