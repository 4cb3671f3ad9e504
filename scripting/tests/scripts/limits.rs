//! Hostile scripts: each ends in bounded time and memory, whatever it does to go on, and the engine works afterwards.

use crate::fake::{Fake, OPTIONS, answer, engine, eval};
use damselfly_scripting::{Ended, Engine, Options};
use std::time::{Duration, Instant};

/// Scripts that would run for ever, or for hours inside one call of C. The host kills them when they are slow.
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
    // Each level tries twice, so these double.
    "local function f() return load(f) end while true do f() end",
    "local function f() return xpcall(f, f) end while true do f() end",
    "local function f(...) return f(1, ...) end f()",
    // One call or operation that goes through a long string, again and again.
    "local s=('x'):rep(1e7) while true do s:find('y', 1, true) end",
    "local p=('x'):rep(1e7) while true do ('y'):find(p) end",
    "local a,b=('x'):rep(1e7)..'a',('x'):rep(1e7)..'b' while true do local c = a < b end",
    "local a,b=('x'):rep(1e7)..'a',('x'):rep(1e7)..'b' while true do local c = a <= b end",
    "local s=('1'):rep(4096) while true do local x = s + 1 end",
    "local s=('1'):rep(1e7) while true do tonumber(s, 10) end",
    "local s=('x'):rep(1e7) while true do redis.sha1hex(s) end",
    "local s=('x'):rep(1e7) while true do pcall(cjson.decode, s) end",
    "local s='['..('1'):rep(1e7) while true do pcall(cjson.decode, s) end",
    "local s=('x'):rep(1e7) while true do cmsgpack.unpack_one(s, 1e7) end",
    "local s=('x'):rep(1e7) while true do struct.unpack('b', s) end",
    "local s=(' '):rep(1e7) while true do struct.size(s) end",
    // Patterns: long sets, captures that refer back, nested repetition.
    "return ('a'):rep(1e5):find('['..('b'):rep(1e5)..']')",
    "return ('a'):rep(1e5):find('[^'..('b'):rep(1e5)..']*c')",
    "return ('a'):rep(1e5):find('[^'..('b'):rep(1e5)..']-c')",
    "return ('a'):rep(1e5):find('%f['..('b'):rep(1e5)..']')",
    "return ('a'):rep(1e5):find('(.*)%1b')",
    "return ('a'):rep(1e5):find(('(.-)'):rep(30)..'b')",
    "return ('a'):rep(1e5):gsub(('.-'):rep(20)..'b', '%0')",
    "for w in ('a'):rep(1e5):gmatch('.-.-.-.-b') do end",
    // Tables: slots that are empty, tables that are made anew for each key, lengths that have to be searched.
    "local t={} for i=1,2^17 do t['k'..i]=1 end for i=1,2^17 do t['k'..i]=nil end while true do next(t) end",
    "local t={} for i=1,2^16-1 do t['k'..i]=1 end local i=2^16 while true do t['k'..(i-1e3)]=nil t['k'..i]=1 i=i+1 end",
    "local t={} for i=1,1e6 do t[i]=1 end while true do table.maxn(t) end",
    "local t={} for i=1,2^18 do t[i]=1 end local j=2^18+1 while j<2^31 do t[j]=1 j=j*2 end while true do local n=#t end",
    "local t={} for i=1,1e5 do t['k'..i]=1 end for k in pairs(t) do t[k]=nil end
     local u={} for i=1,1e5 do u[i]=t end return cmsgpack.pack(u)",
    "local t={} for i=1,1e5 do t['k'..i]=1 end for k in pairs(t) do t[k]=nil end
     local u={} for i=1,1e5 do u[i]=t end return cjson.encode(u)",
    // The compiler: jumps to the same end, names that are looked for in many functions; code without any jump.
    "return loadstring('while true do '..('do break end '):rep(1.2e5)..' end')",
    "local v={} for i=1,150 do v[i]='v'..i end local head='local '..table.concat(v,',')..' return function() '
     return loadstring(head:rep(60)..('x=x '):rep(3e5)..(' end'):rep(60))",
    "local f=loadstring('local a '..('a=1 '):rep(3e5)) while true do f() end",
    "loadstring('local a while true do '..('a=1 '):rep(1e5)..' end')()",
    "local f=loadstring('local a '..('a=1 '):rep(1e5)..' a.b=1') while true do pcall(f) end",
    "return table.concat(setmetatable({},{__index=function() return 'x' end}),'',1,2^31-1) or (function() while true do end end)()",
];

#[test]
fn endless_scripts_are_killed() {
    let mut engine = engine();
    for script in ENDLESS {
        // Late enough that they are done with their preparations.
        let mut host = Fake { kill_after: Some(Duration::from_millis(200)), ..Fake::default() };
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
        assert!(host.longest_gap < Duration::from_secs(5), "{script}: {:?} of {took:?}", host.longest_gap);
        assert_eq!(answer(&mut engine, &mut Fake::default(), "return 'alive'"), "$5\\r\\nalive\\r\\n");
    }
}

/// Scripts that end by themselves, with an error that says why.
#[test]
fn bounds() {
    // Little memory is filled sooner.
    let options = Options { memory_max: 16 << 20, ..OPTIONS };
    let mut engine = Engine::new(options);
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
        // Recursion through everything that can call back.
        (
            "local t=setmetatable({},{}) getmetatable(t).__index=function(_,k) return t[k] end return t.x",
            "stack overflow",
        ),
        (
            "local t=setmetatable({},{}) getmetatable(t).__newindex=function(_,k) t[k]=1 end t.x=1",
            "stack overflow",
        ),
        (
            "local t=setmetatable({},{}) getmetatable(t).__concat=function() return t..t end return t..t",
            "stack overflow",
        ),
        (
            "local t=setmetatable({},{}) getmetatable(t).__lt=function() return t<t end return t<t",
            "stack overflow",
        ),
        (
            "local t=setmetatable({},{}) getmetatable(t).__unm=function() return -t end return -t",
            "stack overflow",
        ),
        (
            "local t=setmetatable({},{}) getmetatable(t).__call=function() return 1+t() end return t()",
            "stack overflow",
        ),
        ("local t=setmetatable({},{}) getmetatable(t).__call=t return t()", "attempt to call"),
        ("local t={} setmetatable(t,{__index=t}) return t.x", "loop in gettable"),
        ("local t={} setmetatable(t,{__newindex=t}) t.x=1", "loop in settable"),
        (
            "local t=setmetatable({},{}) getmetatable(t).__tostring=function() return tostring(t) end return tostring(t)",
            "stack overflow",
        ),
        ("local function f(s) return (s:gsub('.', f)) end return f('x')", "stack overflow"),
        ("local function f() return pcall(string.gsub, 'x', '.', f) end return f()", ":1"),
        ("local t={2,1} local function f() table.sort(t, f) end f()", "stack overflow"),
        ("local function h() error('again') end return {xpcall(error, h)}", "error in error handling"),
        ("local function f() return {f()} end return f()", "stack overflow"),
        ("return select('#', (function(...) return ... end)(unpack({}, 1, 7900)))", ":7900"),
        // Allocation without end.
        ("local t={} while true do t={t} end", "not enough memory"),
        ("local s={} for i=1,1e9 do s[i]=i end", "not enough memory"),
        ("local s='x' for i=1,40 do s=s:gsub('.', '%0%0') end", "not enough memory"),
        ("local t={} for i=1,1e9 do t['k'..i]=true end", "not enough memory"),
        ("local t={} for i=1,1e9 do t[i]=function() return i end end", "not enough memory"),
        (
            "local t={} for i=1,1e9 do t[i]=coroutine.wrap(function() coroutine.yield() end) t[i]() end",
            "not enough memory",
        ),
        (
            "local s=('x'):rep(1e6) return string.format(('%s'):rep(100), unpack((function() local t={} for i=1,100 do t[i]=s end return t end)()))",
            "not enough memory",
        ),
        (
            "local s=('x'):rep(1e7) local t={} for i=1,1e3 do t[i]=s end return struct.pack(('s'):rep(1e3), unpack(t))",
            "not enough memory",
        ),
        (
            "local s=('x'):rep(1e6) local t={} for i=1,1e3 do t[i]=s end return cmsgpack.pack(t)",
            "not enough memory",
        ),
        (
            "local s=('x'):rep(1e6) local t={} for i=1,1e3 do t[i]=s end return cjson.encode(t)",
            "not enough memory",
        ),
        ("local t={} for i=1,10 do t={t,t,t,t,t,t,t,t,t,t} end return cjson.encode(t)", "not enough memory"),
        ("local t={} for i=1,12 do t={t,t,t,t,t,t,t,t,t,t} end return cmsgpack.pack(t)", "not enough memory"),
        ("local t={} for i=1,12 do t={t,t,t,t,t,t,t,t,t,t} end return t", "not enough memory"),
        ("return loadstring('return {'..('{},'):rep(3e5)..'}')", "$-1"),
        // Headers that promise much, in each other.
        (
            "return cmsgpack.unpack(('\\221\\255\\255\\255\\255'):rep(1900)..('\\1'):rep(1e5))",
            "Missing bytes",
        ),
        (
            "return cmsgpack.unpack(('\\223\\255\\255\\255\\255\\1'):rep(1900)..('\\1'):rep(1e5))",
            "Missing bytes",
        ),
        ("return ('x'):rep(2^31)", "$0"),
        ("return string.format('%99999d', 1)", "invalid format"),
        ("return ('a'):rep(3e3):find('(.-)*b')", "$-1"),
        ("return loadstring('return ['..('='):rep(1.1e6)..'[')", "$-1"),
        ("newproxy()", "nonexistent global variable \\'newproxy"),
        ("return string.rep('', 1e9)", "$0"),
        ("local t={} t[0/0]=1", "table index is NaN"),
    ] {
        let start = Instant::now();
        let text = answer(&mut engine, &mut Fake::default(), script);
        assert!(text.contains(expected), "{script}: {text:.300}");
        assert!(start.elapsed() < Duration::from_secs(60), "{script}: {:?}", start.elapsed());
        assert!(engine.memory().0 < options.memory_max, "{script}: {:?}", engine.memory());
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

/// Compiling has no host that could stop it, so it has a bound of its own, which ordinary long scripts are far from.
#[test]
fn compiling_is_bounded() {
    let mut engine = engine();
    for script in [
        format!("while true do {} end", "do break end ".repeat(120_000)),
        format!("local a {}", "if a then elseif a then end ".repeat(1000)).repeat(20)
            + &format!("if a then {} end", "elseif a then ".repeat(40_000)),
    ] {
        let start = Instant::now();
        let (out, ended) = eval(&mut engine, &mut Fake::default(), script.as_bytes(), &[], &[]);
        let text = out.escape_ascii().to_string();
        assert_eq!(ended, Ended::Failed);
        assert!(text.contains("Error compiling script (new function): "), "{text}");
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }
    let long =
        "local a = {1, 'x', function(b) return b + 1 end} for i = 1, #a do if a[i] == 1 then break end end\n";
    let script = format!("{}return 1", format!("do {long} end ").repeat(5_000));
    assert_eq!(answer(&mut engine, &mut Fake::default(), &script), ":1\\r\\n");
    assert_eq!(answer(&mut engine, &mut Fake::default(), "return 'alive'"), "$5\\r\\nalive\\r\\n");
}

/// What a script calls may have more arguments than Lua lets a native function have values, as by `unpack`; only a script
/// that passes on ever more of them is refused.
#[test]
fn very_many_arguments() {
    let mut engine = engine();
    let ones = "1,".repeat(200);
    let more = |levels: usize, last: &str| {
        format!(
            "local function f(n, ...) if n == 0 then return {last} end return f(n-1, {ones} ...) end return f({levels})"
        )
    };
    let table = "local t={} for i=1,7999 do t[i]=i end";
    for (script, expected) in [
        (format!("{table} return redis.pcall('nosuch', 'l', unpack(t))"), "ERR Unknown Redis command"),
        (format!("{table} return redis.call('nosuch', 'l', unpack(t))"), "ERR Unknown Redis command"),
        (format!("{table} return tostring(pcall(cmsgpack.pack, unpack(t)))"), ""),
        (format!("{table} return bit.bor(unpack(t))"), ":8191"),
        (more(450, "redis.pcall('nosuch', ...)"), "ERR Unknown Redis command"),
        (more(550, "redis.pcall('nosuch', ...)"), "too many arguments"),
        (more(550, "redis.call('nosuch', ...)"), "too many arguments"),
        (more(550, "tostring(pcall(cjson.encode, ...))"), "false"),
    ] {
        let got = answer(&mut engine, &mut Fake::default(), &script);
        assert!(got.contains(expected), "{got}: {script:.60}");
        assert_eq!(answer(&mut engine, &mut Fake::default(), "return 1"), ":1\\r\\n");
    }
}
