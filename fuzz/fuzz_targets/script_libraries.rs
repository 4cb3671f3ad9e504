//! Any bytes as JSON, as MessagePack and as formats of `struct`, given to the libraries of scripts: errors or values,
//! in bounded time and memory, and what was packed is read back as the same.

#![no_main]

use damselfly_protocol::Proto;
use damselfly_scripting::{
    AclCheck, Call, CallOutcome, Ended, Engine, Host, How, LogLevel, Options, Repl, Sha, Tick,
};
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;

/// Nothing here may raise an error but the last line, which then says what is wrong.
const SCRIPT: &str = r#"
    local wrong
    local function same(a, b)
        if type(a) ~= 'table' or type(b) ~= 'table' then return a == b or (a ~= a and b ~= b) end
        for key, value in pairs(a) do if not same(value, b[key]) then return false end end
        for key in pairs(b) do if a[key] == nil then return false end end
        return true
    end
    local format, data = ARGV[1], ARGV[2]

    local ok, value = pcall(cjson.decode, data)
    if ok then
        local packed, text = pcall(cjson.encode, value)
        if packed then
            local again, read = pcall(cjson.decode, text)
            if not again then wrong = 'cjson does not read what it wrote: ' .. tostring(read) end
        end
    end

    -- Deeper tables are packed as nil, so what is read again may be less.
    ok, value = pcall(cmsgpack.unpack, data)
    if ok and value ~= nil then
        local text = cmsgpack.pack(value)
        local again, read = pcall(cmsgpack.unpack, text)
        if not again then
            wrong = 'cmsgpack does not read what it wrote: ' .. tostring(read)
        end
    end
    pcall(cmsgpack.unpack_one, data, #format)
    pcall(cmsgpack.unpack_limit, data, #format, 1)

    pcall(struct.size, format)
    ok = {pcall(struct.unpack, format, data)}
    if ok[1] then
        local read = {unpack(ok, 2, #ok - 1)}
        local packed, text = pcall(struct.pack, format, unpack(read))
        if packed and not format:find('[^bBhHlLxfd<> ]') then
            if not same(read, {unpack({struct.unpack(format, text)}, 1, #read)}) then
                wrong = 'struct does not read what it wrote'
            end
        end
    end
    pcall(struct.pack, format, data, 1, -1, 0.5, 1e300, 0/0, data)
    pcall(string.format, format, 1, data, 1e300)
    pcall(string.find, data, format)
    pcall(string.gsub, data, format, format)
    pcall(loadstring, data)
    if wrong then error('WRONG ' .. wrong) end
    return 1
"#;

/// No commands; a script may work for a while.
struct Alone {
    ticks: u32,
}

impl Host for Alone {
    fn call(&mut self, _: &[&[u8]], _: How, _: &mut Vec<u8>) -> CallOutcome {
        CallOutcome::Abort
    }
    fn log(&mut self, _: LogLevel, _: &[u8]) {}
    fn acl_check(&mut self, _: &[&[u8]]) -> AclCheck {
        AclCheck::Unknown
    }
    fn set_repl(&mut self, _: Repl) {}
    fn tick(&mut self) -> Tick {
        /// Half a second of ordinary work.
        const TICKS_MAX: u32 = 10_000;
        self.ticks += 1;
        if self.ticks > TICKS_MAX { Tick::Kill } else { Tick::Continue }
    }
    fn clock(&mut self) -> f64 {
        0.0
    }
}

fn engine() -> (Engine, Sha) {
    let mut engine =
        Engine::new(Options { memory_max: 64 << 20, version: "7.0.15", version_number: 0x0007_000F });
    let sha = Engine::sha(SCRIPT.as_bytes());
    engine.load(&sha, SCRIPT.as_bytes()).expect("compiles");
    (engine, sha)
}

thread_local! {
    static ENGINE: RefCell<(Engine, Sha)> = RefCell::new(engine());
}

fuzz_target!(|data: &[u8]| {
    // A format and data, apart by a zero byte.
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (format, bytes) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    ENGINE.with_borrow_mut(|(engine, sha)| {
        let mut out = Vec::new();
        let call = Call { keys: &[], args: &[format, bytes], read_only: false, proto: Proto::Resp2 };
        let ended = engine.run(sha, call, &mut Alone { ticks: 0 }, &mut out);
        let text = String::from_utf8_lossy(&out);
        assert!(!text.contains("WRONG"), "{text}");
        assert!(matches!(ended, Ended::Replied | Ended::Killed | Ended::Failed), "{ended:?}: {text}");
        assert!(engine.memory().0 < 64 << 20);
    });
});
