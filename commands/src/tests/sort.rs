//! SORT. The scripts that run on Redis as well say more; this is the quick check and a model.

use super::session::Session;

/// Which arguments are keys: the one sorted and the last target.
#[test]
fn keys() {
    let mut session = Session::new();
    session.check(
        "
        RPUSH l 2 1 -> :2
        SORT l BY STORE GET STORE STORE d -> :2
        TYPE d -> +list
        SORT l STORE e STORE f -> :2
        EXISTS e f -> :1
        ",
    );
    assert_eq!(session.events_of("SORT l STORE d"), "sortstore d");
    assert_eq!(session.events_of("SORT l LIMIT 5 1 STORE d"), "del d");
    assert_eq!(session.events_of("SORT l LIMIT 5 1 STORE d"), "");
}

/// LIMIT leaves the same elements as sorting everything would, wherever it cuts.
#[test]
fn limits() {
    let mut session = Session::new();
    let mut numbers: Vec<i64> = (0..200).map(|n| n * 7919 % 1000 - 300).collect();
    let list: Vec<String> = numbers.iter().map(i64::to_string).collect();
    session.run(&format!("RPUSH l {}", list.join(" ")));
    numbers.sort_unstable();
    for (offset, count) in
        [(0, 1), (0, 200), (10, 5), (199, 5), (200, 5), (-3, 4), (5, -1), (0, 0), (7, i64::MAX)]
    {
        let start = (offset.max(0) as usize).min(200);
        let end = if count < 0 { 200 } else { start.saturating_add(count as usize).min(200) };
        for descending in [false, true] {
            let mut want = numbers.clone();
            if descending {
                want.reverse();
            }
            let want: Vec<String> = want[start..end].iter().map(i64::to_string).collect();
            let word = if descending { "DESC" } else { "ASC" };
            let reply = session.run(&format!("SORT l LIMIT {offset} {count} {word}"));
            let got: Vec<&str> = reply.split(' ').skip(2).step_by(2).collect();
            assert_eq!(got, want, "LIMIT {offset} {count} {word}");
        }
    }
}

/// Weights of other keys, elements without any, and what cannot be a weight.
#[test]
fn weights() {
    let mut session = Session::new();
    session.check(
        "
        RPUSH l a b c -> :3
        MSET w_a 3 w_b 1 -> +OK
        SORT l BY w_* GET # GET w_* GET nothing -> *9 $1 c $-1 $-1 $1 b $1 1 $-1 $1 a $1 3 $-1
        SORT l BY w_* ALPHA -> *3 $1 c $1 b $1 a
        SORT l BY w_* ALPHA DESC LIMIT 0 2 -> *2 $1 a $1 b
        SET w_c x -> +OK
        SORT l BY w_* -> -ERR One or more scores can't be converted into double
        SORT l -> -ERR One or more scores can't be converted into double
        SORT l BY nosort DESC -> *3 $1 c $1 b $1 a
        RPUSH w_d list -> :1
        RPUSH l d -> :4
        ",
    );
}
