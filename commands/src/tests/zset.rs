//! Sorted sets. The scripts that run on Redis as well say more; this is what they cannot see, and the quick check.

use super::session::Session;

/// Options of ZADD, and that nothing is stored when nothing was added.
#[test]
fn adding() {
    let mut session = Session::new();
    session.check(
        "
        ZADD z 1 a 2 b -> :2
        ZADD z NX 9 a 3 c -> :1
        ZADD z XX CH 5 a 5 nosuch -> :1
        ZADD z GT CH 4 a 7 b -> :1
        ZADD z INCR 0.1 fresh -> $19 0.10000000000000001
        ZADD z GT INCR 0 a -> $-1
        ZADD z INCR 0 a -> $1 5
        ZINCRBY z inf a -> $3 inf
        ZINCRBY z -inf a -> -ERR resulting score is not a number (NaN)
        ZADD z 1 x bad y -> -ERR value is not a valid float
        ZMSCORE z a x b -> *3 $3 inf $-1 $1 7
        ZADD none XX 1 a -> :0
        EXISTS none -> :0
        ZRANK z b WITHSCORE -> *2 :2 $1 7
        ZRANK z nosuch WITHSCORE -> *-1
        ZRANK z b x y -> -ERR wrong number of arguments for 'zrank' command
        ZREVRANK z b -> :1
        SET s v -> +OK
        ZADD s x a -> -ERR value is not a valid float
        ZADD s 1 a -> -WRONGTYPE...
        ",
    );
}

/// What listeners hear: the change, and `del` when it was the last member.
#[test]
fn events() {
    let mut session = Session::new();
    assert_eq!(session.events_of("ZADD z 1 a 2 b 3 c"), "zadd z");
    assert_eq!(session.events_of("ZADD z 1 a"), "");
    assert_eq!(session.events_of("ZINCRBY z 5 a"), "zincr z");
    assert_eq!(session.events_of("ZINCRBY z 0 a"), "");
    assert_eq!(session.events_of("ZREM z nosuch"), "");
    assert_eq!(session.events_of("ZPOPMIN z"), "zpopmin z");
    assert_eq!(session.events_of("ZUNIONSTORE d 1 z"), "zunionstore d");
    assert_eq!(session.events_of("ZINTERSTORE d 2 z none"), "del d");
    assert_eq!(session.events_of("ZRANGESTORE d z 0 0"), "zrangestore d");
    assert_eq!(session.events_of("ZREMRANGEBYRANK d 0 0"), "zremrangebyrank d, del d");
    assert_eq!(session.events_of("ZREM z a c"), "zrem z, del z");
}

/// Ranges in both forms of a set.
#[test]
fn ranges() {
    for entries_max in [0, 128] {
        let mut session = Session::new();
        session.env.zset_pack.entries_max = entries_max;
        session.check(
            "
            ZADD z 1 a 2 b 3 c 4 d -> :4
            ZRANGE z 0 -1 WITHSCORES -> *8 $1 a $1 1 $1 b $1 2 $1 c $1 3 $1 d $1 4
            ZRANGE z 0 1 REV -> *2 $1 d $1 c
            ZRANGE z (1 +inf BYSCORE LIMIT 1 1 -> *1 $1 c
            ZRANGE z +inf (1 BYSCORE REV LIMIT 1 5 -> *2 $1 c $1 b
            ZRANGE z 0 10 BYSCORE LIMIT -1 2 -> *0
            ZREVRANGEBYSCORE z 3 -inf LIMIT 0 -1 -> *3 $1 c $1 b $1 a
            ZRANGEBYSCORE z \"\" 1 -> *1 $1 a
            ZCOUNT z (1 3 -> :2
            ZREMRANGEBYSCORE z 2 3 -> :2
            ZADD l 0 a 0 b 0 12 -> :3
            ZRANGEBYLEX l (12 + -> *2 $1 a $1 b
            ZREVRANGEBYLEX l [a - -> *2 $1 a $2 12
            ZLEXCOUNT l - [a -> :2
            ZREMRANGEBYLEX l - (b -> :2
            ZRANGE l 0 -1 -> *1 $1 b
            ",
        );
    }
}

/// Scores are combined as Redis combines them, infinities and zeros included.
#[test]
fn algebra() {
    let mut session = Session::new();
    session.check(
        "
        ZADD a 1 x 2 y 3 z -> :3
        ZADD b 10 y 20 z 30 w -> :3
        ZUNION 2 a b WEIGHTS 1.5 -1 WITHSCORES -> *8 $1 w $3 -30 $1 z $5 -15.5 $1 y $2 -7 $1 x $3 1.5
        ZINTER 2 a b AGGREGATE MAX WITHSCORES -> *4 $1 y $2 10 $1 z $2 20
        ZDIFF 2 a b -> *1 $1 x
        ZINTERCARD 2 a b LIMIT 1 -> :1
        ZINTERCARD 2 a b -> :2
        ZADD p inf i -> :1
        ZADD m -inf i -> :1
        ZUNION 2 p m WITHSCORES -> *2 $1 i $1 0
        ZUNION 1 p WEIGHTS 0 WITHSCORES -> *2 $1 i $1 0
        ZUNIONSTORE a 2 a a -> :3
        ZSCORE a z -> $1 6
        ZUNION 9223372036854775807 a -> -ERR syntax error
        ",
    );
}

/// Members chosen at random are distinct, and a walk finds all of them in sets of any size.
#[test]
fn chosen_members() {
    let mut session = Session::new();
    for i in 0..500 {
        session.run(&format!("ZADD z {i} m{i}"));
    }
    for count in [1, 20, 400, 500, 900] {
        let reply = session.run(&format!("ZRANDMEMBER z {count}"));
        let mut members: Vec<&str> = reply.split(' ').filter(|word| word.starts_with('m')).collect();
        members.sort_unstable();
        members.dedup();
        assert_eq!(members.len(), count.min(500));
    }
    session.check(
        "
        ZRANDMEMBER z -9223372036854775807 -> -ERR value is out of range
        ZRANDMEMBER z 0 -> *0
        ZSCAN z x -> -ERR invalid cursor
        ZSCAN z 0 COUNT 0 -> -ERR syntax error
        ZMPOP 2 none z MAX COUNT 2 -> *2 $1 z *2 *2 $4 m499 $3 499 *2 $4 m498 $3 498
        ZPOPMIN z 2 -> *4 $2 m0 $1 0 $2 m1 $1 1
        ",
    );
    let (mut cursor, mut seen) = (String::from("0"), Vec::new());
    loop {
        let reply = session.run(&format!("ZSCAN z {cursor} COUNT 5"));
        let mut words = reply.split(' ').skip(2);
        cursor = words.next().expect("a cursor").to_owned();
        seen.extend(words.filter(|word| word.starts_with('m')).map(str::to_owned));
        if cursor == "0" {
            break;
        }
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 496);
}
