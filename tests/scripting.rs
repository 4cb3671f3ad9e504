//! Scripts with several connections: that each is alone with its keys wherever they are, that one which is run again
//! leaves no trace of its first run, what others are told while one takes long, and how one is ended.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use damselfly_tests::executor::{Executor, Tcp};
use damselfly_tests::reply::Protocol;
use damselfly_tests::servers::{Kind, Server};

const BUSY: &str = "!BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";

fn start(threads: usize, flags: &[&str]) -> (Server, Tcp) {
    let server = Server::start(Kind::Damselfly { threads }, flags).unwrap_or_else(|error| panic!("{error}"));
    let clients = Tcp::new(server.address(), Protocol::Resp2);
    (server, clients)
}

fn words(line: &[&str]) -> Vec<Vec<u8>> {
    line.iter().map(|word| word.as_bytes().to_vec()).collect()
}

/// What `client` is answered, as text.
fn call(clients: &mut Tcp, client: &str, line: &[&str]) -> String {
    let reply =
        clients.call(client, &words(line)).unwrap_or_else(|error| panic!("{client}: {line:?}: {error}"));
    reply.to_string()
}

fn send(clients: &mut Tcp, client: &str, line: &[&str]) {
    clients.send(client, &words(line)).unwrap_or_else(|error| panic!("{client}: {line:?}: {error}"));
}

fn receive(clients: &mut Tcp, client: &str) -> String {
    clients.receive(client).unwrap_or_else(|error| panic!("{client}: {error}")).to_string()
}

/// Calls until the answer is the one that is wanted.
fn wait_for(clients: &mut Tcp, client: &str, line: &[&str], wanted: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = call(clients, client, line);
        if answer == wanted {
            return;
        }
        assert!(Instant::now() < until, "{line:?} answers {answer}, not {wanted}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Eight counters that always move together. Scripts that declare nothing, one of them, or all; transactions; and
/// readers by script, by transaction and by MGET, which must never see two that differ.
#[test]
fn counters_over_all_shards_move_together() {
    const ROUNDS: usize = 150;
    const NAMES: [&str; 8] = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
    const MOVE: &str = "for i=0,7 do redis.call('INCR','c'..i) end return 1";
    const LOOK: &str = "local n = redis.call('GET','c0') for i=1,7 do if redis.call('GET','c'..i) ~= n then return \
                        redis.error_reply('TORN counters') end end return n";
    let (server, mut clients) = start(4, &[]);
    let address = server.address();
    call(
        &mut clients,
        "A",
        &["MSET", "c0", "0", "c1", "0", "c2", "0", "c3", "0", "c4", "0", "c5", "0", "c6", "0", "c7", "0"],
    );
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                scope.spawn(move || {
                    let mut clients = Tcp::new(address, Protocol::Resp2);
                    for round in 0..ROUNDS {
                        // Each script is new now and then, so that it finds out anew where it has to run.
                        let script = format!("{MOVE} -- {writer} {}", round / 10);
                        let answer = match round % 4 {
                            0 => call(&mut clients, "W", &["EVAL", &script, "0"]),
                            1 => call(&mut clients, "W", &["EVAL", &script, "1", NAMES[round % 8]]),
                            2 => {
                                let mut line = vec!["EVAL", &script, "8"];
                                line.extend(NAMES);
                                call(&mut clients, "W", &line)
                            }
                            _ => {
                                call(&mut clients, "W", &["MULTI"]);
                                call(&mut clients, "W", &["EVAL", &script, "1", "c3"]);
                                let answer = call(&mut clients, "W", &["EXEC"]);
                                answer.trim_matches(['[', ']']).to_string()
                            }
                        };
                        assert_eq!(answer, "1");
                    }
                })
            })
            .collect();
        let done = &done;
        for reader in 0..2 {
            scope.spawn(move || {
                let mut clients = Tcp::new(address, Protocol::Resp2);
                let mut looks = 0;
                while !done.load(Ordering::Relaxed) {
                    if reader == 0 {
                        let answer = call(&mut clients, "R", &["EVAL_RO", LOOK, "0"]);
                        assert!(!answer.contains("TORN"), "{answer}");
                    } else {
                        let mut line = vec!["MGET"];
                        line.extend(NAMES);
                        let answer = call(&mut clients, "R", &line);
                        let numbers: Vec<&str> = answer.trim_matches(['[', ']']).split(' ').collect();
                        assert!(numbers.iter().all(|number| *number == numbers[0]), "{answer}");
                    }
                    looks += 1;
                }
                assert!(looks > 0);
            });
        }
        let results: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.into_iter().all(|result| result.is_ok()));
    });
    assert_eq!(call(&mut clients, "A", &["EVAL", LOOK, "0"]), format!("\"{}\"", 4 * ROUNDS));
}

/// Scripts that each stay on one shard, together with plain commands, a script over all shards and transactions on the
/// same keys: no update is lost.
#[test]
fn no_update_is_lost() {
    const ROUNDS: usize = 200;
    const ONE: &str =
        "local n = tonumber(redis.call('GET',KEYS[1]) or 0) redis.call('SET',KEYS[1],n+1) return n";
    const ALL: &str =
        "for i=0,7 do local n = tonumber(redis.call('GET','k'..i) or 0) redis.call('SET','k'..i,n+1) end";
    let (server, mut clients) = start(4, &[]);
    let address = server.address();
    thread::scope(|scope| {
        for client in 0..4 {
            scope.spawn(move || {
                let mut clients = Tcp::new(address, Protocol::Resp2);
                for round in 0..ROUNDS {
                    let key = format!("k{}", round % 8);
                    match client {
                        0 | 1 => call(&mut clients, "W", &["EVAL", ONE, "1", &key]),
                        2 => call(&mut clients, "W", &["INCR", &key]),
                        _ if round % 8 == 0 => call(&mut clients, "W", &["EVAL", ALL, "0"]),
                        _ => continue,
                    };
                }
            });
        }
    });
    for i in 0..8 {
        assert_eq!(call(&mut clients, "A", &["GET", &format!("k{i}")]), format!("\"{}\"", ROUNDS / 8 * 4));
    }
}

/// A script that finds out in the middle that it needs other shards runs twice, but all that can be seen of it is one
/// run: values of every type, deadlines, events, messages, invalidations, watches.
#[test]
fn a_run_that_is_given_up_leaves_no_trace() {
    let (_server, mut clients) = start(4, &[]);
    let make: &[&[&str]] = &[
        &["SET", "string", "v"],
        &["SET", "number", "5", "EX", "1000"],
        &["RPUSH", "list", "a", "b", "c"],
        &["SADD", "set", "a", "b"],
        &["SADD", "ints", "1", "2", "3"],
        &["HSET", "hash", "f", "v", "g", "w"],
        &["ZADD", "zset", "1", "a", "2", "b"],
        &["XADD", "stream", "1-1", "f", "v"],
        &["PFADD", "hll", "a", "b"],
        &["SETBIT", "bits", "100", "1"],
        &["JSON.SET", "json", "$", "{\"a\":1}"],
        &["BF.ADD", "bloom", "x"],
    ];
    let change: &[&[&str]] = &[
        &["APPEND", "string", "x"],
        &["INCR", "number"],
        &["LPOP", "list"],
        &["SREM", "set", "a"],
        &["SADD", "ints", "x"],
        &["HDEL", "hash", "f"],
        &["ZINCRBY", "zset", "5", "a"],
        &["XADD", "stream", "2-1", "f", "v"],
        &["PFADD", "hll", "c"],
        &["SETBIT", "bits", "1000", "1"],
        &["JSON.SET", "json", "$.a", "2"],
        &["BF.ADD", "bloom", "y"],
    ];
    for line in make {
        assert!(!call(&mut clients, "A", line).starts_with('!'), "{line:?}");
    }
    // DUMP and PTTL at the beginning are those of the second run.
    const SCRIPT: &str = "local before = redis.call('DUMP',KEYS[1]) local ttl = redis.call('TTL',KEYS[1]) \
                          redis.call(ARGV[1],KEYS[1],unpack(ARGV,2)) redis.call('PERSIST',KEYS[1]) \
                          redis.call('DEL',KEYS[1]) redis.call('SET',KEYS[1],'x') \
                          for i=1,20 do redis.call('EXISTS','far'..i) end \
                          redis.call('DEL',KEYS[1]) redis.call('RESTORE',KEYS[1],0,before) return {before,ttl}";
    for (n, line) in change.iter().enumerate() {
        let key = line[1];
        let dump = call(&mut clients, "A", &["DUMP", key]);
        let ttl = call(&mut clients, "A", &["TTL", key]);
        // A script of its own each time, so that none is known to need all shards.
        let script = format!("{SCRIPT} -- {n}");
        let mut request = vec!["EVAL", &script, "1", key, line[0]];
        request.extend(&line[2..]);
        let answer = call(&mut clients, "A", &request);
        assert_eq!(answer, format!("[{dump} {ttl}]"), "{line:?}");
        assert_eq!(call(&mut clients, "A", &["DUMP", key]), dump, "{line:?}");
    }
    // What is heard of it.
    call(&mut clients, "A", &["CONFIG", "SET", "notify-keyspace-events", "KEA"]);
    call(&mut clients, "L", &["PSUBSCRIBE", "__keyevent*", "news"]);
    receive(&mut clients, "L");
    call(&mut clients, "W", &["WATCH", "watched"]);
    let script = "redis.call('INCR',KEYS[1]) redis.call('SET','near{'..KEYS[1]..'}','v') \
                  redis.call('PUBLISH','news','one') for i=1,20 do redis.call('INCR','far'..i) end \
                  redis.call('PUBLISH','news','two') return redis.call('GET',KEYS[1])";
    assert_eq!(call(&mut clients, "A", &["EVAL", script, "1", "counted"]), "\"1\"");
    call(&mut clients, "A", &["PUBLISH", "news", "end"]);
    let mut heard = Vec::new();
    loop {
        let message = receive(&mut clients, "L");
        if message.ends_with("\"end\"]") {
            break;
        }
        heard.push(message);
    }
    let count = |what: &str| heard.iter().filter(|message| message.ends_with(what)).count();
    assert_eq!(count("\"counted\"]"), 1, "{heard:?}");
    assert_eq!(count("\"near{counted}\"]"), 1, "{heard:?}");
    assert_eq!((count("\"one\"]"), count("\"two\"]")), (1, 1), "{heard:?}");
    assert_eq!(heard.iter().filter(|message| message.contains("\"far")).count(), 20, "{heard:?}");
    // A key that is written and put back was not changed for those who watch it; one that is written in the end was.
    let script = "if redis.call('EXISTS','far1') == 1 then redis.call('GET',KEYS[1]) end \
                  for i=1,20 do redis.call('GET','far'..i) end return 1";
    assert_eq!(call(&mut clients, "A", &["EVAL", script, "1", "watched"]), "1");
    call(&mut clients, "W", &["MULTI"]);
    call(&mut clients, "W", &["PING"]);
    assert_eq!(call(&mut clients, "W", &["EXEC"]), "[+PONG]");
}

/// While a script takes long everybody is told so within a moment, whichever thread serves him, also new connections;
/// SCRIPT KILL ends it, and it leaves nothing behind.
#[test]
fn busy_and_kill() {
    for threads in [1, 2, 4] {
        let (_server, mut clients) = start(threads, &[]);
        call(&mut clients, "A", &["CONFIG", "SET", "busy-reply-threshold", "100"]);
        // On one shard, over all of them, and in a transaction.
        for script in [
            "while true do redis.call('GET',KEYS[1]) end",
            "for i=1,20 do redis.call('GET','k'..i) end while true do end",
            "while true do redis.pcall('GET',KEYS[1]) pcall(error) end",
            "while true do string.rep('x', 1000):gsub('.', function() end) end",
            "return (string.gsub(string.rep('a', 10000000), '.-b', 'x'))",
        ] {
            send(&mut clients, "S", &["EVAL", script, "1", "k1"]);
            wait_for(&mut clients, "A", &["GET", "x"], BUSY);
            for n in 0..8 {
                let name = format!("{script}{n}");
                let asked = Instant::now();
                assert_eq!(call(&mut clients, &name, &["SET", &format!("k{n}"), "v"]), BUSY);
                assert!(asked.elapsed() < Duration::from_secs(2));
                clients.close(&name);
            }
            assert_eq!(call(&mut clients, "B", &["PING"]), BUSY);
            assert_eq!(call(&mut clients, "B", &["MULTI"]), "+OK");
            assert_eq!(call(&mut clients, "B", &["SET", "k", "v"]), BUSY);
            let refused = format!("!EXECABORT Transaction discarded because of: {}", &BUSY[1..]);
            assert_eq!(call(&mut clients, "B", &["EXEC"]), refused);
            assert_eq!(call(&mut clients, "B", &["EVAL", "return 1", "0"]), BUSY);
            assert_eq!(call(&mut clients, "B", &["FUNCTION", "KILL"]), BUSY);
            assert_eq!(call(&mut clients, "B", &["SHUTDOWN"]), BUSY);
            assert_eq!(call(&mut clients, "B", &["SCRIPT", "KILL"]), "+OK");
            let answer = receive(&mut clients, "S");
            assert!(answer.starts_with("!ERR Error running script: Script killed by user"), "{answer}");
            wait_for(&mut clients, "A", &["DBSIZE"], "0");
            assert!(call(&mut clients, "A", &["SCRIPT", "KILL"]).starts_with("!NOTBUSY"));
        }
    }
}

/// Requests that reached a thread together with a script that does not end are answered, too: those before it are
/// done, those behind it are told.
#[test]
fn requests_around_a_script_that_does_not_end() {
    let (_server, mut clients) = start(4, &[]);
    call(&mut clients, "A", &["CONFIG", "SET", "lua-time-limit", "100"]);
    for round in 0..20 {
        let key = format!("k{round}");
        let before: Vec<String> = (0..6).map(|n| format!("before{n}")).collect();
        for client in before.iter().map(String::as_str).chain(["S"]) {
            call(&mut clients, client, &["PING"]);
        }
        for client in &before[..3] {
            send(&mut clients, client, &["INCR", &key]);
        }
        send(&mut clients, "S", &["EVAL", "while true do redis.call('GET',KEYS[1]) end", "1", &key]);
        for client in &before[3..] {
            send(&mut clients, client, &["INCR", &key]);
        }
        for client in &before {
            let answer = receive(&mut clients, client);
            assert!(answer == BUSY || ["1", "2", "3", "4", "5", "6"].contains(&&*answer), "{answer}");
        }
        wait_for(&mut clients, "A", &["SCRIPT", "KILL"], "+OK");
        assert!(receive(&mut clients, "S").starts_with("!ERR Error running script"));
    }
}

/// The same for a request that was read just before the script began on its core: while one connection after the other
/// is read there, slow scripts keep the core so long that an endless one arrives from the other core in between.
#[test]
fn requests_read_just_before_a_script_that_does_not_end() {
    const SLOW: &str = "local t = os.clock() while os.clock() - t < 0.03 do end return KEYS[1]";
    let (_server, mut clients) = start(2, &[]);
    call(&mut clients, "A", &["CONFIG", "SET", "lua-time-limit", "200"]);
    for round in 0..10 {
        let key = format!("k{round}");
        let slow: Vec<String> = (0..4).map(|n| format!("slow{n}")).collect();
        let plain: Vec<String> = (0..4).map(|n| format!("plain{n}")).collect();
        for client in slow.iter().chain(&plain).map(String::as_str).chain(["S"]) {
            call(&mut clients, client, &["PING"]);
        }
        send(&mut clients, "slow0", &["EVAL", SLOW, "1", &key]);
        send(&mut clients, "slow1", &["EVAL", SLOW, "1", &key]);
        thread::sleep(Duration::from_millis(10));
        send(&mut clients, "slow2", &["EVAL", SLOW, "1", &key]);
        send(&mut clients, "slow3", &["EVAL", SLOW, "1", &key]);
        for client in &plain {
            send(&mut clients, client, &["INCR", &key]);
        }
        thread::sleep(Duration::from_millis(10 + 10 * round));
        send(&mut clients, "S", &["EVAL", "while true do redis.call('GET',KEYS[1]) end", "1", &key]);
        for client in slow.iter().chain(&plain) {
            receive(&mut clients, client);
        }
        wait_for(&mut clients, "A", &["SCRIPT", "KILL"], "+OK");
        assert!(receive(&mut clients, "S").starts_with("!ERR Error running script"));
    }
}

/// What has written cannot be killed; when it ends by itself, all is as before. Its client may be gone by then.
#[test]
fn what_has_written_is_not_killed() {
    const FOR_A_WHILE: &str = "local t = os.clock() while os.clock() - t < 0.7 do end return 1";
    for threads in [1, 4] {
        let (_server, mut clients) = start(threads, &[]);
        call(&mut clients, "A", &["CONFIG", "SET", "lua-time-limit", "100"]);
        for (n, wide) in ["", "redis.call('MGET','a','b','c','d') "].into_iter().enumerate() {
            let script = format!("redis.call('INCR',KEYS[1]) {wide}{FOR_A_WHILE}");
            for goes in [false, true] {
                send(&mut clients, "S", &["EVAL", &script, "1", "written"]);
                wait_for(&mut clients, "B", &["GET", "written"], BUSY);
                let killed = call(&mut clients, "B", &["SCRIPT", "KILL"]);
                assert!(killed.starts_with("!UNKILLABLE"), "{killed}");
                if goes {
                    clients.close("S");
                } else {
                    assert_eq!(receive(&mut clients, "S"), "1");
                }
                let times = format!("\"{}\"", 2 * n + 1 + usize::from(goes));
                wait_for(&mut clients, "B", &["GET", "written"], &times);
            }
        }
    }
}

/// Functions are killed by their own command, and FUNCTION STATS shows the one that runs.
#[test]
fn functions_are_killed_by_their_own_command() {
    for threads in [1, 4] {
        let (_server, mut clients) = start(threads, &[]);
        call(&mut clients, "A", &["CONFIG", "SET", "lua-time-limit", "100"]);
        let library =
            "#!lua name=lib\nredis.register_function('endless', function(k,a) while true do end end)";
        assert_eq!(call(&mut clients, "A", &["FUNCTION", "LOAD", library]), "\"lib\"");
        send(&mut clients, "S", &["FCALL", "endless", "1", "k", "arg"]);
        let busy = BUSY.replace("SCRIPT KILL", "FUNCTION KILL");
        wait_for(&mut clients, "B", &["GET", "k"], &busy);
        assert_eq!(call(&mut clients, "B", &["SCRIPT", "KILL"]), busy);
        let stats = call(&mut clients, "B", &["FUNCTION", "STATS"]);
        assert!(
            stats.contains("\"name\" \"endless\" \"command\" [\"FCALL\" \"endless\" \"1\" \"k\" \"arg\"]"),
            "{stats}"
        );
        assert_eq!(call(&mut clients, "B", &["FUNCTION", "KILL"]), "+OK");
        assert!(
            receive(&mut clients, "S")
                .starts_with("!ERR Error running script: Script killed by user with FUNCTION")
        );
        wait_for(&mut clients, "B", &["GET", "k"], "nil");
    }
}

/// SIGTERM and SHUTDOWN NOSAVE end the server although a script does not end. Before SIGTERM's last save scripts make
/// way that have written nothing or can be undone.
#[test]
fn the_server_can_be_stopped() {
    for threads in [1, 4] {
        for (script, by_signal) in [
            ("while true do end", false),
            ("redis.call('SET','a',1) redis.call('SET','b',1) while true do end", false),
            ("redis.call('MGET','a','b','c','d') while true do end", true),
            ("redis.call('SET','a',1) while true do end", true),
        ] {
            let (mut server, mut clients) = start(threads, &[]);
            call(&mut clients, "A", &["CONFIG", "SET", "lua-time-limit", "100"]);
            send(&mut clients, "S", &["EVAL", script, "1", "a"]);
            wait_for(&mut clients, "B", &["GET", "x"], BUSY);
            if by_signal {
                let pid = server.process_id().to_string();
                let killed = Command::new("kill").args(["-TERM", &pid]).status();
                assert!(killed.is_ok_and(|status| status.success()));
            } else {
                send(&mut clients, "B", &["SHUTDOWN", "NOSAVE"]);
            }
            let until = Instant::now() + Duration::from_secs(10);
            while server.is_alive() {
                assert!(Instant::now() < until, "{script} with {threads} threads keeps the server");
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Programs made to hurt: all end with an error, in bounded time and memory, and the server goes on.
#[test]
fn programs_made_to_hurt() {
    const HURTING: &[&str] = &[
        "local t = {} while true do t[#t+1] = string.rep('x', 1000000) .. #t end",
        "local s = 'x' while true do s = s .. s end",
        "local function f() return f() + 1 end return f()",
        "return string.rep('x', 1e10)",
        "local t = {} for i=1,1000 do t = {t} end return cjson.encode(t)",
        "local t = {} for i=1,100 do t = {t} end return cmsgpack.pack(t)",
        "return cjson.decode(string.rep('[', 100000))",
        "return cmsgpack.unpack(string.rep('\\221\\255\\255\\255\\255', 100))",
        "return cmsgpack.unpack('\\223')",
        "return struct.unpack('i99999999999', 'x')",
        "return struct.pack('>I17', 1)",
        "return struct.unpack('s', string.rep('x', 100))",
        "return unpack({}, 1, 1e8)",
        "return table.concat({}, 'x', 1, 1e9)",
        "local t = setmetatable({}, {__index = function(t, k) return t[k + 1] end}) return t[1]",
        "return (string.gsub(string.rep('a', 3000), '.-b', 'x'))",
        "return loadstring('\\27Lua')()",
        "local c = coroutine.wrap(function() error('x') end) c()",
        "local t = {} t.t = t return cjson.encode(t)",
        "return redis.call('SET', KEYS[1], string.rep('x', 600000000))",
        "return string.format('%99999999d', 1)",
        "return bit.tobit({})",
        "error(setmetatable({}, {__tostring = function() error('again') end}))",
        "redis.call = nil",
        "getmetatable(_G).__index = nil",
        "string.format = nil",
        "KEYS = nil return KEYS",
        "return redis.call('GET', 'k', unpack({}, 1, 7000))",
    ];
    for threads in [1, 4] {
        let (mut server, mut clients) = start(threads, &["--maxmemory=512mb"]);
        for script in HURTING {
            let asked = Instant::now();
            call(&mut clients, "A", &["EVAL", script, "1", "k"]);
            assert!(asked.elapsed() < Duration::from_secs(30), "{script}");
            // The next one finds all as it was.
            let whole = "return {type(redis.call), #KEYS, string.format('%d', 7)}";
            assert_eq!(
                call(&mut clients, "A", &["EVAL", whole, "1", "k"]),
                "[\"function\" 1 \"7\"]",
                "after {script}"
            );
        }
        assert!(server.is_alive());
    }
}

/// Whoever waits for a list is served when the script is over, by what it has left.
#[test]
fn those_who_wait_are_served_at_the_end() {
    for threads in [1, 4] {
        let (_server, mut clients) = start(threads, &[]);
        for wide in ["", " redis.call('MGET','a','b','c','d','e')"] {
            send(&mut clients, "W", &["BLPOP", "list", "10"]);
            wait_for(
                &mut clients,
                "A",
                &[
                    "EVAL",
                    "local n = 0 for s in redis.call('INFO','clients'):gmatch('blocked_clients:(%d+)') do n = s end return tonumber(n)",
                    "0",
                ],
                "1",
            );
            let fleeting =
                format!("redis.call('RPUSH',KEYS[1],'gone') redis.call('DEL',KEYS[1]){wide} return 1");
            assert_eq!(call(&mut clients, "A", &["EVAL", &fleeting, "1", "list"]), "1");
            let pushing =
                format!("redis.call('RPUSH',KEYS[1],'a','b') redis.call('LPOP',KEYS[1]){wide} return 1");
            assert_eq!(call(&mut clients, "A", &["EVAL", &pushing, "1", "list"]), "1");
            assert_eq!(receive(&mut clients, "W"), "[\"list\" \"b\"]");
            assert_eq!(call(&mut clients, "A", &["EXISTS", "list"]), "0");
        }
    }
}

/// Scripts and libraries are known on all threads as soon as the one who made them is answered.
#[test]
fn known_everywhere() {
    let (_server, mut clients) = start(4, &[]);
    for round in 0..30 {
        let script = format!("return {round}");
        let sha = call(&mut clients, "A", &["SCRIPT", "LOAD", &script]);
        let sha = sha.trim_matches('"');
        let library = format!("#!lua name=lib\nredis.register_function('f', function() return {round} end)");
        assert_eq!(call(&mut clients, "A", &["FUNCTION", "LOAD", "REPLACE", &library]), "\"lib\"");
        for client in ["A", "B", "C", "D", "E"] {
            assert_eq!(call(&mut clients, client, &["EVALSHA", sha, "0"]), round.to_string());
            for key in ["k1", "k2", "k3", "k4", "k5"] {
                assert_eq!(call(&mut clients, client, &["EVALSHA", sha, "1", key]), round.to_string());
                assert_eq!(call(&mut clients, client, &["FCALL", "f", "1", key]), round.to_string());
            }
        }
        call(&mut clients, "B", &["SCRIPT", "FLUSH"]);
        assert_eq!(call(&mut clients, "C", &["FUNCTION", "DELETE", "lib"]), "+OK");
        for client in ["A", "B", "C", "D", "E"] {
            assert!(call(&mut clients, client, &["EVALSHA", sha, "1", "k3"]).starts_with("!NOSCRIPT"));
            assert_eq!(call(&mut clients, client, &["FCALL", "f", "1", "k3"]), "!ERR Function not found");
        }
    }
}

/// Pipelined scripts and commands of one connection: replies in order, and each key's commands in order, also around
/// scripts that turn out to need all shards.
#[test]
fn order_within_a_pipeline() {
    let (_server, mut clients) = start(4, &[]);
    for round in 0..40 {
        let mut expected = Vec::new();
        for i in 0..50 {
            let key = format!("k{}-{round}", i % 10);
            let here =
                format!("redis.call('APPEND',KEYS[1],'s') return redis.call('STRLEN',KEYS[1]) -- {round}");
            let wide = format!(
                "redis.call('APPEND',KEYS[1],'w') redis.call('MGET','a','b','c','d','e') return redis.call('STRLEN',KEYS[1]) -- {round}"
            );
            match i % 5 {
                0 | 1 => send(&mut clients, "P", &["EVAL", &here, "1", &key]),
                2 => send(&mut clients, "P", &["EVAL", &wide, "1", &key]),
                _ => send(&mut clients, "P", &["APPEND", &key, "a"]),
            }
            expected.push((i / 10 + 1).to_string());
        }
        for (i, expected) in expected.iter().enumerate() {
            assert_eq!(&receive(&mut clients, "P"), expected, "round {round}, request {i}");
        }
    }
}

/// What flushing forgets is given back at once, by the threads on which it ran narrowly and by that of wide scripts.
#[test]
fn flushing_gives_memory_back() {
    let (_server, mut clients) = start(2, &[]);
    let used = |clients: &mut Tcp, name: &str| {
        let info = call(clients, "A", &["INFO", "memory"]);
        let number = info.split(name).nth(1).and_then(|rest| rest.trim_start_matches(':').split('\\').next());
        number.and_then(|number| number.parse::<usize>().ok()).unwrap_or_else(|| panic!("{name} in {info}"))
    };
    let filler = "local t = {'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'} ".repeat(100);
    for number in 0..100 {
        let script = format!(
            "{filler} redis.call('GET', 'k1') redis.call('GET', 'k2') redis.call('GET', 'k3') return {number}"
        );
        call(&mut clients, "A", &["EVAL", &script, "0"]);
        let name = format!("f{number}");
        let library = format!(
            "#!lua name={name}\nredis.register_function('{name}', function() {filler} redis.call('GET', 'k1') \
             redis.call('GET', 'k2') redis.call('GET', 'k3') return 1 end)"
        );
        call(&mut clients, "A", &["FUNCTION", "LOAD", &library]);
        assert_eq!(call(&mut clients, "A", &["FCALL", &name, "0"]), "1");
    }
    for (flush, name) in [("SCRIPT", "used_memory_vm_eval"), ("FUNCTION", "used_memory_vm_functions")] {
        let before = used(&mut clients, name);
        call(&mut clients, "A", &[flush, "FLUSH"]);
        let until = Instant::now() + Duration::from_secs(10);
        // The thread of wide scripts takes note when it has time.
        while used(&mut clients, name) > before / 4 {
            assert!(
                Instant::now() < until,
                "{name}: {before} before, {} afterwards",
                used(&mut clients, name)
            );
            thread::sleep(Duration::from_millis(5));
        }
        assert!(before > 1 << 20, "{name}: only {before} before");
    }
}

/// MONITOR shows a script before its commands, and those once, although it ran twice.
#[test]
fn monitored() {
    let (_server, mut clients) = start(4, &[]);
    call(&mut clients, "M", &["MONITOR"]);
    let script = "redis.call('SET',KEYS[1],'v') redis.call('SET','k2','v') redis.call('SET','k3','v') redis.call('SET','k4','v')";
    call(&mut clients, "A", &["EVAL", script, "1", "k1"]);
    call(&mut clients, "A", &["SET", "last", "v"]);
    let mut seen = Vec::new();
    while !seen.iter().any(|line: &String| line.contains("\"last\"")) {
        seen.push(receive(&mut clients, "M"));
    }
    let lua = seen.iter().filter(|line| line.contains(" lua] \"SET\"")).count();
    let calls = seen.iter().filter(|line| line.contains("\"EVAL\"")).count();
    assert_eq!((lua, calls), (4, 1), "{seen:#?}");
}

/// MONITOR shows what a transaction runs, and EXEC behind it, on one shard and on several; nothing of one that is not
/// run, nor of sub-commands that are for administrators.
#[test]
fn monitored_transactions() {
    let (_server, mut clients) = start(4, &[]);
    call(&mut clients, "M", &["MONITOR"]);
    let transaction = |clients: &mut _, commands: &[&[&str]]| {
        call(clients, "A", &["MULTI"]);
        commands.iter().for_each(|command| drop(call(clients, "A", command)));
        call(clients, "A", &["EXEC"]);
    };
    call(&mut clients, "A", &["MULTI"]);
    call(&mut clients, "A", &["SET", "k", "1"]);
    call(&mut clients, "A", &["GET", "k"]);
    call(&mut clients, "A", &["Exec"]);
    let script = "return redis.call('INCR',KEYS[1])";
    transaction(&mut clients, &[&["MGET", "a", "b", "c", "d"], &["EVAL", script, "1", "k"], &["PING"]]);
    call(&mut clients, "A", &["WATCH", "k"]);
    call(&mut clients, "B", &["INCR", "k"]);
    transaction(&mut clients, &[&["SET", "k", "2"]]);
    call(&mut clients, "A", &["CLIENT", "LIST"]);
    transaction(&mut clients, &[&["MONITOR"]]);
    call(&mut clients, "A", &["ECHO", "last"]);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last: &String| last != r#""ECHO" "last""#) {
        let line = receive(&mut clients, "M");
        seen.extend(
            line.split_once("] ").map(|(_, command)| command.trim_end_matches('"').to_owned() + "\""),
        );
    }
    let eval = format!(r#""EVAL" "{script}" "1" "k""#);
    let expected = [
        r#""MULTI""#,
        r#""SET" "k" "1""#,
        r#""GET" "k""#,
        r#""Exec""#,
        r#""MULTI""#,
        r#""MGET" "a" "b" "c" "d""#,
        &eval,
        r#""INCR" "k""#,
        r#""PING""#,
        r#""EXEC""#,
        r#""WATCH" "k""#,
        r#""INCR" "k""#,
        r#""MULTI""#,
        r#""EXEC""#,
        r#""MULTI""#,
        r#""EXEC""#,
        r#""ECHO" "last""#,
    ];
    assert_eq!(seen, expected);
}
