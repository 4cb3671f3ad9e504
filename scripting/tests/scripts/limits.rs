//! Hostile scripts: each ends in bounded time and memory, whatever it does to go on, and the engine works afterwards.

use crate::fake::{Fake, OPTIONS, answer, engine, eval};
use damselfly_scripting::Ended;
use std::time::{Duration, Instant};

/// Scripts that would run for ever, or for hours inside one call of C. The host kills them at their tenth tick.
const ENDLESS: &[&str] = &[
    "while true do end",
    "repeat until false",
    "for i=1,1e18 do end",
    "local function f() return f() end f()",
    "while true do pcall(function() while true do end end) end",
    "while true do pcall(error) end",
    "while true do xpcall(function() while true do end end, function() while true do end end) end",
    "while true do coroutine.wrap(function() while true do end end)() end",
    "while true do coroutine.resume(coroutine.create(function() error('x') end)) end",
    "while true do local co = coroutine.wrap(function() pcall(coroutine.yield) while true do end end) co() co() end",
    "while true do redis.pcall('ping') end",
    "while true do pcall(redis.call, 'nosuch') end",
    "while true do ('x'):rep(1e5) end",
    "return ('a'):rep(1e5):find(('a?'):rep(40)..('a'):rep(1e5))",
    "return ('a'):rep(200):find(('a*'):rep(30)..'b')",
    "return ('a'):rep(1e6):find('a-a-a-a-a-b')",
    "return ('a'):rep(3e5):find('.-.-.-b')",
    "return ('a'):rep(1e6):gsub('a*b', '')",
    "return ('('):rep(1e6):find('%b()')",
    "return ('('):rep(1e6):gsub('%b()', '')",
    "local s=('a'):rep(2e6) return s:find(('a'):rep(1e6)..'b', 1, true)",
    "return ('%f[b]'):rep(100):gsub('.', function() return (('a'):rep(1e5):gsub('%f[b].-.-.-$', '')) end)",
    // The order that drives quicksort to n^2 is not needed: a comparison that is no order does it.
    "local t={} for i=1,1e5 do t[i]=i%7 end while true do pcall(table.sort, t, function(a,b) return true end) end",
    "local t={} for i=1,1e6 do t[i]=true end for i=1,1e6 do t[i]=nil end while true do next(t) end",
    "local t={} for i=1,1e5 do t[i]=i end while true do table.insert(t,1,0) table.remove(t,1) end",
    "while true do collectgarbage() end",
    "while true do cjson.decode('[1,2,3]') end",
    "local t={} for i=1,1e5 do t[i]=i end while true do cjson.encode(t) end",
    "local t={} for i=1,1e5 do t[i]=i end while true do cmsgpack.unpack(cmsgpack.pack(t)) end",
    "while true do struct.pack('i', 1) end",
    "while true do loadstring('return 1')() end",
    "local t=setmetatable({},{__index=function(t,k) return t[k+1] end}) while true do pcall(function() return t[1] end) end",
    "local t={} setmetatable(t,{__eq=function() while true do end end}) return t==setmetatable({},getmetatable(t))",
    "while true do local t={} for i=1,100 do t[i]={} end end",
    "return table.concat(setmetatable({},{__index=function() return 'x' end}),'',1,2^31-1) or (function() while true do end end)()",
];

#[test]
fn endless_scripts_are_killed() {
    let mut engine = engine();
    for script in ENDLESS {
        let mut host = Fake { kill_at: Some(10), ..Fake::default() };
        let start = Instant::now();
        let (out, ended) = eval(&mut engine, &mut host, script.as_bytes(), &[], &[]);
        let took = start.elapsed();
        let text = out.escape_ascii().to_string();
        // Some reach another bound of theirs before (the stack, a complexity limit); none goes on.
        assert!(matches!(ended, Ended::Killed | Ended::Failed), "{script}: {ended:?} {text}");
        if ended == Ended::Killed {
            assert!(text.contains("Script killed by user with SCRIPT KILL."), "{text}");
        }
        // Ticks come every 50 us; this is a bound for a busy machine, not a measurement.
        assert!(took < Duration::from_secs(30), "{script}: {took:?}");
        assert_eq!(answer(&mut engine, &mut Fake::default(), "return 'alive'"), "$5\\r\\nalive\\r\\n");
    }
}

/// Scripts that end by themselves, with an error that says why.
#[test]
fn bounds() {
    let mut engine = engine();
    for (script, expected) in [
        ("return ('x'):rep(1e10)", "not enough memory"),
        ("local s='x' while true do s=s..s end", "not enough memory"),
        ("local t={} while true do t[#t+1]={} end", "not enough memory"),
        ("local t={} for i=1,1e9 do t[i]=('x'):rep(1000)..i end", "not enough memory"),
        (
            "return table.concat((function() local t={} for i=1,1e3 do t[i]=('x'):rep(1e5) end return t end)())",
            "not enough memory",
        ),
        ("local t={} for i=1,1000 do t[i]=coroutine.create(function() end) end return #t", ":1000"),
        ("local function f() return 1+f() end return f()", "stack overflow"),
        ("local function f() return pcall(f) end return f()", ":1"),
        ("local s=('x'):rep(1e5) return (s:gsub('.', function() return s end))", "not enough memory"),
        ("return cjson.decode(('['):rep(1e6))", "Found too many nested data structures (1001)"),
        (
            "cjson.decode_max_depth(1e9) return cjson.decode(('['):rep(1e6))",
            "Found too many nested data structures (2501)",
        ),
        (
            "cjson.encode_max_depth(1e9) local t={} for i=1,1e5 do t={t} end return cjson.encode(t)",
            "excessive nesting (2501)",
        ),
        ("cjson.encode_sparse_array(false,0) return #cjson.encode({[1e9]=1})", "not enough memory"),
        ("return cmsgpack.unpack(('\\145'):rep(1e6))", "stack overflow (in function mp_decode_to_lua_array)"),
        ("return cmsgpack.unpack('\\221\\255\\255\\255\\255')", "Missing bytes"),
        ("return cmsgpack.unpack('\\223\\255\\255\\255\\255')", "Missing bytes"),
        ("return cmsgpack.unpack('\\219\\255\\255\\255\\255x')", "Missing bytes"),
        ("return struct.pack('c2147483647','x')", "string too short"),
        ("return struct.unpack('c0', 'x')", "needs a previous size"),
        ("return struct.unpack(('b'):rep(1e4), ('x'):rep(1e4))", "too many results"),
        ("return string.format('%1000d', 1)", "invalid format"),
        ("return #string.format('%99.99f', 1e308)", ":"),
        ("return ('a'):rep(1e5):find(('a?'):rep(1e5))", "pattern too complex"),
        ("return ('x'):find(('('):rep(100))", "too many captures"),
        ("return loadstring(('('):rep(1e5))", "$-1"),
        (
            "return select(2, loadstring('return '..('('):rep(1000)..'1'..(')'):rep(1000)))",
            "chunk has too many syntax levels",
        ),
        ("return select('#', unpack({}, 1, 7000))", ":7000"),
        ("return unpack({}, 1, 1e6)", "too many results to unpack"),
        (
            "return coroutine.wrap(function() local function f(n) return coroutine.wrap(function() return f(n+1) end)() end return f(1) end)()",
            "C stack overflow",
        ),
        ("local t={} for i=1,5000 do t={t} end return t", "reached lua stack limit"),
        ("local a={} a[1]=a return a", "reached lua stack limit"),
        ("local f = loadstring('return '..('x,'):rep(10)..'1') setmetatable({}, {__gc=f}) return 1", ":1"),
        ("newproxy()", "nonexistent global variable \\'newproxy"),
        ("return string.rep('', 1e9)", "$0"),
        ("local t={} t[0/0]=1", "table index is NaN"),
    ] {
        let start = Instant::now();
        let text = answer(&mut engine, &mut Fake::default(), script);
        assert!(text.contains(expected), "{script}: {text:.300}");
        assert!(start.elapsed() < Duration::from_secs(30), "{script}: {:?}", start.elapsed());
        assert!(engine.memory().0 < OPTIONS.memory_max / 4, "{script}: {:?}", engine.memory());
    }
    assert_eq!(answer(&mut engine, &mut Fake::default(), "return 'alive'"), "$5\\r\\nalive\\r\\n");
}

/// CVE-2014-5461: fixed parameters of a vararg function were moved beyond the stack. Under Miri or valgrind this shows
/// as an invalid write; here, that many shapes of calls survive.
#[test]
fn vararg_functions_with_many_parameters() {
    let mut engine = engine();
    for parameters in [10, 50, 100, 190] {
        let names: Vec<String> = (0..parameters).map(|i| format!("p{i}")).collect();
        let script = format!(
            "local function f({}, ...) return select('#', ...) end local sum=0 for n=1,400 do sum=sum+f(unpack({{}},1,n)) end
             local function deep(n) if n==0 then return 0 end return f(unpack({{}},1,300)) + deep(n-1) end
             return sum*0 + deep(150)*0",
            names.join(",")
        );
        assert_eq!(answer(&mut engine, &mut Fake::default(), &script), ":0\\r\\n");
    }
}

/// Garbage is not data: a script may make more of it than it may have data.
#[test]
fn garbage_is_collected_in_time() {
    let mut engine = engine();
    let mut host =
        Fake { raw: [b"$8000000\r\n", &vec![b'x'; 8_000_000][..], b"\r\n"].concat(), ..Fake::default() };
    for script in [
        "for i=1,1000 do local s=('x'):rep(1e6)..i end return 1",
        "local s=('x'):rep(8e6) for i=1,100 do local t=s..i end return 1",
        "for i=1,100 do redis.call('raw') end return 1",
        "for i=1,1e5 do local t={} for j=1,20 do t[j]={j} end end return 1",
    ] {
        assert_eq!(answer(&mut engine, &mut host, script), ":1\\r\\n", "{script}");
    }
}

/// What one script does, the next one does not see.
#[test]
fn nothing_leaks_from_script_to_script() {
    let mut engine = engine();
    let mut host = Fake::default();
    for script in [
        "collectgarbage('stop') collectgarbage('setpause', 10000) return 1",
        "redis.setresp(3) return 1",
        "cjson.encode_max_depth(1) cjson.encode_sparse_array(true) cjson.encode_number_precision(3) return 1",
        "KEYS[1]='changed' ARGV.x=1 return 1",
        "coroutine.wrap(function() redis.setresp(3) coroutine.yield() end)() return 1",
        "error({err='E x'})",
        "local ok = pcall(function() _G.x = 1 end) return 1",
    ] {
        let _ = answer(&mut engine, &mut host, script);
    }
    host.calls.clear();
    assert_eq!(
        answer(
            &mut engine,
            &mut host,
            "redis.call('ping') return {#KEYS, #ARGV, cjson.encode({{0.123456}}), rawget(_G,'x')==nil and 1}"
        ),
        "*4\\r\\n:0\\r\\n:0\\r\\n$12\\r\\n[[0.123456]]\\r\\n:1\\r\\n"
    );
    assert!(!host.calls[0].resp3);
}

/// Scripts come and go; the cache of compiled ones stays bounded, and so does the memory.
#[test]
fn compiled_scripts_are_bounded() {
    let mut engine = engine();
    let mut host = Fake::default();
    for i in 0..3000 {
        assert_eq!(answer(&mut engine, &mut host, &format!("return {i}")), format!(":{i}\\r\\n"));
    }
    assert_eq!(engine.compiled(), damselfly_scripting::COMPILED_MAX);
    assert!(engine.memory().0 < 4 << 20, "{:?}", engine.memory());
    engine.flush_scripts();
    assert_eq!(engine.compiled(), 0);
}
