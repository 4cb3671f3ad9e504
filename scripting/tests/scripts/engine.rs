//! What the recorded answers cannot show: the host's side, RESP3, aborts, flags, libraries.

use crate::fake::{Fake, answer, call, engine, eval};
use damselfly_protocol::Proto;
use damselfly_scripting::{AclCheck, CallOutcome, Ended, Engine, Host, How, LogLevel, Repl, Tick};

/// An abort passes everything that a script can put around a call.
#[test]
fn aborts_cannot_be_caught() {
    let mut engine = engine();
    for script in [
        "redis.call('abort')",
        "redis.pcall('abort')",
        "pcall(redis.call, 'abort') return 1",
        "while true do pcall(function() redis.call('abort') end) end",
        "xpcall(function() redis.call('abort') end, function() return 1 end) return 1",
        "coroutine.resume(coroutine.create(function() redis.call('abort') end)) return 1",
        "coroutine.wrap(function() pcall(redis.call, 'abort') end)() return 1",
        "string.gsub('x', '.', function() redis.call('abort') end) return 1",
        "table.sort({1,2,3}, function() redis.call('abort') end) return 1",
        "return setmetatable({}, {__index=function() redis.call('abort') end}).x",
        "return load(function() redis.call('abort') end)",
    ] {
        let (out, ended) = eval(&mut engine, &mut Fake::default(), script.as_bytes(), &[], &[]);
        assert_eq!((ended, &out[..]), (Ended::Aborted, &b""[..]), "{script}");
        assert_eq!(answer(&mut engine, &mut Fake::default(), "return pcall(error)"), "$-1\\r\\n");
    }
}

/// Each kind of reply, and what a script finds in it.
#[test]
fn replies_into_lua() {
    let mut engine = engine();
    for (reply, script, expected) in [
        (":-5", "return redis.call('raw')", ":-5"),
        ("$3\r\nabc", "return redis.call('raw')", "$3\\r\\nabc"),
        ("$-1", "return tostring(redis.call('raw'))", "$5\\r\\nfalse"),
        ("*-1", "return tostring(redis.call('raw'))", "$5\\r\\nfalse"),
        ("_", "return tostring(redis.call('raw'))", "$3\\r\\nnil"),
        ("#t", "return tostring(redis.call('raw'))", "$4\\r\\ntrue"),
        ("#f", "return tostring(redis.call('raw'))", "$5\\r\\nfalse"),
        (",1.5", "return tostring(redis.call('raw').double)", "$3\\r\\n1.5"),
        (",inf", "return tostring(redis.call('raw').double)", "$3\\r\\ninf"),
        ("(123456789012345678901", "return redis.call('raw').big_number", "$21\\r\\n123456789012345678901"),
        (
            "=8\r\ntxt:abcd",
            "local v=redis.call('raw').verbatim_string return {v.format,v.string}",
            "*2\\r\\n$3\\r\\ntxt\\r\\n$4\\r\\nabcd",
        ),
        (
            "*2\r\n:1\r\n*1\r\n+OK",
            "local v=redis.call('raw') return {v[1],v[2][1].ok}",
            "*2\\r\\n:1\\r\\n$2\\r\\nOK",
        ),
        (
            "%1\r\n+a\r\n:1",
            "local v=redis.call('raw').map for k,x in pairs(v) do return {k.ok,x} end",
            "*2\\r\\n$1\\r\\na\\r\\n:1",
        ),
        ("%1\r\n$1\r\na\r\n:1", "return redis.call('raw').map.a", ":1"),
        ("~2\r\n$1\r\na\r\n_", "return tostring(redis.call('raw').set.a)", "$4\\r\\ntrue"),
        ("|1\r\n+a\r\n+b\r\n:7", "return redis.call('raw')", ":7"),
        ("-WRONGTYPE bad kind", "return redis.pcall('raw').err", "$18\\r\\nWRONGTYPE bad kind"),
        ("-ONEWORD", "return redis.pcall('raw').err", "$11\\r\\nERR ONEWORD"),
        ("-X y", "return redis.call('raw')", "-X y script: "),
        ("garbage", "return redis.call('raw')", "-ERR user_script:1: the server has sent a malformed reply"),
        ("*2\r\n:1", "return redis.call('raw')", "-ERR user_script:1: the server has sent a malformed reply"),
        ("$5\r\nab", "return redis.call('raw')", "-ERR user_script:1: the server has sent a malformed reply"),
    ] {
        let mut host = Fake { raw: format!("{reply}\r\n").into_bytes(), ..Fake::default() };
        let text = answer(&mut engine, &mut host, script);
        assert!(text.starts_with(expected), "{reply:?} {script}: {text}");
    }
    let deep = [b"*1\r\n".repeat(5000), b":1\r\n".to_vec()].concat();
    let mut host = Fake { raw: deep, ..Fake::default() };
    assert!(answer(&mut engine, &mut host, "return redis.call('raw')").contains("nested too deep"));
}

/// The client's protocol decides the form of the reply; `setresp` that of booleans. As redis-server 7.0 answers
/// after HELLO 3.
#[test]
fn replies_in_resp3() {
    let mut engine = engine();
    for (script, expected) in [
        ("return {true,false}", "*2\r\n:1\r\n_\r\n"),
        ("redis.setresp(3) return {true,false}", "*2\r\n#t\r\n#f\r\n"),
        ("return {double=1.5}", ",1.5\r\n"),
        ("return {map={a=1}}", "%1\r\n$1\r\na\r\n:1\r\n"),
        ("return {set={a=true}}", "~1\r\n$1\r\na\r\n"),
        ("return {big_number='12'}", "(12\r\n"),
        ("return {verbatim_string={format='txt',string='ab'}}", "=6\r\ntxt:ab\r\n"),
        ("return {verbatim_string={format='\\255',string='ab'}}", "=6\r\ntxt:ab\r\n"),
        ("return nil", "_\r\n"),
    ] {
        let sha = Engine::sha(script.as_bytes());
        engine.load(&sha, script.as_bytes()).expect("compiles");
        let mut out = Vec::new();
        let mut how = call(&[], &[]);
        how.proto = Proto::Resp3;
        engine.run(&sha, how, &mut Fake::default(), &mut out);
        assert_eq!(
            out.escape_ascii().to_string(),
            expected.as_bytes().escape_ascii().to_string(),
            "{script}"
        );
    }
}

/// What a script tells the host beside commands.
#[test]
fn log_repl_acl_clock() {
    let mut engine = engine();
    let mut host = Fake::default();
    answer(
        &mut engine,
        &mut host,
        "redis.log(redis.LOG_WARNING, 'a', 1, {}, 'b') redis.set_repl(redis.REPL_AOF)",
    );
    assert_eq!(host.log, [(LogLevel::Warning, b"a 1 b".to_vec())]);
    assert_eq!(host.repl, Some(Repl { aof: true, replicas: false }));
    let script = "return {redis.acl_check_cmd('get','x'), redis.acl_check_cmd('set','x')==false, os.clock()}";
    assert_eq!(answer(&mut engine, &mut host, script), "*3\\r\\n:1\\r\\n:1\\r\\n:0\\r\\n");
}

/// Flags of both kinds of first lines.
#[test]
fn flags() {
    let flags = |source: &str| Engine::flags_of(source.as_bytes());
    assert!(!flags("return 1").expect("none").declared);
    let all =
        flags("#!lua flags=no-writes,allow-oom,allow-stale,no-cluster,allow-cross-slot-keys\n").expect("all");
    assert_eq!(all.names().count(), 5);
    assert!(all.declared && all.no_writes && !all.disable_atomicity);
    let own = flags("--!df flags=allow-undeclared-keys,disable-atomicity\nreturn 1").expect("ours");
    assert!(own.allow_undeclared_keys && own.disable_atomicity && !own.declared);
    assert!(flags("--!df flags=nosuch\nreturn 1").is_err());
    assert!(flags("-- !df flags=nosuch").is_ok());
    let both = flags("#!lua flags=no-writes\n--!df flags=disable-atomicity\nreturn 1").expect("both");
    assert!(both.no_writes && both.disable_atomicity);
    // The host learns of no-writes with each call.
    let mut engine = engine();
    let mut host = Fake::default();
    answer(&mut engine, &mut host, "#!lua flags=no-writes\nreturn redis.call('ping')");
    assert_eq!(host.calls, [How { resp3: false, read_only: true }]);
}

fn load(engine: &mut Engine, source: &str) -> Result<usize, String> {
    let loaded =
        engine.load_library(source.as_bytes(), true, &mut Fake { kill_at: Some(5), ..Fake::default() });
    loaded.map(|library| library.functions.len()).map_err(|text| String::from_utf8_lossy(&text).into_owned())
}

fn fcall(engine: &mut Engine, name: &str, keys: &[&[u8]], args: &[&[u8]]) -> String {
    let mut out = Vec::new();
    let ended = engine.run_function(name, call(keys, args), &mut Fake::default(), &mut out);
    if ended == Ended::Unknown { "unknown".to_owned() } else { out.escape_ascii().to_string() }
}

/// Texts of redis-server 7.0 for what is wrong with a library.
#[test]
fn refused_libraries() {
    let mut engine = engine();
    for (source, expected) in [
        ("return 1", "ERR Missing library metadata"),
        ("#!lua\nreturn 1", "ERR Library name was not given"),
        ("#!lua name=l", "ERR Invalid library metadata"),
        ("#!lua name=l\n", "ERR No functions registered"),
        ("#!js name=l\nreturn 1", "ERR Engine 'js' not found"),
        ("#!lua name=l x=y\nfoo", "ERR Invalid metadata value given: x=y"),
        (
            "#!lua name=a-b\nreturn 1",
            "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one character long",
        ),
        (
            "#!lua name=l name=m\nreturn 1",
            "ERR Invalid metadata value, name argument was given multiple times",
        ),
    ] {
        assert_eq!(load(&mut engine, source), Err(expected.to_owned()), "{source}");
    }
    let function = "function_name='f',callback=function() end";
    for (body, expected) in [
        (
            "redis.register_function{function_name='f',callback=print}",
            "ERR user_function:2: Script attempted to access nonexistent global variable 'print'",
        ),
        (&format!("redis.register_function{{{function},flags={{'x'}}}}"), "ERR unknown flag given"),
        (&format!("redis.register_function{{{function},flags={{1}}}}"), "ERR unknown flag given"),
        (
            &format!("redis.register_function{{{function},flags=1}}"),
            "ERR flags argument to redis.register_function must be a table representing function flags",
        ),
        (
            "redis.register_function{function_name='f',callback=1}",
            "ERR callback argument given to redis.register_function must be a function",
        ),
        (
            "redis.register_function{callback=function() end}",
            "ERR redis.register_function must get a function name argument",
        ),
        (
            "redis.register_function{function_name='f'}",
            "ERR redis.register_function must get a callback argument",
        ),
        (
            &format!("redis.register_function{{{function},foo=1}}"),
            "ERR unknown argument given to redis.register_function",
        ),
        ("redis.register_function{1}", "ERR unknown argument given to redis.register_function"),
        ("redis.register_function()", "ERR wrong number of arguments to redis.register_function"),
        (
            "redis.register_function(1)",
            "ERR calling redis.register_function with a single argument is only applicable to Lua table (representing named arguments).",
        ),
        (
            "redis.register_function('f',1)",
            "ERR second argument to redis.register_function must be a function",
        ),
        (
            "redis.register_function('f',function() end,3)",
            "ERR wrong number of arguments to redis.register_function",
        ),
        (
            "redis.register_function('f g',function() end)",
            "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one character long",
        ),
        (
            "redis.register_function('f',function() end) redis.register_function('f',function() end)",
            "ERR Function already exists in the library",
        ),
        (
            "redis.call('get','a')",
            "ERR user_function:2: Script attempted to access nonexistent global variable 'call'",
        ),
        ("x=1", "ERR user_function:2: Attempt to modify a readonly table"),
        ("return x", "ERR user_function:2: Script attempted to access nonexistent global variable 'x'"),
        (
            "error('boom')",
            "ERR user_function:2: Script attempted to access nonexistent global variable 'error'",
        ),
        ("local a=nil; a.b=1", "ERR user_function:2: attempt to index local 'a' (a nil value)"),
        ("redis.x=1", "ERR user_function:2: Attempt to modify a readonly table"),
        (
            "redis.setresp(3)",
            "ERR user_function:2: Script attempted to access nonexistent global variable 'setresp'",
        ),
        ("while true do end", "ERR FUNCTION LOAD timeout"),
    ] {
        let expected = format!("ERR Error registering functions: {expected}");
        assert_eq!(load(&mut engine, &format!("#!lua name=l\n{body}")), Err(expected), "{body}");
    }
    assert_eq!(
        load(&mut engine, "#!lua name=l\n+"),
        Err("ERR Error compiling function: user_function:2: unexpected symbol near '+'".to_owned())
    );
    assert_eq!(engine.libraries().count(), 0);
}

/// Functions keep their library's locals, see the globals of functions, and go with their library.
#[test]
fn libraries() {
    let mut engine = engine();
    let source = "#!lua name=l
        local count = 0
        redis.register_function('count', function(keys, args) count = count + #keys + #args return count end)
        redis.register_function{function_name='named', description='d', flags={'no-writes'},
            callback=function() return redis.call('set', 'k', 'v') end}
        redis.register_function('globals', function() return KEYS end)
        redis.register_function('protected', function() y = 1 end)
        redis.register_function('late', function() return redis.register_function('x', function() end) end)
        redis.register_function('libs', function() return cjson.encode({bit.band(7,3), math.floor(2.5)}) end)";
    assert_eq!(load(&mut engine, source), Ok(6));
    assert_eq!(fcall(&mut engine, "count", &[b"k"], &[b"a", b"b"]), ":3\\r\\n");
    assert_eq!(fcall(&mut engine, "count", &[], &[]), ":3\\r\\n");
    assert_eq!(fcall(&mut engine, "libs", &[], &[]), "$5\\r\\n[3,2]\\r\\n");
    assert_eq!(
        fcall(&mut engine, "named", &[], &[]),
        "-ERR Write commands are not allowed from read-only scripts. script: named, on @user_function:5.\\r\\n"
    );
    assert_eq!(
        fcall(&mut engine, "globals", &[], &[]),
        "-ERR user_function:6: Script attempted to access nonexistent global variable \\'KEYS\\' script: globals, on @user_function:6.\\r\\n"
    );
    assert_eq!(
        fcall(&mut engine, "protected", &[], &[]),
        "-ERR user_function:7: Attempt to modify a readonly table script: protected, on @user_function:7.\\r\\n"
    );
    assert!(
        fcall(&mut engine, "late", &[], &[]).contains("Script attempted to access nonexistent global")
            || fcall(&mut engine, "late", &[], &[]).contains("attempt to call field")
    );
    let info = engine.function("named").expect("registered");
    assert_eq!((info.description.as_deref(), info.flags.no_writes), (Some(&b"d"[..]), true));
    let library = engine.libraries().next().expect("one");
    assert_eq!((&library.name[..], &library.source[..]), ("l", source.as_bytes()));
    assert_eq!(
        load(&mut engine, "#!lua name=m\nredis.register_function('count', function() end)"),
        Err("ERR Function count already exists".to_owned())
    );
    // A library that fails leaves the old one as it was.
    assert!(
        load(
            &mut engine,
            "#!lua name=l\nredis.register_function('new', function() end) local a = nil; a.b = 1"
        )
        .is_err()
    );
    assert_eq!(fcall(&mut engine, "count", &[], &[]), ":3\\r\\n");
    assert_eq!(
        load(&mut engine, "#!lua name=l\nredis.register_function('new', function() return 1 end)"),
        Ok(1)
    );
    assert_eq!(fcall(&mut engine, "count", &[], &[]), "unknown");
    assert_eq!(fcall(&mut engine, "new", &[], &[]), ":1\\r\\n");
    assert!(engine.delete_library("l") && !engine.delete_library("l"));
    assert_eq!(fcall(&mut engine, "new", &[], &[]), "unknown");
    engine.flush_libraries();
    assert_eq!(engine.memory().1, 0);
}

/// A host whose commands fail in its own way; the engine only passes on.
#[test]
fn a_host_can_kill_inside_functions() {
    struct Killer;
    impl Host for Killer {
        fn call(&mut self, _: &[&[u8]], _: How, _: &mut Vec<u8>) -> CallOutcome {
            CallOutcome::Abort
        }
        fn log(&mut self, _: LogLevel, _: &[u8]) {}
        fn acl_check(&mut self, _: &[&[u8]]) -> AclCheck {
            AclCheck::Denied
        }
        fn set_repl(&mut self, _: Repl) {}
        fn tick(&mut self) -> Tick {
            Tick::Kill
        }
        fn clock(&mut self) -> f64 {
            0.0
        }
    }
    let mut engine = engine();
    load(&mut engine, "#!lua name=l\nredis.register_function('f', function() while true do end end)")
        .expect("loads");
    let mut out = Vec::new();
    let ended = engine.run_function("f", call(&[], &[]), &mut Killer, &mut out);
    assert_eq!(ended, Ended::Killed);
    assert_eq!(
        String::from_utf8_lossy(&out),
        "-ERR Error running script: Script killed by user with FUNCTION KILL. script: f, on @user_function:2.\r\n"
    );
}
