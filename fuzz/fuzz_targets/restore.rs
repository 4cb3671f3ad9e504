//! Any bytes as the value of a RESTORE, on a bare shard: an error, or a value that holds every invariant, that DUMP
//! writes so that RESTORE makes the same of it, and that commands of every type can read and change.

#![no_main]

use damselfly_rdb::dump;
use damselfly_tests::bare::Bare;
use damselfly_tests::executor::Executor;
use damselfly_tests::reply::{Protocol, Reply};
use libfuzzer_sys::fuzz_target;

/// Read and change a key `k` of any type, of which most refuse it.
const COMMANDS: &str = "TYPE k|OBJECT ENCODING k|STRLEN k|GETRANGE k -5 -1|LRANGE k -9 9|LPOS k a|HLEN k|HGETALL k|HSCAN k 0|\
    SCARD k|SSCAN k 0|SRANDMEMBER k 3|ZRANGE k 0 9 WITHSCORES|ZRANK k a|ZSCAN k 0|ZCOUNT k -inf inf|XRANGE k - + COUNT 9|\
    XINFO STREAM k FULL|JSON.GET k|BF.INFO k|CF.INFO k|CMS.INFO k|TOPK.LIST k|PFCOUNT k|\
    APPEND k x|SETRANGE k 3 y|RPUSH k b|LINSERT k BEFORE b a|LPOP k|LTRIM k 0 5|HSET k f v|HINCRBY k n 1|HDEL k f|\
    SADD k m 1|SPOP k|SREM k m|ZADD k 1 m|ZINCRBY k 2 m|ZREMRANGEBYRANK k 0 0|XADD k * f v|XTRIM k MAXLEN 3|XDEL k 1-1|\
    XGROUP CREATE k g 0|XREADGROUP GROUP g c STREAMS k >|BF.ADD k x|CF.ADD k x|CMS.INCRBY k x 1|TOPK.ADD k x|PFADD k x";

fn call(shard: &mut Bare, words: &[&[u8]]) -> Reply {
    let words: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
    shard.call("A", &words).expect("every request is answered")
}

fuzz_target!(|data: &[u8]| {
    let mut shard = Bare::new(Protocol::Resp3);
    let mut payload = data.to_vec();
    dump::seal(&mut payload, 0);
    if matches!(call(&mut shard, &[b"RESTORE", b"k", b"0", &payload]), Reply::Error(_)) {
        return;
    }
    shard.check();
    // All that was restored may have expired on the way.
    if let Reply::Bulk(first) = call(&mut shard, &[b"DUMP", b"k"]) {
        let again = call(&mut shard, &[b"RESTORE", b"again", b"0", &first]);
        assert_eq!(again, Reply::Simple(b"OK".to_vec()), "our own payload");
        shard.check();
    }
    for command in COMMANDS.split('|') {
        call(&mut shard, &command.split_whitespace().map(str::as_bytes).collect::<Vec<_>>());
        shard.check();
    }
    call(&mut shard, &[b"DUMP", b"k"]);
});
