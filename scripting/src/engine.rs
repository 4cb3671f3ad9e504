//! The engine of one thread: compiled scripts and libraries, and running them.
//!
//! Scripts and functions live in two Lua states, because their globals differ and because a library's functions may
//! keep data from call to call, which no script should reach. The second state is made when the first library comes.
//!
//! Invariant: between runs, a state's main stack is empty but for the error handler, nothing refers to a host, and all
//! tables that scripts share are read-only, but for KEYS and ARGV, which each run finds as if they were new. So whatever
//! a script does, the next one finds what it would have found.

use crate::cjson::{self, Settings};
use crate::context::{Context, Stopped};
use crate::function::{self, FunctionInfo, Library, key_of};
use crate::host::Host;
use crate::lua::{Failed, Function, Kept, Lua, Stack, Type};
use crate::shebang::{self, ScriptFlags};
use crate::{bit, msgpack, packing, random, redis, reply};
use damselfly_protocol::sha1;
use damselfly_protocol::{Proto, ReplyWriter};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// The name of a script: the SHA-1 of its source.
pub type Sha = [u8; sha1::LEN];

/// Something for each of many scripts.
pub type ByScript<V> = HashMap<Sha, V, BuildHasherDefault<FirstBytes>>;

/// Scripts that an engine keeps compiled. The oldest one goes first; the server keeps the sources.
pub const COMPILED_MAX: usize = 1000;

/// Memory beyond which a state is swept after a run.
const SWEPT_BEYOND: usize = 10 << 20;

/// Settings of an engine.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes that scripts may use, and functions as many again. Running out is an error in the script.
    pub memory_max: usize,
    /// `redis.REDIS_VERSION`
    pub version: &'static str,
    /// `redis.REDIS_VERSION_NUM`
    pub version_number: u32,
}

/// One call of a script or a function.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// KEYS
    pub keys: &'a [&'a [u8]],
    /// ARGV
    pub args: &'a [&'a [u8]],
    /// Refuse commands that write, whatever the script's flags say.
    pub read_only: bool,
    /// The client's protocol, which the reply is written in.
    pub proto: Proto,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The script's value is the reply.
    Replied,
    /// The script failed, and the reply is an error.
    Failed,
    /// The host has said [`crate::Tick::Kill`]; the reply is an error.
    Killed,
    /// The host has said [`crate::CallOutcome::Abort`]; there is no reply.
    Aborted,
    /// There is no such script or function here, and no reply.
    Unknown,
}

/// Compiled scripts and libraries of one thread.
pub struct Engine {
    options: Options,
    scripts: State,
    compiled: ByScript<Script>,
    /// Oldest first.
    order: VecDeque<Sha>,
    functions: Option<State>,
    libraries: BTreeMap<String, Library>,
    registered: BTreeMap<String, Registered>,
}

struct Script {
    flags: ScriptFlags,
    function: Kept,
}

struct Registered {
    info: FunctionInfo,
    callback: Kept,
}

/// Digests are evenly spread; nobody can find many whose first 8 bytes meet.
#[derive(Default)]
pub struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.as_chunks::<8>().0 {
            self.0 ^= u64::from_le_bytes(*chunk);
        }
    }

    fn write_usize(&mut self, _: usize) {}
}

/// A Lua state with its sandbox.
struct State {
    lua: Lua,
    /// Of `cjson`.
    settings: Kept,
    /// The strings "KEYS" and "ARGV": looking a name up among all strings costs as much as setting the table.
    lists: [Kept; 2],
    /// For functions: the globals of libraries that are being loaded, as their metatable's `__index`.
    load_api: Option<Kept>,
}

/// What of Lua's own there is not: the file system, raw access to functions' globals, output.
const FORBIDDEN: &[&str] =
    &["dofile", "loadfile", "newproxy", "getfenv", "setfenv", "print", "require", "module"];

impl State {
    fn new(options: &Options, kind: Kind) -> State {
        let mut lua = Lua::new(options.memory_max, Context::new());
        lua.stop_collector();
        let mut stack = lua.stack();
        stack.set_top(0);
        for name in FORBIDDEN {
            stack.push_nil();
            stack.set_field(Stack::GLOBALS, name);
        }
        let stack = &mut stack;
        stack.field(Stack::GLOBALS, "math");
        set_functions(stack, &[("random", random::random), ("randomseed", random::seed)]);
        stack.pop(1);
        let libraries: [(&str, &[(&str, Function)]); 3] =
            [("bit", bit::FUNCTIONS), ("struct", packing::FUNCTIONS), ("os", &[("clock", redis::clock)])];
        for (name, functions) in libraries {
            stack.push_table(0, functions.len());
            set_functions(stack, functions);
            stack.set_field(Stack::GLOBALS, name);
        }
        stack.push_table(0, 8);
        set_functions(stack, msgpack::FUNCTIONS);
        for (name, text) in [
            ("_NAME", "cmsgpack"),
            ("_VERSION", "lua-cmsgpack 0.4.0"),
            ("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo"),
            ("_DESCRIPTION", "MessagePack C implementation for Lua"),
        ] {
            stack.push_bytes(text);
            stack.set_field(-2, name);
        }
        stack.set_field(Stack::GLOBALS, "cmsgpack");
        stack.push_cell(Settings::default());
        stack.push_copy(-1);
        let settings = stack.keep();
        cjson::push_instance(stack);
        stack.set_field(Stack::GLOBALS, "cjson");
        stack.push_table(0, 32);
        set_functions(stack, redis::FUNCTIONS);
        set_functions(stack, &[redis::LOG]);
        if kind == Kind::Scripts {
            set_functions(stack, redis::SCRIPT_FUNCTIONS);
        }
        set_constants(stack, options);
        for (name, number) in redis::REPL {
            stack.push_number(*number);
            stack.set_field(-2, name);
        }
        stack.set_field(Stack::GLOBALS, "redis");
        // Methods of strings.
        stack.push_bytes("");
        stack.push_table(0, 1);
        stack.field(Stack::GLOBALS, "string");
        stack.set_field(-2, "__index");
        stack.set_readonly(-1, true);
        stack.set_metatable(-2);
        stack.pop(1);
        // Reading a global that is not there is an error; so is writing any.
        stack.push_copy(Stack::GLOBALS);
        set_strict(stack);
        for name in
            ["string", "table", "math", "os", "coroutine", "bit", "struct", "cjson", "cmsgpack", "redis"]
        {
            assert_eq!(stack.field(-1, name), Type::Table, "{name}");
            stack.set_readonly(-1, true);
            stack.pop(1);
        }
        stack.set_readonly(-1, true);
        stack.pop(1);
        let load_api = (kind == Kind::Functions).then(|| {
            stack.push_table(0, 1);
            stack.push_table(0, 10);
            set_functions(stack, &[("register_function", function::register), redis::LOG]);
            set_constants(stack, options);
            set_strict(stack);
            stack.set_readonly(-1, true);
            stack.set_field(-2, "redis");
            set_strict(stack);
            stack.set_readonly(-1, true);
            stack.keep()
        });
        stack.push_function(redis::handle_error, 0);
        let lists = ["KEYS", "ARGV"].map(|name| {
            stack.push_bytes(name);
            stack.keep()
        });
        assert_eq!(stack.top(), 1, "the error handler is the only value that stays");
        lua.reset_collector(true);
        State { lua, settings, lists, load_api }
    }

    /// Calls the function on top of the stack, with `args` arguments above it, for `host`. `after` is done with the
    /// single result on top. Everything is as before afterwards.
    fn run(
        &mut self,
        args: usize,
        read_only: bool,
        host: &mut dyn Host,
        after: impl FnOnce(&mut Stack, &mut Context) -> Outcome,
    ) -> Outcome {
        let (mut stack, cx) = self.lua.parts();
        stack.push_kept(&self.settings);
        stack.cell(-1, |settings: &mut Settings| *settings = Settings::default());
        stack.pop(1);
        cx.begin(host, read_only);
        let result = self.lua.call(args, Some(1), 1);
        let (mut stack, cx) = self.lua.parts();
        let outcome = match result {
            Ok(()) => after(&mut stack, cx),
            Err(Failed::Abort) => Outcome::Stopped(cx.stopped.unwrap_or(Stopped::Killed)),
            Err(failed) => {
                if failed == Failed::Memory {
                    cx.raised_at = None;
                }
                Outcome::Failed(error_of(&mut stack, cx))
            }
        };
        cx.end();
        stack.set_top(1);
        let sweep = self.lua.used() > SWEPT_BEYOND;
        if sweep {
            let mut stack = self.lua.stack();
            set_keys(&mut stack, &self.lists, &[], &[]);
        }
        self.lua.reset_collector(sweep);
        outcome
    }
}

/// How a protected call ended.
enum Outcome {
    Done,
    Failed(Problem),
    Stopped(Stopped),
}

/// An error that nobody has caught.
struct Problem {
    text: Vec<u8>,
    /// It is no error of a script's but of the engine: memory, or an error in the error handler.
    engine: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Scripts,
    Functions,
}

/// Adds functions to the table on top.
fn set_functions(stack: &mut Stack, functions: &[(&str, Function)]) {
    for (name, function) in functions {
        stack.push_function(*function, 0);
        stack.set_field(-2, name);
    }
}

/// Adds to the table on top what also libraries have while they are loaded.
fn set_constants(stack: &mut Stack, options: &Options) {
    for (name, number) in redis::LOG_LEVELS {
        stack.push_number(*number);
        stack.set_field(-2, name);
    }
    stack.push_bytes(options.version);
    stack.set_field(-2, "REDIS_VERSION");
    stack.push_number(f64::from(options.version_number));
    stack.set_field(-2, "REDIS_VERSION_NUM");
}

/// Reading a field that is not in the table on top becomes an error.
fn set_strict(stack: &mut Stack) {
    stack.push_table(0, 1);
    stack.push_function(redis::missing_global, 0);
    stack.set_field(-2, "__index");
    stack.set_readonly(-1, true);
    stack.set_metatable(-2);
}

/// Sets KEYS and ARGV, which are globals of scripts. The tables of the last run are filled again if they still look as
/// they did: nothing that lives on refers to them, because a script can only write to its own values and to these two,
/// and one that was put into the other is not left there.
fn set_keys(stack: &mut Stack, names: &[Kept; 2], keys: &[&[u8]], args: &[&[u8]]) {
    for (name, list) in names.iter().zip([keys, args]) {
        stack.push_kept(name);
        stack.raw_get(Stack::GLOBALS);
        let is_filled = stack.type_of(-1) == Type::Table && stack.refill_list(list);
        stack.pop(1);
        if is_filled {
            continue;
        }
        stack.push_kept(name);
        stack.push_list(list);
        stack.set_readonly(Stack::GLOBALS, false);
        assert!(stack.raw_set(Stack::GLOBALS).is_ok(), "a name is a key");
        stack.set_readonly(Stack::GLOBALS, true);
    }
}

/// The uncaught error on top.
fn error_of(stack: &mut Stack, cx: &mut Context) -> Problem {
    if stack.type_of(-1) != Type::Table {
        let text = stack.bytes(-1).unwrap_or(b"execution failure");
        return Problem { text: text[..text.len().min(100)].to_vec(), engine: true };
    }
    if cx.raised_at.is_none() {
        // No Lua function was on the stack; the script may have said where it was.
        stack.field(-1, "source");
        stack.field(-2, "line");
        let source = stack.bytes(-2).map(<[u8]>::to_vec);
        cx.raised_at = source.zip(stack.number(-1).map(|line| line as i32));
        stack.pop(2);
    }
    stack.field(-1, "err");
    let mut text = Vec::new();
    match stack.type_of(-1) {
        Type::String => text.extend_from_slice(stack.bytes(-1).unwrap_or_default()),
        Type::Number => {
            crate::lua::print_number(stack.number(-1).unwrap_or_default(), 14, &mut text);
        }
        _ => text.extend_from_slice(b"ERR unknown error"),
    }
    stack.pop(1);
    Problem { text, engine: false }
}

/// `text script: name, on @user_script:1.`
fn with_place(text: &[u8], name: &str, place: Option<&(Vec<u8>, i32)>) -> Vec<u8> {
    let mut message = text.to_vec();
    if let Some((source, line)) = place {
        message.extend_from_slice(b" script: ");
        message.extend_from_slice(name.as_bytes());
        message.extend_from_slice(b", on ");
        message.extend_from_slice(source);
        message.extend_from_slice(format!(":{line}.").as_bytes());
    }
    message
}

impl State {
    /// Runs the function on top and answers.
    fn answer(
        &mut self,
        args: usize,
        (name, killed): (&dyn Fn() -> String, &str),
        (read_only, proto): (bool, Proto),
        host: &mut dyn Host,
        out: &mut Vec<u8>,
    ) -> Ended {
        let start = out.len();
        let outcome = self.run(args, read_only, host, |stack, cx| {
            let mut writer = ReplyWriter::new(out, proto);
            match reply::write(stack, cx, &mut writer, 0) {
                Ok(()) => Outcome::Done,
                Err(_) => match cx.stopped {
                    Some(stopped) => Outcome::Stopped(stopped),
                    None => Outcome::Failed(Problem { text: b"not enough memory".to_vec(), engine: true }),
                },
            }
        });
        let place = self.lua.parts().1.raised_at.take();
        let (message, ended) = match outcome {
            Outcome::Done => return Ended::Replied,
            Outcome::Stopped(Stopped::Aborted) => {
                out.truncate(start);
                return Ended::Aborted;
            }
            Outcome::Stopped(Stopped::Killed) => {
                (with_place(killed.as_bytes(), &name(), place.as_ref()), Ended::Killed)
            }
            Outcome::Failed(problem) if problem.engine => {
                let text = [b"ERR Error running script ", name().as_bytes(), b", ", &problem.text].concat();
                (text, Ended::Failed)
            }
            Outcome::Failed(problem) => (with_place(&problem.text, &name(), place.as_ref()), Ended::Failed),
        };
        out.truncate(start);
        ReplyWriter::new(out, proto).error(message);
        ended
    }
}

impl Engine {
    /// An engine without scripts.
    pub fn new(options: Options) -> Engine {
        Engine {
            options,
            scripts: State::new(&options, Kind::Scripts),
            compiled: HashMap::default(),
            order: VecDeque::new(),
            functions: None,
            libraries: BTreeMap::new(),
            registered: BTreeMap::new(),
        }
    }

    /// The name of a script: what EVAL computes and SCRIPT LOAD answers (see [`sha1::hex`]).
    pub fn sha(source: &[u8]) -> Sha {
        sha1::sha1(source)
    }

    /// Reads a script's flags without compiling it. The error is a complete error text.
    pub fn flags_of(source: &[u8]) -> Result<ScriptFlags, Vec<u8>> {
        shebang::split(source).map(|(flags, _)| flags)
    }

    /// Compiles a script, unless it is compiled already. `sha` is its name, which the caller has computed. The error
    /// is a complete error text.
    pub fn load(&mut self, sha: &Sha, source: &[u8]) -> Result<ScriptFlags, Vec<u8>> {
        if let Some(script) = self.compiled.get(sha) {
            return Ok(script.flags);
        }
        let (flags, body) = shebang::split(source)?;
        let lua = &mut self.scripts.lua;
        if let Err(failed) = lua.load(body, c"@user_script") {
            let mut stack = lua.stack();
            let problem = error_text(&mut stack, failed);
            stack.set_top(1);
            return Err([b"ERR Error compiling script (new function): ", &problem[..]].concat());
        }
        let function = lua.stack().keep();
        if self.order.len() >= COMPILED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.forget(&oldest);
        }
        self.compiled.insert(*sha, Script { flags, function });
        self.order.push_back(*sha);
        Ok(flags)
    }

    fn forget(&mut self, sha: &Sha) {
        if let Some(script) = self.compiled.remove(sha) {
            self.scripts.lua.stack().let_go(script.function);
        }
    }

    /// The flags of a compiled script.
    pub fn script(&self, sha: &Sha) -> Option<ScriptFlags> {
        self.compiled.get(sha).map(|script| script.flags)
    }

    /// Forgets all scripts, and whatever scripts have left in memory.
    pub fn flush_scripts(&mut self) {
        self.compiled.clear();
        self.order.clear();
        self.scripts = State::new(&self.options, Kind::Scripts);
    }

    /// Runs a compiled script and appends its reply to `out`. [`Ended::Unknown`] asks for [`Engine::load`].
    pub fn run(&mut self, sha: &Sha, call: Call<'_>, host: &mut dyn Host, out: &mut Vec<u8>) -> Ended {
        let Some(script) = self.compiled.get(sha) else { return Ended::Unknown };
        let read_only = call.read_only || script.flags.no_writes;
        let mut stack = self.scripts.lua.stack();
        set_keys(&mut stack, &self.scripts.lists, call.keys, call.args);
        stack.push_kept(&script.function);
        let killed = "ERR Error running script: Script killed by user with SCRIPT KILL.";
        self.scripts.answer(0, (&|| sha1::hex(sha), killed), (read_only, call.proto), host, out)
    }

    /// Reads a library: its name. The error is a complete error text.
    pub fn library_name(source: &[u8]) -> Result<String, Vec<u8>> {
        function::split(source).map(|(name, _)| name)
    }

    /// Loads a library, in place of the one of the same name if `replace`. The host is asked for time and has the log;
    /// the error is a complete error text, and then nothing has changed.
    pub fn load_library(
        &mut self,
        source: &[u8],
        replace: bool,
        host: &mut dyn Host,
    ) -> Result<&Library, Vec<u8>> {
        let (name, body) = function::split(source)?;
        if self.libraries.contains_key(&name) && !replace {
            return Err(format!("ERR Library '{name}' already exists").into_bytes());
        }
        let options = self.options;
        let state = self.functions.get_or_insert_with(|| State::new(&options, Kind::Functions));
        let loaded = state.load_library(body, host)?;
        let taken = loaded.iter().find(|(info, _)| {
            let owner = &self.libraries.get(&name);
            self.registered.contains_key(&info.key())
                && !owner.is_some_and(|own| own.functions.iter().any(|known| known.key() == info.key()))
        });
        let problem = if let Some((info, _)) = taken {
            Some(format!("ERR Function {} already exists", info.name))
        } else if loaded.is_empty() {
            Some("ERR No functions registered".to_owned())
        } else {
            None
        };
        if let Some(problem) = problem {
            for (_, callback) in loaded {
                state.lua.stack().let_go(callback);
            }
            return Err(problem.into_bytes());
        }
        self.delete_library(&name);
        let functions = loaded.iter().map(|(info, _)| info.clone()).collect();
        for (info, callback) in loaded {
            self.registered.insert(info.key(), Registered { info, callback });
        }
        let library = Library { name: name.clone(), source: source.to_vec(), functions };
        Ok(self.libraries.entry(name).insert_entry(library).into_mut())
    }

    /// All libraries, by name.
    pub fn libraries(&self) -> impl Iterator<Item = &Library> {
        self.libraries.values()
    }

    /// A function by its name.
    pub fn function(&self, name: &str) -> Option<&FunctionInfo> {
        self.registered.get(&key_of(name)).map(|registered| &registered.info)
    }

    /// Forgets a library; false if there is none.
    pub fn delete_library(&mut self, name: &str) -> bool {
        let Some(library) = self.libraries.remove(name) else { return false };
        for info in &library.functions {
            if let (Some(registered), Some(state)) =
                (self.registered.remove(&info.key()), &mut self.functions)
            {
                state.lua.stack().let_go(registered.callback);
            }
        }
        true
    }

    /// Forgets all libraries, and whatever their functions have left in memory.
    pub fn flush_libraries(&mut self) {
        self.libraries.clear();
        self.registered.clear();
        self.functions = None;
    }

    /// Runs a function and appends its reply to `out`.
    pub fn run_function(
        &mut self,
        name: &str,
        call: Call<'_>,
        host: &mut dyn Host,
        out: &mut Vec<u8>,
    ) -> Ended {
        let (Some(registered), Some(state)) = (self.registered.get(&key_of(name)), &mut self.functions)
        else {
            return Ended::Unknown;
        };
        let read_only = call.read_only || registered.info.flags.no_writes;
        let mut stack = state.lua.stack();
        stack.push_kept(&registered.callback);
        stack.push_list(call.keys);
        stack.push_list(call.args);
        let killed = "ERR Error running script: Script killed by user with FUNCTION KILL.";
        state.answer(2, (&|| name.to_owned(), killed), (read_only, call.proto), host, out)
    }

    /// Bytes that Lua has: `used_memory_scripts_eval` and `used_memory_functions`.
    pub fn memory(&self) -> (usize, usize) {
        (self.scripts.lua.used(), self.functions.as_ref().map_or(0, |state| state.lua.used()))
    }

    /// How many scripts are compiled.
    pub fn compiled(&self) -> usize {
        self.compiled.len()
    }
}

/// The message of a failed compilation, on top.
fn error_text(stack: &mut Stack, failed: Failed) -> Vec<u8> {
    match failed {
        Failed::Memory => b"not enough memory".to_vec(),
        Failed::Abort => b"compiling it takes too long".to_vec(),
        Failed::Error => stack.bytes(-1).unwrap_or(b"unknown error").to_vec(),
    }
}

impl State {
    /// Runs a library's code and gives what it has registered.
    fn load_library(&mut self, body: &[u8], host: &mut dyn Host) -> Result<function::Registrations, Vec<u8>> {
        if let Err(failed) = self.lua.load(body, c"@user_function") {
            let mut stack = self.lua.stack();
            let problem = error_text(&mut stack, failed);
            stack.set_top(1);
            return Err([b"ERR Error compiling function: ", &problem[..]].concat());
        }
        // The library's own globals: nothing in them, but a metatable that leads to the load-time API, and later to
        // the globals of all functions.
        let (mut stack, cx) = self.lua.parts();
        let load_api = self.load_api.as_ref().expect("functions have one");
        stack.push_table(0, 0);
        stack.push_table(0, 1);
        stack.push_kept(load_api);
        stack.set_field(-2, "__index");
        stack.set_readonly(-1, true);
        stack.push_copy(-1);
        let metatable = stack.keep();
        stack.set_metatable(-2);
        stack.set_readonly(-1, true);
        stack.set_globals_of(-2);
        cx.library = Some(Vec::new());
        let mut registered = Vec::new();
        let outcome = self.run(0, true, host, |_, cx| {
            registered = cx.library.take().unwrap_or_default();
            Outcome::Done
        });
        let (mut stack, cx) = self.lua.parts();
        stack.push_kept(&metatable);
        stack.set_readonly(-1, false);
        stack.push_copy(Stack::GLOBALS);
        stack.set_field(-2, "__index");
        stack.set_readonly(-1, true);
        stack.pop(1);
        stack.let_go(metatable);
        for (_, callback) in cx.library.take().unwrap_or_default() {
            stack.let_go(callback);
        }
        let text = match outcome {
            Outcome::Done => return Ok(registered),
            Outcome::Failed(problem) => problem.text,
            Outcome::Stopped(_) => b"ERR FUNCTION LOAD timeout".to_vec(),
        };
        Err([b"ERR Error registering functions: ", &text[..]].concat())
    }
}
