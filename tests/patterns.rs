//! The ways in which well-known clients use scripts, rebuilt from what their documentation says they do, on four
//! threads and without any flag: locks, queues with jobs that are moved between lists and sets, keys that scripts make
//! up from a prefix and an id.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::thread;

use damselfly_tests::executor::{Executor, Tcp};
use damselfly_tests::reply::{Protocol, Reply};
use damselfly_tests::servers::{Kind, Server};

const WORKERS: usize = 4;
const JOBS: usize = 60;

/// One connection.
struct Client(Tcp);

impl Client {
    fn new(address: SocketAddr) -> Client {
        Client(Tcp::new(address, Protocol::Resp2))
    }

    fn call(&mut self, line: &[&str]) -> Reply {
        let words: Vec<Vec<u8>> = line.iter().map(|word| word.as_bytes().to_vec()).collect();
        let reply = self.0.call("A", &words).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        assert!(!matches!(reply, Reply::Error(_)), "{line:?}: {reply}");
        reply
    }

    /// The answer as text; None if there is none.
    fn text(&mut self, line: &[&str]) -> Option<String> {
        let reply = self.call(line);
        reply.as_word().map(|word| String::from_utf8_lossy(&word).into_owned())
    }

    /// Loads a script and runs it by its digest from then on, as clients do.
    fn script(&mut self, text: &str) -> String {
        self.text(&["SCRIPT", "LOAD", text]).expect("a digest")
    }
}

fn start() -> Server {
    Server::start(Kind::Damselfly { threads: 4 }, &[]).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs workers that take jobs until there is none; all jobs must have been done once.
fn work(address: SocketAddr, take: impl Fn(&mut Client, usize) -> Option<String> + Sync) {
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (done, take) = (&done, &take);
            scope.spawn(move || {
                let mut client = Client::new(address);
                while let Some(job) = take(&mut client, worker) {
                    done.lock().expect("no worker has failed").push(job);
                }
            });
        }
    });
    let done = done.into_inner().expect("no worker has failed");
    assert_eq!(done.len(), JOBS, "{done:?}");
    assert_eq!(done.iter().collect::<BTreeSet<_>>().len(), JOBS, "{done:?}");
}

/// Redlock: a key with a token and a time to live; released and extended by whoever has the token.
#[test]
fn redlock() {
    const RELEASE: &str =
        "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0";
    const EXTEND: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0";
    let server = start();
    let address = server.address();
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            scope.spawn(move || {
                let mut client = Client::new(address);
                let (release, extend) = (client.script(RELEASE), client.script(EXTEND));
                let token = format!("token-{worker}");
                let mut held = 0;
                while held < 20 {
                    if client.text(&["SET", "resource", &token, "NX", "PX", "30000"]).is_none() {
                        continue;
                    }
                    held += 1;
                    // Alone: nobody else changes this between the two.
                    let count = client
                        .text(&["GET", "guarded"])
                        .map_or(0, |count| count.parse::<u64>().expect("a number"));
                    assert_eq!(
                        client.text(&["EVALSHA", &extend, "1", "resource", &token, "40000"]).as_deref(),
                        Some("1")
                    );
                    client.call(&["SET", "guarded", &(count + 1).to_string()]);
                    assert_eq!(
                        client.text(&["EVALSHA", &release, "1", "resource", "another"]).as_deref(),
                        Some("0")
                    );
                    assert_eq!(
                        client.text(&["EVALSHA", &release, "1", "resource", &token]).as_deref(),
                        Some("1")
                    );
                }
            });
        }
    });
    assert_eq!(Client::new(address).text(&["GET", "guarded"]), Some((20 * WORKERS).to_string()));
}

/// Sidekiq: scheduled jobs in a sorted set, moved to their queues when due by a script that takes one at a time;
/// workers wait for several queues; counters in a transaction.
#[test]
fn sidekiq() {
    const POP_DUE: &str = "local found = redis.call('zrange', KEYS[1], '-inf', ARGV[1], 'byscore', 'limit', 0, 1) \
                           if found[1] then redis.call('zrem', KEYS[1], found[1]) return found[1] end";
    let server = start();
    let address = server.address();
    let mut client = Client::new(address);
    for job in 0..JOBS {
        client.call(&["ZADD", "schedule", &(job % 7).to_string(), &format!("job-{job}")]);
    }
    client.call(&["ZADD", "schedule", "999", "later"]);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(move || {
                let mut client = Client::new(address);
                let pop = client.script(POP_DUE);
                while let Some(job) = client.text(&["EVALSHA", &pop, "1", "schedule", "100"]) {
                    client.call(&["MULTI"]);
                    client.call(&["SADD", "queues", "default"]);
                    client.call(&["LPUSH", "queue:default", &job]);
                    client.call(&["EXEC"]);
                }
            });
        }
    });
    assert_eq!(client.text(&["ZCARD", "schedule"]).as_deref(), Some("1"));
    work(address, |client, worker| {
        let taken = client.call(&["BRPOP", "queue:critical", "queue:default", "0.2"]);
        let job = taken.elements()?.get(1)?.as_word()?;
        client.call(&["MULTI"]);
        client.call(&["INCR", "stat:processed"]);
        client.call(&["HSET", &format!("host:{worker}"), "beat", "1"]);
        client.call(&["EXPIRE", &format!("host:{worker}"), "60"]);
        client.call(&["EXEC"]);
        Some(String::from_utf8_lossy(&job).into_owned())
    });
    assert_eq!(client.text(&["GET", "stat:processed"]), Some(JOBS.to_string()));
}

/// BullMQ: every step of a job is one script, which is given some keys and makes up those of the job from a prefix.
/// Arguments come packed, events go to a stream, a lock per job has a token.
#[test]
fn bullmq() {
    const ADD: &str = "local opts = cmsgpack.unpack(ARGV[2]) local id = redis.call('INCR', KEYS[1]) \
                       local key = ARGV[1] .. id \
                       redis.call('HMSET', key, 'name', opts.name, 'data', ARGV[3], 'attempts', opts.attempts or 1) \
                       if (opts.priority or 0) > 0 then redis.call('ZADD', KEYS[3], opts.priority, id) \
                       else redis.call('LPUSH', KEYS[2], id) end \
                       redis.call('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'event', 'added', 'jobId', id) \
                       return id .. ''";
    const TO_ACTIVE: &str = "local id = redis.call('RPOPLPUSH', KEYS[1], KEYS[2]) \
                             if not id then local best = redis.call('ZPOPMIN', KEYS[3]) id = best[1] \
                             if id then redis.call('LPUSH', KEYS[2], id) end end \
                             if not id then return false end \
                             local key = ARGV[1] .. id redis.call('SET', key .. ':lock', ARGV[2], 'PX', 30000) \
                             redis.call('HSET', key, 'processedOn', ARGV[3]) \
                             redis.call('XADD', KEYS[4], '*', 'event', 'active', 'jobId', id) \
                             return {redis.call('HGETALL', key), id}";
    const TO_FINISHED: &str = "local key = ARGV[1] .. ARGV[2] \
                               if redis.call('GET', key .. ':lock') ~= ARGV[3] then return -2 end \
                               if redis.call('LREM', KEYS[1], -1, ARGV[2]) == 0 then return -3 end \
                               redis.call('DEL', key .. ':lock') redis.call('ZADD', KEYS[2], ARGV[4], ARGV[2]) \
                               redis.call('HSET', key, 'returnvalue', cjson.encode({done = true}), 'finishedOn', ARGV[4]) \
                               redis.call('XADD', KEYS[3], '*', 'event', 'completed', 'jobId', ARGV[2]) return 0";
    let server = start();
    let address = server.address();
    let key = |name: &str| format!("bull:mail:{name}");
    let (id, wait, active, prioritized, completed, events) =
        (key("id"), key("wait"), key("active"), key("prioritized"), key("completed"), key("events"));
    let prefix = key("");
    let mut client = Client::new(address);
    let add = client.script(ADD);
    // {"name": "send", "priority": 3} and {"name": "send"}, packed.
    let (urgent, plain) = ("\u{82}", "\u{81}");
    for job in 0..JOBS {
        let packed: Vec<u8> = if job % 3 == 0 { urgent } else { plain }
            .chars()
            .map(|byte| byte as u8)
            .chain(*b"\xa4name\xa4send")
            .chain(if job % 3 == 0 { &b"\xa8priority\x03"[..] } else { b"" }.iter().copied())
            .collect();
        let mut words: Vec<Vec<u8>> = ["EVALSHA", &add, "4", &id, &wait, &prioritized, &events, &prefix]
            .map(|word| word.as_bytes().to_vec())
            .to_vec();
        words.extend([packed, format!("{{\"n\":{job}}}").into_bytes()]);
        let reply = client.0.call("A", &words).expect("answers");
        assert_eq!(reply.as_word(), Some((job + 1).to_string().into_bytes()), "{reply}");
    }
    work(address, |client, worker| {
        let (to_active, to_finished) = (client.script(TO_ACTIVE), client.script(TO_FINISHED));
        let token = format!("worker-{worker}");
        let line = [
            "EVALSHA",
            &to_active,
            "4",
            &wait,
            &active,
            &prioritized,
            &events,
            &prefix,
            &token,
            "1700000000000",
        ];
        let got = client.call(&line);
        let job = got.elements()?;
        assert_eq!(job[0].elements().map(<[Reply]>::len), Some(8), "{got}");
        let id = String::from_utf8_lossy(&job[1].as_word().expect("an id")).into_owned();
        let line = ["EVALSHA", &to_finished, "3", &active, &completed, &events, &prefix, &id, "stolen", "2"];
        assert_eq!(client.text(&line).as_deref(), Some("-2"));
        let line = ["EVALSHA", &to_finished, "3", &active, &completed, &events, &prefix, &id, &token, "2"];
        assert_eq!(client.text(&line).as_deref(), Some("0"));
        Some(id)
    });
    assert_eq!(client.text(&["ZCARD", &completed]), Some(JOBS.to_string()));
    assert_eq!(client.text(&["LLEN", &active]).as_deref(), Some("0"));
    assert_eq!(client.text(&["XLEN", &events]), Some((3 * JOBS).to_string()));
    // Many jobs at once: scripts in a transaction.
    client.call(&["MULTI"]);
    for _ in 0..5 {
        let line = ["EVALSHA", &add, "4", &id, &wait, &prioritized, &events, &prefix, "\u{1}", "x"];
        client.call(&line);
    }
    let failed = client.call(&["EXEC"]);
    assert_eq!(failed.elements().map(<[Reply]>::len), Some(5), "{failed}");
    client.call(&["MULTI"]);
    for n in 0..5 {
        client.call(&[
            "EVAL",
            "return redis.call('LPUSH', ARGV[1] .. 'bulk', ARGV[2])",
            "0",
            &prefix,
            &n.to_string(),
        ]);
    }
    assert_eq!(client.call(&["EXEC"]).to_string(), "[1 2 3 4 5]");
}

/// Celery: messages in lists, taken with BRPOP; those that are not acknowledged yet in a hash and a sorted set, and put
/// back by whoever has a mutex.
#[test]
fn celery() {
    const RELEASE: &str = "local token = redis.call('get', KEYS[1]) if not token or token ~= ARGV[1] then return 0 end \
                           redis.call('del', KEYS[1]) return 1";
    let server = start();
    let address = server.address();
    let mut client = Client::new(address);
    for job in 0..JOBS {
        client.call(&["SADD", "_kombu.binding.celery", "celery"]);
        client.call(&["LPUSH", "celery", &format!("{{\"id\":{job}}}")]);
    }
    // A worker that takes ten and is never heard of again.
    for _ in 0..10 {
        let taken = client.call(&["BRPOP", "celery", "celery\u{6}3", "1"]);
        let message =
            String::from_utf8_lossy(&taken.elements().expect("a message")[1].as_word().expect("text"))
                .into_owned();
        client.call(&["MULTI"]);
        client.call(&["ZADD", "unacked_index", "1", &message]);
        client.call(&["HSET", "unacked", &message, &message]);
        client.call(&["EXEC"]);
    }
    let release = client.script(RELEASE);
    assert!(client.text(&["SET", "unacked_mutex", "me", "NX", "EX", "300"]).is_some());
    assert!(client.text(&["SET", "unacked_mutex", "other", "NX", "EX", "300"]).is_none());
    let due =
        client.call(&["ZREVRANGEBYSCORE", "unacked_index", "100", "0", "LIMIT", "0", "100", "WITHSCORES"]);
    for message in due.elements().expect("a list").iter().step_by(2) {
        let message = String::from_utf8_lossy(&message.as_word().expect("text")).into_owned();
        client.call(&["WATCH", "unacked"]);
        client.call(&["HGET", "unacked", &message]);
        client.call(&["MULTI"]);
        client.call(&["ZREM", "unacked_index", &message]);
        client.call(&["HDEL", "unacked", &message]);
        client.call(&["RPUSH", "celery", &message]);
        assert_eq!(client.call(&["EXEC"]).elements().map(<[Reply]>::len), Some(3));
    }
    assert_eq!(client.text(&["EVALSHA", &release, "1", "unacked_mutex", "other"]).as_deref(), Some("0"));
    assert_eq!(client.text(&["EVALSHA", &release, "1", "unacked_mutex", "me"]).as_deref(), Some("1"));
    work(address, |client, _| {
        let taken = client.call(&["BRPOP", "celery", "celery\u{6}3", "celery\u{6}6", "0.2"]);
        let message = taken.elements()?.get(1)?.as_word()?;
        Some(String::from_utf8_lossy(&message).into_owned())
    });
}

/// rq: ids in a list, jobs in hashes whose keys scripts make up; a worker moves ids to a list of its own.
#[test]
fn rq() {
    const CLEAN: &str = "local gone = 0 for _, id in ipairs(redis.call('lrange', KEYS[1], 0, -1)) do \
                         if redis.call('exists', ARGV[1] .. id) == 0 then \
                         gone = gone + redis.call('lrem', KEYS[1], 0, id) end end return gone";
    let server = start();
    let address = server.address();
    let mut client = Client::new(address);
    for job in 0..JOBS + 10 {
        client.call(&["MULTI"]);
        client.call(&["SADD", "rq:queues", "rq:queue:default"]);
        if job < JOBS {
            client.call(&["HSET", &format!("rq:job:{job}"), "status", "queued", "data", "x"]);
        }
        client.call(&["RPUSH", "rq:queue:default", &job.to_string()]);
        client.call(&["EXEC"]);
    }
    let clean = client.script(CLEAN);
    assert_eq!(client.text(&["EVALSHA", &clean, "1", "rq:queue:default", "rq:job:"]).as_deref(), Some("10"));
    assert_eq!(client.text(&["EVALSHA", &clean, "1", "rq:queue:default", "rq:job:"]).as_deref(), Some("0"));
    work(address, |client, worker| {
        let own = format!("rq:intermediate:{worker}");
        let id = client.text(&["BLMOVE", "rq:queue:default", &own, "LEFT", "RIGHT", "0.2"])?;
        client.call(&["MULTI"]);
        client.call(&["HSET", &format!("rq:job:{id}"), "status", "started"]);
        client.call(&["ZADD", "rq:wip:default", "100", &id]);
        client.call(&["LREM", &own, "1", &id]);
        client.call(&["ZREM", "rq:wip:default", &id]);
        client.call(&["EXPIRE", &format!("rq:job:{id}"), "500"]);
        client.call(&["EXEC"]);
        Some(id)
    });
    assert_eq!(client.text(&["ZCARD", "rq:wip:default"]).as_deref(), Some("0"));
}
