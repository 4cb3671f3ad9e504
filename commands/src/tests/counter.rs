//! Numbers in strings, to the edges of 64 bits, and the rate limiter.

use super::session::Session;

#[test]
fn sums_to_the_edges() {
    Session::new().check(
        "
        INCR n -> :1
        INCRBY n 41 -> :42
        DECR n -> :41
        DECRBY n 50 -> :-9
        GET n -> $2 -9
        DECR new -> :-1
        DECRBY new2 5 -> :-5
        INCRBY new3 -9223372036854775808 -> :-9223372036854775808
        DECR new3 -> -ERR increment or decrement would overflow
        SET max 9223372036854775807 -> +OK
        INCR max -> -ERR increment or decrement would overflow
        INCRBY max 0 -> :9223372036854775807
        DECRBY max -1 -> -ERR increment or decrement would overflow
        DECRBY max 9223372036854775807 -> :0
        DECRBY n -9223372036854775808 -> -ERR decrement would overflow
        INCRBY n 9223372036854775808 -> -ERR value is not an integer or out of range
        INCRBY n 1.0 -> -ERR value is not an integer or out of range
        SET n 10 EX 5 -> +OK
        INCR n -> :11
        TTL n -> :5
        SET n 011 -> +OK
        INCR n -> -ERR value is not an integer or out of range
        SET n -0 -> +OK
        INCR n -> -ERR value is not an integer or out of range
        SET n 9223372036854775808 -> +OK
        INCR n -> -ERR value is not an integer or out of range
        APPEND join 12 -> :2
        APPEND join 34 -> :4
        INCR join -> :1235
        ",
    );
}

#[test]
fn fractions() {
    let mut session = Session::new();
    session.check(
        "
        INCRBYFLOAT f 0.1 -> $3 0.1
        INCRBYFLOAT f 0.2 -> $3 0.3
        SET f 3 EX 5 -> +OK
        INCRBYFLOAT f 1.1 -> $3 4.1
        TTL f -> :5
        INCRBYFLOAT f -4.1 -> $1 0
        INCR f -> :1
        INCRBYFLOAT f inf -> -ERR increment would produce NaN or Infinity
        INCRBYFLOAT f abc -> -ERR value is not a valid float
        INCRBYFLOAT missing nan -> -ERR value is not a valid float
        EXISTS missing -> :0
        ",
    );
    assert_eq!(session.events_of("INCRBYFLOAT f 1"), "incrbyfloat f");
    assert_eq!(session.events_of("INCR f"), "incrby f");
    assert_eq!(session.events_of("INCRBY f x"), "");
}

/// Ten in a minute, six at once; then time passes and one unit comes back every six seconds.
#[test]
fn allowance() {
    let mut session = Session::new();
    session.check(
        "
        CL.THROTTLE t 5 10 60 0 -> *5 :0 :6 :6 :-1 :0
        EXISTS t -> :0
        CL.THROTTLE t 5 10 60 -> *5 :0 :6 :5 :-1 :7
        CL.THROTTLE t 5 10 60 -> *5 :0 :6 :4 :-1 :13
        CL.THROTTLE t 5 10 60 4 -> *5 :0 :6 :0 :-1 :37
        CL.THROTTLE t 5 10 60 -> *5 :1 :6 :0 :7 :37
        CL.THROTTLE t 5 10 60 7 -> *5 :1 :6 :0 :-1 :37
        CL.THROTTLE t 5 10 60 0 -> *5 :0 :6 :0 :-1 :37
        PTTL t -> :36000
        ",
    );
    session.ks.now += 12_000;
    session.check(
        "
        CL.THROTTLE t 5 10 60 3 -> *5 :1 :6 :2 :7 :25
        CL.THROTTLE t 5 10 60 2 -> *5 :0 :6 :0 :-1 :37
        ",
    );
    session.ks.now += 36_000;
    session.check(
        "
        EXISTS t -> :0
        CL.THROTTLE t 0 1 1 -> *5 :0 :1 :0 :-1 :2
        ",
    );
}

/// Numbers that no clock can count are refused, whichever argument they are.
#[test]
fn allowances_beyond_reason() {
    Session::new().check(
        "
        CL.THROTTLE t -1 1 1 -> -ERR value is not an integer or out of range
        CL.THROTTLE t 1 0 1 -> -ERR value is not an integer or out of range
        CL.THROTTLE t 1 1 0 -> -ERR value is not an integer or out of range
        CL.THROTTLE t 1 1 1 -1 -> -ERR value is not an integer or out of range
        CL.THROTTLE t 1 1 1 1 1 -> -ERR syntax error
        CL.THROTTLE t 9223372036854775807 1 1 -> -ERR value is not an integer or out of range
        CL.THROTTLE t 9223372036854775806 1 9223372036854775807 -> -ERR value is not an integer or out of range
        CL.THROTTLE t 9223372036854775806 1 1 9223372036854775807 -> -ERR value is not an integer or out of range
        CL.THROTTLE t 0 9223372036854775807 1 9223372036854775807 -> *5 :0 :1 :1 :-1 :0
        SET t text -> +OK
        CL.THROTTLE t 1 1 1 -> -ERR value is not an integer or out of range
        SET t 9223372036854775807 -> +OK
        CL.THROTTLE t 1 1 1 -> *5 :1 :2 :0 :...
        SET t -9223372036854775808 -> +OK
        CL.THROTTLE t 1 1 1 -> *5 :0 :2 :1 :-1 :2
        ",
    );
}
