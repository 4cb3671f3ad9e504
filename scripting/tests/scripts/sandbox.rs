//! Ways out of the sandbox: none leads to a file, a process, another script's data or another script's code.

use crate::fake::{Fake, answer, engine, eval};

/// What scripts share, as one sees it that comes after: types of all that is reachable, what a few functions do, and
/// that nothing was added.
const VIEW: &str = "
    local seen, lines = {}, {}
    local function walk(path, table, depth)
        if seen[table] or depth > 3 then return end
        seen[table] = true
        for key, value in pairs(table) do
            lines[#lines + 1] = path .. '.' .. tostring(key) .. ':' .. type(value)
            if type(value) == 'table' and key ~= 'KEYS' and key ~= 'ARGV' then
                walk(path .. '.' .. tostring(key), value, depth + 1)
            end
        end
        local metatable = getmetatable(table)
        if metatable then walk(path .. '<meta>', metatable, depth + 1) end
    end
    walk('_G', _G, 0)
    walk('string', getmetatable(''), 0)
    table.sort(lines)
    lines[#lines + 1] = ('x'):upper() .. #'xyz' .. tostring(1) .. math.floor(1.5) .. table.concat({1, 2})
    lines[#lines + 1] = cjson.encode({1}) .. cmsgpack.pack(1) .. bit.band(3, 1) .. tostring(redis.call('ping').ok)
    lines[#lines + 1] = #KEYS .. #ARGV .. type(next) .. tostring(getmetatable(1) == nil)
    return redis.sha1hex(table.concat(lines, '\\n'))";

/// None of these may end with the text that each returns where it gets through.
const ATTACKS: &[&str] = &[
    // Globals and libraries.
    "x = 1 return 'OUT'",
    "_G.x = 1 return 'OUT'",
    "_G['string'] = nil return 'OUT'",
    "rawset(_G, 'x', 1) return 'OUT'",
    "rawset(_G._G._G, 'tostring', nil) return 'OUT'",
    "string.upper = nil return 'OUT'",
    "rawset(string, 'upper', function() return 'OUT' end) return 'OUT'",
    "rawset(math, 1, 1) return 'OUT'",
    "redis.call = function() end return 'OUT'",
    "rawset(redis, 'call', nil) return 'OUT'",
    "cjson.encode = nil return 'OUT'",
    "cmsgpack.pack = nil return 'OUT'",
    "bit.band = nil return 'OUT'",
    "struct.pack = nil return 'OUT'",
    "coroutine.wrap = nil return 'OUT'",
    "table.insert(_G, 1) return 'OUT'",
    "table.insert(redis, 1, 1) return 'OUT'",
    "table.remove(_G) rawset(_G, 'y', 1) return 'OUT'",
    "table.sort(string, function() string[1] = 2 return true end) string[1] = 1 return 'OUT'",
    "table.setn(string, 5) return 'OUT'",
    "table.foreach(_G, function(key) _G[key] = nil end) return 'OUT'",
    "for key in pairs(_G) do _G[key] = nil end return 'OUT'",
    "function tostring() end return 'OUT'",
    "function string.len() end return 'OUT'",
    "local t = _G t.KEYS = nil return 'OUT'",
    "local function f(t) t.x = 1 end f(math) return 'OUT'",
    // Metatables.
    "setmetatable(_G, nil) return 'OUT'",
    "setmetatable(_G, {__index = function() return 1 end}) return 'OUT'",
    "setmetatable(string, {__index = function() return 1 end}) return 'OUT'",
    "setmetatable(redis, {}) return 'OUT'",
    "getmetatable(_G).__index = nil return 'OUT'",
    "getmetatable(_G).__newindex = nil return 'OUT'",
    "rawset(getmetatable(_G), '__newindex', rawset) return 'OUT'",
    "getmetatable('').__index = function() return 'OUT' end return 'OUT'",
    "getmetatable('').__add = function() return 'OUT' end return 'OUT'",
    "rawset(getmetatable(''), '__call', function() end) return 'OUT'",
    "getmetatable('').__index.upper = nil return 'OUT'",
    "setmetatable(getmetatable(''), {}) return 'OUT'",
    "setmetatable('', {}) return 'OUT'",
    "setmetatable(cjson.null, {}) return 'OUT'",
    "local t = setmetatable({}, {__newindex = _G}) t.x = 1 return 'OUT'",
    "local t = setmetatable({}, {__newindex = string}) t.x = 1 return 'OUT'",
    "local t = setmetatable({}, {__newindex = rawset, __index = _G}) getmetatable(t).__newindex(_G, 'x', 1) return 'OUT'",
    // Environments.
    "setfenv(1, {}) return 'OUT'",
    "setfenv(0, {}) return 'OUT'",
    "getfenv(0).x = 1 return 'OUT'",
    "getfenv(redis.call).x = 1 return 'OUT'",
    "setfenv(tostring, {}) return 'OUT'",
    "loadstring('x = 1')() return 'OUT'",
    "load(function() end) loadstring('_G.x = 1')() return 'OUT'",
    "coroutine.wrap(function() x = 1 end)() return 'OUT'",
    "coroutine.wrap(function() setfenv(0, {}) end)() return 'OUT'",
    // Debugging, files, processes, modules.
    "debug.getregistry().x = 1 return 'OUT'",
    "debug.sethook(function() end, '', 1) return 'OUT'",
    "debug.setmetatable('', {}) return 'OUT'",
    "debug.getupvalue(redis.call, 1) return 'OUT'",
    "debug.setfenv(redis.call, {}) return 'OUT'",
    "xpcall(error, debug.traceback) return 'OUT'",
    "io.open('/etc/passwd') return 'OUT'",
    "io.popen('id') return 'OUT'",
    "os.execute('id') return 'OUT'",
    "os.exit(1) return 'OUT'",
    "os.getenv('PATH') return 'OUT'",
    "os.remove('/tmp/x') return 'OUT'",
    "os.setlocale('C') return 'OUT'",
    "dofile('/etc/passwd') return 'OUT'",
    "loadfile('/etc/passwd')() return 'OUT'",
    "require('io') return 'OUT'",
    "module('x') return 'OUT'",
    "package.loadlib('/lib/x.so', 'f') return 'OUT'",
    "package.loaded.x = 1 return 'OUT'",
    "print('x') return 'OUT'",
    "newproxy(true) return 'OUT'",
    // Bytecode.
    "loadstring(string.dump(function() return 'OUT' end))() return 'OUT'",
    "loadstring('\\27Lua' .. ('\\0'):rep(100))() return 'OUT'",
    "local n = 0 load(function() n = n + 1 return n == 1 and '\\27Lua' or nil end)() return 'OUT'",
    "local s = string.dump(function() return 1 end) for i = 13, #s do loadstring(s:sub(1, i - 1) .. '\\255' .. s:sub(i + 1)) end
     loadstring(s)() return 'OUT'",
    // What runs when garbage is collected, or a state is closed.
    "setmetatable({}, {__gc = function() _G.x = 1 end}) collectgarbage() return rawget(_G, 'x') and 'OUT'",
    "local t = setmetatable({}, {__mode = 'kv'}) t[1] = {} collectgarbage() return t[1] and 'OUT'",
    "for i = 1, 100 do local c = coroutine.wrap(function(a) local f = function() return a, i end coroutine.yield(f) end) c({}) end
     return rawget(_G, 'x') and 'OUT'",
    // Data left for another script.
    "KEYS[1] = 'OUT' ARGV.x = 'OUT' return 1",
    "math.randomseed(7) math.random() return 1",
    "redis.setresp(3) return 1",
    "collectgarbage('stop') return 1",
    "cjson.encode_sparse_array(true, 1, 1) cjson.decode_max_depth(3) return 1",
    "local own = cjson.new() own.encode = nil own.encode_max_depth(1) return 1",
    "string.gsub('x', '.', function() KEYS.y = 1 end) return 1",
];

#[test]
fn no_way_out() {
    let mut engine = engine();
    let mut host = Fake::default();
    let before = answer(&mut engine, &mut host, VIEW);
    assert!(before.starts_with("$40"), "{before}");
    for script in ATTACKS {
        let text = answer(&mut engine, &mut host, script);
        assert!(!text.contains("OUT"), "{script}: {text}");
        assert_eq!(answer(&mut engine, &mut host, VIEW), before, "after {script}");
    }
    drop(engine);
}

/// Functions may keep what is theirs, and nothing else: the second state has the same walls.
#[test]
fn no_way_out_of_a_library() {
    let mut engine = engine();
    for script in ATTACKS {
        let body = script.replace("KEYS", "keys").replace("ARGV", "args");
        let source = format!(
            "#!lua name=l\nredis.register_function('f', function(keys, args) {body} end)
             redis.register_function('view', function(keys, args) local KEYS, ARGV = keys, args {VIEW} end)"
        );
        engine.load_library(source.as_bytes(), true, &mut Fake::default()).expect(script);
        let mut call = |name| {
            let mut out = Vec::new();
            engine.run_function(name, crate::fake::call(&[], &[]), &mut Fake::default(), &mut out);
            out.escape_ascii().to_string()
        };
        let before = call("view");
        assert!(before.starts_with("$40"), "{before}");
        let text = call("f");
        assert!(!text.contains("OUT"), "{script}: {text}");
        assert_eq!(call("view"), before, "after {script}");
    }
}

/// A state is closed while coroutines refer to values of each other (CVE-2024-46981): under an address sanitizer this
/// shows as a use after free; here, that it ends.
#[test]
fn states_close_with_coroutines_alive() {
    for _ in 0..20 {
        let mut engine = engine();
        let source = "#!lua name=l\nlocal kept = {}
            redis.register_function('f', function()
            for i = 1, 50 do
                local co = coroutine.create(function(a)
                    local b = {a, i}
                    local f = function() b[3] = a return b end
                    kept[#kept + 1] = f
                    coroutine.yield(f)
                end)
                coroutine.resume(co, {kept})
                kept[#kept + 1] = co
            end
            return #kept end)";
        engine.load_library(source.as_bytes(), false, &mut Fake::default()).expect("loads");
        let mut out = Vec::new();
        engine.run_function("f", crate::fake::call(&[], &[]), &mut Fake::default(), &mut out);
        assert_eq!(out, b":100\r\n");
        engine.flush_libraries();
        assert_eq!(engine.memory().1, 0);
    }
}

/// KEYS and ARGV are what the call says, whatever the last script did to its own, of the same length or of another.
#[test]
fn lists_are_new_for_each_run() {
    const VIEW: &str = "
        local all = {}
        for _, list in ipairs({KEYS, ARGV}) do
            for key, value in pairs(list) do all[#all + 1] = tostring(key) .. '=' .. tostring(value) end
            all[#all + 1] = '#' .. #list .. tostring(getmetatable(list)) .. tostring(rawget(list, 'x')) .. ';'
        end
        return table.concat(all, ' ')";
    let mut engine = engine();
    let mut host = Fake::default();
    type List<'a> = &'a [&'a [u8]];
    let runs: [(List<'_>, List<'_>); 5] = [
        (&[b"a", b"b"], &[b"1", b"2", b"3"]),
        (&[b"c", b"d"], &[b"4", b"5", b"6"]),
        (&[], &[b"7"]),
        (&[b"e"], &[]),
        (&[], &[]),
    ];
    for change in [
        "return 1",
        "KEYS[1] = 'x' ARGV[3] = nil return 1",
        "KEYS[2] = nil KEYS[1] = nil for i = 1, #ARGV do table.remove(ARGV) end return 1",
        "KEYS.x = 1 ARGV[KEYS] = ARGV return 1",
        "KEYS.x = 1 KEYS.x = nil KEYS[0] = 'zero' return 1",
        "for i = 1, 100 do KEYS[i], ARGV[-i] = i, i end return 1",
        "ARGV[1] = KEYS KEYS[1] = ARGV KEYS[2] = {ARGV, KEYS} return 1",
        "setmetatable(KEYS, {__index = function() return 'x' end}) setmetatable(ARGV, {__mode = 'kv'}) return 1",
        "setmetatable(KEYS, {__mode = 'v'}) setmetatable(KEYS, nil) return 1",
        "table.sort(ARGV, function(a, b) return a > b end) table.insert(KEYS, 1, 'x') return 1",
        "KEYS[1.5] = true ARGV[true] = false error('x')",
    ] {
        for (before_keys, before_args) in runs {
            for (keys, args) in runs {
                eval(&mut engine, &mut host, change.as_bytes(), before_keys, before_args);
                let text = |list: List<'_>| {
                    let mut text = String::new();
                    for (at, value) in list.iter().enumerate() {
                        text += &format!("{}={} ", at + 1, String::from_utf8_lossy(value));
                    }
                    format!("{text}#{}nilnil;", list.len())
                };
                let expected = format!("{} {}", text(keys), text(args));
                let (reply, _) = eval(&mut engine, &mut host, VIEW.as_bytes(), keys, args);
                let expected = format!("${}\r\n{expected}\r\n", expected.len());
                assert_eq!(String::from_utf8_lossy(&reply), expected, "after {change}");
            }
        }
    }
}
