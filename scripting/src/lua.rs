//! The Lua interpreter behind a safe face. The only `unsafe` module of this crate.
//!
//! Lua reports errors with `longjmp`, which would jump over Rust frames and their destructors. So Rust code never calls
//! anything that can throw, by one rule: **a state is either in Lua mode or in Rust mode** (`Shared::in_lua`).
//!
//! * In Rust mode the allocator never refuses. What is left of Lua's errors are misuses (a table indexed by nil, an
//!   invalid index, a full stack), and [`Stack`] checks for those before it calls. It offers nothing that runs
//!   metamethods.
//! * In Lua mode the allocator refuses what goes beyond the limit, and Lua throws as it likes: between the `lua_pcall`
//!   that entered Lua mode and the throw there are only frames of C.
//! * [`enter`] is where Lua calls Rust, and the only place where Rust throws: its frame owns nothing by then.
//!
//! Memory that Rust mode has taken beyond the limit is noticed when it returns to Lua ([`enter`]), and in loops by
//! [`Stack::check_memory`].
//!
//! The C library is Lua 5.1.5 with the changes that `interpreter/edits.rs` lists.

#![expect(unsafe_code, reason = "the interface of the C library")]

use crate::context::Context;
use crate::raise::Raise;
use std::alloc::Layout;
use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_char, c_int, c_void};
use std::ptr::NonNull;

/// The C API, as `lua.h` and `lauxlib.h` declare it. Whatever may throw is `C-unwind`.
mod ffi {
    use std::ffi::{c_char, c_int, c_void};

    #[repr(C)]
    pub struct State {
        _opaque: [u8; 0],
    }

    pub type CFunction = unsafe extern "C-unwind" fn(*mut State) -> c_int;
    pub type Alloc = unsafe extern "C" fn(*mut c_void, *mut c_void, usize, usize) -> *mut c_void;
    pub type Tick = unsafe extern "C" fn(*mut State) -> c_int;

    /// `lua_Debug`.
    #[repr(C)]
    pub struct Debug {
        pub event: c_int,
        pub name: *const c_char,
        pub namewhat: *const c_char,
        pub what: *const c_char,
        pub source: *const c_char,
        pub currentline: c_int,
        pub nups: c_int,
        pub linedefined: c_int,
        pub lastlinedefined: c_int,
        pub short_src: [c_char; 60],
        pub i_ci: c_int,
    }

    pub const REGISTRYINDEX: c_int = -10000;
    pub const GLOBALSINDEX: c_int = -10002;
    pub const GCSTOP: c_int = 0;
    pub const GCCOLLECT: c_int = 2;
    pub const ERRMEM: c_int = 4;
    pub const GO_ON: c_int = 0;
    pub const ABORT: c_int = 1;
    pub const LATER: c_int = 2;

    unsafe extern "C-unwind" {
        pub fn lua_newstate(alloc: Alloc, ud: *mut c_void) -> *mut State;
        pub fn df_close(l: *mut State);
        pub fn lua_gettop(l: *mut State) -> c_int;
        pub fn lua_settop(l: *mut State, index: c_int);
        pub fn lua_pushvalue(l: *mut State, index: c_int);
        pub fn lua_remove(l: *mut State, index: c_int);
        pub fn lua_insert(l: *mut State, index: c_int);
        pub fn lua_checkstack(l: *mut State, extra: c_int) -> c_int;
        pub fn lua_type(l: *mut State, index: c_int) -> c_int;
        pub fn lua_tonumber(l: *mut State, index: c_int) -> f64;
        pub fn lua_isnumber(l: *mut State, index: c_int) -> c_int;
        pub fn lua_toboolean(l: *mut State, index: c_int) -> c_int;
        pub fn lua_tolstring(l: *mut State, index: c_int, len: *mut usize) -> *const c_char;
        pub fn lua_objlen(l: *mut State, index: c_int) -> usize;
        pub fn lua_touserdata(l: *mut State, index: c_int) -> *mut c_void;
        pub fn lua_pushnil(l: *mut State);
        pub fn lua_pushnumber(l: *mut State, number: f64);
        pub fn lua_pushlstring(l: *mut State, bytes: *const c_char, len: usize);
        pub fn lua_pushcclosure(l: *mut State, function: CFunction, upvalues: c_int);
        pub fn lua_pushboolean(l: *mut State, value: c_int);
        pub fn lua_pushlightuserdata(l: *mut State, pointer: *mut c_void);
        pub fn lua_newuserdata(l: *mut State, size: usize) -> *mut c_void;
        pub fn lua_rawget(l: *mut State, index: c_int);
        pub fn lua_rawgeti(l: *mut State, index: c_int, n: c_int);
        pub fn lua_createtable(l: *mut State, array: c_int, records: c_int);
        pub fn lua_rawset(l: *mut State, index: c_int);
        pub fn lua_rawseti(l: *mut State, index: c_int, n: c_int);
        pub fn lua_setmetatable(l: *mut State, index: c_int) -> c_int;
        pub fn lua_setfenv(l: *mut State, index: c_int) -> c_int;
        pub fn lua_call(l: *mut State, args: c_int, results: c_int);
        pub fn lua_pcall(l: *mut State, args: c_int, results: c_int, handler: c_int) -> c_int;
        pub fn lua_gc(l: *mut State, what: c_int, data: c_int) -> c_int;
        pub fn lua_error(l: *mut State) -> c_int;
        pub fn lua_next(l: *mut State, index: c_int) -> c_int;
        pub fn lua_getstack(l: *mut State, level: c_int, ar: *mut Debug) -> c_int;
        pub fn lua_getinfo(l: *mut State, what: *const c_char, ar: *mut Debug) -> c_int;
        pub fn luaL_loadbuffer(l: *mut State, text: *const c_char, len: usize, name: *const c_char) -> c_int;
        pub fn luaL_ref(l: *mut State, table: c_int) -> c_int;
        pub fn luaL_unref(l: *mut State, table: c_int, reference: c_int);
        pub fn luaopen_base(l: *mut State) -> c_int;
        pub fn luaopen_table(l: *mut State) -> c_int;
        pub fn luaopen_string(l: *mut State) -> c_int;
        pub fn luaopen_math(l: *mut State) -> c_int;
        // What `interpreter/damselfly.h` adds.
        pub fn df_abort(l: *mut State);
        pub fn df_room(l: *mut State, size: c_int);
        pub fn df_set_text(l: *mut State, index: c_int, n: c_int, text: *const c_char, len: usize);
        pub fn df_work(l: *mut State, units: usize);
    }
    unsafe extern "C" {
        pub fn lua_getallocf(l: *mut State, ud: *mut *mut c_void) -> Alloc;
        pub fn df_set_readonly(l: *mut State, index: c_int, readonly: c_int);
        pub fn df_is_list(l: *mut State, index: c_int, len: c_int) -> c_int;
        pub fn df_reset_gc(l: *mut State);
        pub fn df_set_tick(l: *mut State, tick: Tick);
        pub fn df_set_aborting(l: *mut State, aborting: c_int);
        pub fn df_is_aborting(l: *mut State) -> c_int;
        pub fn df_is_due(l: *mut State) -> c_int;
        pub fn df_settle(l: *mut State);
        pub fn df_set_gc_limit(l: *mut State, limit: usize);
        // The C library's, because Lua's own printing and reading of numbers is defined by them.
        pub fn snprintf(to: *mut c_char, size: usize, format: *const c_char, ...) -> c_int;
        pub fn strtod(text: *const c_char, end: *mut *mut c_char) -> f64;
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// No value at that index: an argument that was not given.
    None,
    Nil,
    Boolean,
    LightUserdata,
    Number,
    String,
    Table,
    Function,
    Userdata,
    Thread,
}

impl Type {
    /// As Lua's messages call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Type::None => "no value",
            Type::Nil => "nil",
            Type::Boolean => "boolean",
            Type::LightUserdata | Type::Userdata => "userdata",
            Type::Number => "number",
            Type::String => "string",
            Type::Table => "table",
            Type::Function => "function",
            Type::Thread => "thread",
        }
    }
}

/// A function that scripts can call: arguments are on the stack, the number of results comes back.
pub(crate) type Function = fn(&mut Stack, &mut Context) -> Result<usize, Raise>;

/// Why a protected call has failed. The error's value is on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// An ordinary error.
    Error,
    /// The limit of memory.
    Memory,
    /// An error that no script can catch.
    Abort,
}

/// What a state's callbacks find by the allocator's argument.
struct Shared {
    /// Which mode the state is in; see the head.
    in_lua: Cell<bool>,
    /// Bytes that Lua has.
    used: Cell<usize>,
    /// Bytes that Lua mode may have.
    limit: usize,
    /// Reached as `&mut` by one Rust function at a time: those that Lua calls do not call Lua.
    context: UnsafeCell<Context>,
}

/// Ticks that compiling a text may take: most take none, but jumps out of loops and names of variables can be arranged
/// so that the time is quadratic in the length. A tick is about 50 microseconds.
const COMPILE_TICKS: usize = 1000;
/// One more tick for so many bytes.
const COMPILE_BYTES_PER_TICK: usize = 200;

/// Most arguments of a function of ours. `unpack` gives fewer than 8000, but a script can pass on ever more of them.
const ARGUMENTS_MAX: usize = 100_000;

/// A Lua state: a heap of its own.
pub(crate) struct Lua {
    state: NonNull<ffi::State>,
    shared: NonNull<Shared>,
}

impl Lua {
    /// A state with Lua's own libraries, which may use `limit` bytes.
    pub(crate) fn new(limit: usize, context: Context) -> Lua {
        let shared = Box::new(Shared {
            in_lua: Cell::new(false),
            used: Cell::new(0),
            limit,
            context: UnsafeCell::new(context),
        });
        let shared = NonNull::from(Box::leak(shared));
        // SAFETY: `allocate` does what lua_Alloc demands, and `shared` lives until after df_close (`drop`).
        let state = unsafe { ffi::lua_newstate(allocate, shared.as_ptr().cast()) };
        let state = NonNull::new(state).expect("in Rust mode the allocator never refuses");
        let lua = Lua { state, shared };
        for open in [ffi::luaopen_base, ffi::luaopen_table, ffi::luaopen_string, ffi::luaopen_math] {
            // SAFETY: the openers need a little stack, which a new state has, and only throw for want of memory, of
            // which there is no want in Rust mode. They call no Rust function.
            unsafe {
                ffi::lua_pushcclosure(state.as_ptr(), open, 0);
                ffi::lua_call(state.as_ptr(), 0, 0);
            }
        }
        // SAFETY: plain setters.
        unsafe {
            ffi::df_set_tick(state.as_ptr(), tick);
            ffi::df_set_gc_limit(state.as_ptr(), limit / 2);
        }
        lua
    }

    /// The stack of the main thread, and what functions share. Not while a script runs, which the borrow ensures.
    pub(crate) fn parts(&mut self) -> (Stack, &mut Context) {
        // SAFETY: `shared` is valid until drop; `&mut self` excludes any other reference to the context, because
        // the ones made by callbacks end before the protected call that made them possible returns.
        (Stack { state: self.state }, unsafe { &mut *self.shared.as_ref().context.get() })
    }

    /// Only the stack.
    pub(crate) fn stack(&mut self) -> Stack {
        Stack { state: self.state }
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        // SAFETY: valid until drop.
        unsafe { self.shared.as_ref() }.used.get()
    }

    /// Compiles `text` under the name `name` and pushes the function, or the error's message.
    pub(crate) fn load(&mut self, text: &[u8], name: &std::ffi::CStr) -> Result<(), Failed> {
        let mut stack = self.stack();
        stack.room(2);
        self.parts().1.compiling = Some(COMPILE_TICKS + text.len() / COMPILE_BYTES_PER_TICK);
        let shared = self.shared;
        // SAFETY: valid until drop. luaL_loadbuffer catches what the parser throws.
        let status = unsafe {
            shared.as_ref().in_lua.set(true);
            let status =
                ffi::luaL_loadbuffer(self.state.as_ptr(), text.as_ptr().cast(), text.len(), name.as_ptr());
            shared.as_ref().in_lua.set(false);
            status
        };
        self.parts().1.compiling = None;
        self.outcome(status)
    }

    /// Calls the function below the `args` topmost values. Its results, or the error, take their place. `handler` is
    /// where on the stack there is a function that is given the error first, or 0.
    pub(crate) fn call(&mut self, args: usize, results: Option<usize>, handler: c_int) -> Result<(), Failed> {
        let mut stack = self.stack();
        assert!(stack.top() > args, "a function and its arguments");
        stack.room(results.unwrap_or(0) + 1);
        let results = results.map_or(-1, |results| results as c_int);
        // SAFETY: `shared` is valid until drop. The function and its arguments are there. Everything that is thrown is
        // caught by lua_pcall; until then there are frames of C, and those of `enter`, which own nothing when they
        // throw. `&mut self` is not used meanwhile, and callbacks reach the context through the pointer only.
        let status = unsafe {
            self.shared.as_ref().in_lua.set(true);
            let status = ffi::lua_pcall(self.state.as_ptr(), args as c_int, results, handler);
            self.shared.as_ref().in_lua.set(false);
            status
        };
        self.outcome(status)
    }

    fn outcome(&mut self, status: c_int) -> Result<(), Failed> {
        // SAFETY: plain getter and setter.
        let aborted = unsafe { ffi::df_is_aborting(self.state.as_ptr()) } != 0;
        if aborted {
            // SAFETY: as above. Nothing runs any more that could catch.
            unsafe { ffi::df_set_aborting(self.state.as_ptr(), 0) };
        }
        match status {
            0 => Ok(()),
            _ if aborted => Err(Failed::Abort),
            ffi::ERRMEM => Err(Failed::Memory),
            _ => Err(Failed::Error),
        }
    }

    /// Takes back what scripts can do to the collector, and gives it a full turn if `collect`.
    pub(crate) fn reset_collector(&mut self, collect: bool) {
        let state = self.state.as_ptr();
        // SAFETY: collecting calls no script: only userdata has finalisers, and scripts cannot make any.
        unsafe {
            if collect {
                ffi::lua_gc(state, ffi::GCCOLLECT, 0);
            }
            ffi::df_reset_gc(state);
        }
    }

    /// No collection until [`Lua::reset_collector`]: while the sandbox is built.
    pub(crate) fn stop_collector(&mut self) {
        // SAFETY: a plain setter.
        unsafe { ffi::lua_gc(self.state.as_ptr(), ffi::GCSTOP, 0) };
    }
}

impl Drop for Lua {
    fn drop(&mut self) {
        // SAFETY: both were made by `new` and nobody else has them. The allocator needs `shared` until df_close is
        // over.
        unsafe {
            ffi::df_close(self.state.as_ptr());
            drop(Box::from_raw(self.shared.as_ptr()));
        }
    }
}

/// Lua's allocator: Rust's, counted.
///
/// # Safety
/// `ud` is a `Shared`; `block` and `old` are what an earlier call gave and was asked for.
unsafe extern "C" fn allocate(ud: *mut c_void, block: *mut c_void, old: usize, new: usize) -> *mut c_void {
    /// Lua wants the alignment of a double and a pointer.
    const ALIGN: usize = 16;
    // SAFETY: `Lua::new` has passed a Shared that outlives the state.
    let shared = unsafe { &*ud.cast::<Shared>() };
    let used = shared.used.get() - if block.is_null() { 0 } else { old };
    if new > old && shared.in_lua.get() && used.saturating_add(new) > shared.limit {
        return std::ptr::null_mut();
    }
    let Ok(layout) = Layout::from_size_align(new, ALIGN) else { return std::ptr::null_mut() };
    // SAFETY: `old` bytes at `block` were allocated here with the same alignment; sizes are not zero where the
    // allocator is called.
    let place = unsafe {
        match (block.is_null(), new) {
            (true, 0) => std::ptr::null_mut(),
            (true, _) => std::alloc::alloc(layout),
            (false, 0) => {
                std::alloc::dealloc(block.cast(), Layout::from_size_align_unchecked(old, ALIGN));
                std::ptr::null_mut()
            }
            (false, _) => {
                std::alloc::realloc(block.cast(), Layout::from_size_align_unchecked(old, ALIGN), new)
            }
        }
    };
    if place.is_null() && new > 0 {
        if !shared.in_lua.get() {
            std::alloc::handle_alloc_error(layout);
        }
        return std::ptr::null_mut();
    }
    shared.used.set(used + new);
    place.cast()
}

/// The `Shared` of a state.
fn shared_of<'a>(state: *mut ffi::State) -> &'a Shared {
    let mut ud = std::ptr::null_mut();
    // SAFETY: the state is alive, as its pointer is only had from itself or from a `Lua`; then its `Shared` is, too. The
    // lifetime ends with the callback that asks.
    unsafe {
        ffi::lua_getallocf(state, &raw mut ud);
        &*ud.cast::<Shared>()
    }
}

/// Called by the interpreter when a budget of work is used up: whether the script has to end.
///
/// # Safety
/// Called by the interpreter only.
unsafe extern "C" fn tick(state: *mut ffi::State) -> c_int {
    let shared = shared_of(state);
    if !shared.in_lua.get() {
        return ffi::LATER;
    }
    // SAFETY: in Lua mode no Rust function is under way that could have the context.
    let context = unsafe { &mut *shared.context.get() };
    let stop = context.tick();
    if stop && let Some(state) = NonNull::new(state) {
        let stack = Stack { state };
        let place = (0..2).find_map(|level| stack.position(level).filter(|position| !position.native));
        context.raised_at = place.map(|position| (position.source, position.line));
    }
    if stop { ffi::ABORT } else { ffi::GO_ON }
}

/// What [`enter`] does when the Rust function is over.
enum Leave {
    Return(c_int),
    Throw,
    Abort,
}

/// Where Lua calls Rust: the first upvalue is the [`Function`].
///
/// # Safety
/// Called by the interpreter, with a closure that `push_function` has made.
unsafe extern "C-unwind" fn enter(state: *mut ffi::State) -> c_int {
    let shared = shared_of(state);
    shared.in_lua.set(false);
    let leave = {
        let state = NonNull::new(state).expect("Lua calls with its state");
        let mut stack = Stack { state };
        // SAFETY: the upvalue was made from a Function by `push_function`, and scripts cannot replace it.
        let function = unsafe {
            let upvalue = ffi::lua_touserdata(state.as_ptr(), Stack::upvalue(1));
            std::mem::transmute::<*mut c_void, Function>(upvalue)
        };
        // SAFETY: Lua mode was left a moment ago, so no other Rust function is under way.
        let context = unsafe { &mut *shared.context.get() };
        let called = if stack.top() > ARGUMENTS_MAX {
            // The error needs room, too.
            stack.set_top(0);
            Err(Raise::text("too many arguments"))
        } else {
            function(&mut stack, context)
        };
        match called.and_then(|results| stack.check_memory().map(|()| results)) {
            Ok(results) => Leave::Return(results as c_int),
            Err(raise) => {
                if raise.push(&mut stack) {
                    Leave::Throw
                } else {
                    Leave::Abort
                }
            }
        }
    };
    shared.in_lua.set(true);
    // SAFETY: the error's value is on top. This frame and the ones between here and lua_pcall own nothing.
    unsafe {
        match leave {
            Leave::Return(results) => results,
            Leave::Throw => ffi::lua_error(state),
            Leave::Abort => {
                ffi::df_abort(state);
                0
            }
        }
    }
}

/// The stack of a Lua thread, in Rust mode. Indices are Lua's: 1 is the first argument, -1 the top.
pub(crate) struct Stack {
    state: NonNull<ffi::State>,
}

impl Stack {
    /// All values live in tables: the globals.
    pub(crate) const GLOBALS: c_int = ffi::GLOBALSINDEX;

    /// The index of an upvalue of the function that runs.
    pub(crate) const fn upvalue(n: c_int) -> c_int {
        ffi::GLOBALSINDEX - n
    }

    fn raw(&self) -> *mut ffi::State {
        self.state.as_ptr()
    }

    /// How many values there are.
    pub(crate) fn top(&self) -> usize {
        // SAFETY: no conditions.
        unsafe { ffi::lua_gettop(self.raw()) as usize }
    }

    /// Asserts that an index refers to a value (or is one of the special ones).
    fn at(&self, index: c_int) -> c_int {
        let top = self.top() as c_int;
        let real = (index >= 1 && index <= top) || (index < 0 && index >= -top);
        assert!(real || index <= ffi::REGISTRYINDEX, "index {index} of {top}");
        index
    }

    /// Drops or adds nils until there are `top` values.
    pub(crate) fn set_top(&mut self, top: usize) {
        if top > self.top() {
            self.room(top - self.top());
        }
        // SAFETY: there is room.
        unsafe { ffi::lua_settop(self.raw(), top as c_int) };
    }

    /// Drops the `count` topmost values.
    pub(crate) fn pop(&mut self, count: usize) {
        let top = self.top();
        assert!(count <= top);
        self.set_top(top - count);
    }

    /// Room for `count` more values, or an error: scripts can nest values deeper than Lua's stack allows.
    pub(crate) fn ensure(&mut self, count: usize) -> Result<(), Raise> {
        // SAFETY: in Rust mode growing does not fail.
        let ok = count < 10_000 && unsafe { ffi::lua_checkstack(self.raw(), count as c_int) } != 0;
        if ok { Ok(()) } else { Err(Raise::text("stack overflow")) }
    }

    /// Room for values whose number scripts do not choose, however many arguments there are.
    pub(crate) fn room(&mut self, count: usize) {
        assert!(count < 10_000, "scripts do not choose the number");
        // SAFETY: in Rust mode growing does not fail, so nothing is thrown; and what it grows to is far from where sizes
        // overflow, as a function has ARGUMENTS_MAX arguments and values nested in each other to bounded depths.
        unsafe { ffi::df_room(self.raw(), count as c_int) };
    }

    /// What is at an index, which may be beyond the arguments.
    pub(crate) fn type_of(&self, index: c_int) -> Type {
        if index < 0 {
            self.at(index);
        }
        // SAFETY: positive indices may be anything, negative ones are checked.
        match unsafe { ffi::lua_type(self.raw(), index) } {
            0 => Type::Nil,
            1 => Type::Boolean,
            2 => Type::LightUserdata,
            3 => Type::Number,
            4 => Type::String,
            5 => Type::Table,
            6 => Type::Function,
            7 => Type::Userdata,
            8 => Type::Thread,
            _ => Type::None,
        }
    }

    /// A number, which is not the text of one.
    pub(crate) fn number(&self, index: c_int) -> Option<f64> {
        if self.type_of(index) != Type::Number {
            return None;
        }
        // SAFETY: a valid index.
        Some(unsafe { ffi::lua_tonumber(self.raw(), index) })
    }

    /// A number, or text that reads as one, as Lua's functions take them.
    pub(crate) fn to_number(&self, index: c_int) -> Option<f64> {
        match self.type_of(index) {
            // SAFETY: valid indices. Texts are read, not converted in place.
            Type::Number | Type::String => unsafe {
                (ffi::lua_isnumber(self.raw(), index) != 0).then(|| ffi::lua_tonumber(self.raw(), index))
            },
            _ => None,
        }
    }

    /// Everything but nil and false is true.
    pub(crate) fn truth(&self, index: c_int) -> bool {
        self.type_of(index);
        // SAFETY: as for lua_type.
        unsafe { ffi::lua_toboolean(self.raw(), index) != 0 }
    }

    /// The bytes of a string, which is not a number. They are borrowed from the stack's slot.
    pub(crate) fn bytes(&self, index: c_int) -> Option<&[u8]> {
        if self.type_of(index) != Type::String {
            return None;
        }
        let mut len = 0;
        // SAFETY: a string at a valid index; it stays where it is while a slot refers to it, and slots change through
        // `&mut self` only, which the result's lifetime excludes.
        unsafe {
            let start = ffi::lua_tolstring(self.raw(), index, &raw mut len);
            Some(std::slice::from_raw_parts(start.cast(), len))
        }
    }

    /// Whether it is the pointer that stands for JSON's null.
    pub(crate) fn is_null_pointer(&self, index: c_int) -> bool {
        // SAFETY: valid index, checked type.
        self.type_of(index) == Type::LightUserdata
            && unsafe { ffi::lua_touserdata(self.raw(), index) }.is_null()
    }

    /// The border of a table, or 0.
    pub(crate) fn len(&self, index: c_int) -> usize {
        match self.type_of(index) {
            // SAFETY: a table or string: nothing is converted.
            Type::Table | Type::String => unsafe { ffi::lua_objlen(self.raw(), index) },
            _ => 0,
        }
    }

    pub(crate) fn push_nil(&mut self) {
        self.room(1);
        // SAFETY: there is room.
        unsafe { ffi::lua_pushnil(self.raw()) };
    }

    pub(crate) fn push_bool(&mut self, value: bool) {
        self.room(1);
        // SAFETY: there is room.
        unsafe { ffi::lua_pushboolean(self.raw(), c_int::from(value)) };
    }

    pub(crate) fn push_number(&mut self, number: f64) {
        self.room(1);
        // SAFETY: there is room.
        unsafe { ffi::lua_pushnumber(self.raw(), number) };
    }

    pub(crate) fn push_bytes(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.room(1);
        // SAFETY: there is room, and in Rust mode memory.
        unsafe { ffi::lua_pushlstring(self.raw(), bytes.as_ptr().cast(), bytes.len()) };
    }

    /// Another reference to a value.
    pub(crate) fn push_copy(&mut self, index: c_int) {
        self.room(1);
        // SAFETY: there is room; the index is valid.
        unsafe { ffi::lua_pushvalue(self.raw(), self.at(index)) };
    }

    pub(crate) fn push_null_pointer(&mut self) {
        self.room(1);
        // SAFETY: there is room.
        unsafe { ffi::lua_pushlightuserdata(self.raw(), std::ptr::null_mut()) };
    }

    /// A function with the topmost `upvalues` values as its upvalues 2 and so on.
    pub(crate) fn push_function(&mut self, function: Function, upvalues: usize) {
        assert!(upvalues <= self.top() && upvalues < 200);
        self.room(1);
        // SAFETY: there is room, and the values are there. `enter` turns the pointer back.
        unsafe {
            ffi::lua_pushlightuserdata(self.raw(), function as *mut c_void);
            if upvalues > 0 {
                ffi::lua_insert(self.raw(), -(upvalues as c_int) - 1);
            }
            ffi::lua_pushcclosure(self.raw(), enter, upvalues as c_int + 1);
        }
    }

    /// A table with room for so many elements and fields.
    pub(crate) fn push_table(&mut self, array: usize, fields: usize) {
        /// What a length in untrusted bytes can make us reserve; more grows as it is filled.
        const RESERVED_MAX: usize = 1024;
        self.room(1);
        let (array, fields) = (array.min(RESERVED_MAX) as c_int, fields.min(RESERVED_MAX) as c_int);
        // SAFETY: there is room, and in Rust mode memory.
        unsafe { ffi::lua_createtable(self.raw(), array, fields) };
    }

    /// Pushes a list of strings.
    pub(crate) fn push_list(&mut self, list: &[&[u8]]) {
        self.push_table(list.len(), 0);
        for (i, bytes) in list.iter().enumerate() {
            self.push_bytes(bytes);
            self.raw_seti(-2, i + 1);
        }
    }

    /// Makes the table on top what [`Stack::push_list`] pushes; false if it is no list of that length any more, and
    /// then nothing has changed.
    pub(crate) fn refill_list(&mut self, list: &[&[u8]]) -> bool {
        /// Longer ones are not worth asking for.
        const LEN_MAX: usize = 64;
        self.table(-1);
        self.room(1);
        // SAFETY: a table is on top, and there is room for another reference to it.
        let is_list =
            list.len() <= LEN_MAX && unsafe { ffi::df_is_list(self.raw(), -1, list.len() as c_int) } != 0;
        if is_list {
            for (i, bytes) in list.iter().enumerate() {
                // SAFETY: as above. The table has as many places, which was asked a moment ago; a collection, which
                // the call may start, changes no table's length and calls no script.
                unsafe {
                    ffi::df_set_text(self.raw(), -1, i as c_int + 1, bytes.as_ptr().cast(), bytes.len());
                }
            }
        }
        is_list
    }

    /// Memory that a function's upvalue keeps alive: a number that Rust code reads and writes through
    /// [`Stack::cell`].
    pub(crate) fn push_cell<T: Copy + 'static>(&mut self, value: T) {
        const { assert!(align_of::<T>() <= 8) };
        self.room(1);
        // SAFETY: there is room; userdata is aligned for doubles and pointers, and big enough.
        unsafe { ffi::lua_newuserdata(self.raw(), size_of::<T>()).cast::<T>().write(value) };
    }

    /// What [`Stack::push_cell`] has made: copied, changed by `work`, written back.
    pub(crate) fn cell<T: Copy + 'static, R>(&mut self, index: c_int, work: impl FnOnce(&mut T) -> R) -> R {
        assert!(self.type_of_any(index) == Type::Userdata && self.size_of_any(index) == size_of::<T>());
        // SAFETY: userdata is made by push_cell only, and its size tells that it is of this type (the types in use
        // differ in size). `work` has a copy, so nothing it does can alias.
        unsafe {
            let place = ffi::lua_touserdata(self.raw(), index).cast::<T>();
            let mut value = place.read();
            let result = work(&mut value);
            place.write(value);
            result
        }
    }

    fn type_of_any(&self, index: c_int) -> Type {
        // SAFETY: upvalue indices are acceptable, others are checked by `type_of`.
        if index < ffi::GLOBALSINDEX && unsafe { ffi::lua_type(self.raw(), index) } == 7 {
            return Type::Userdata;
        }
        if index < ffi::GLOBALSINDEX { Type::None } else { self.type_of(index) }
    }

    fn size_of_any(&self, index: c_int) -> usize {
        // SAFETY: an acceptable index, and a userdata, whose length is its size.
        unsafe { ffi::lua_objlen(self.raw(), index) }
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, index: c_int) {
        // SAFETY: a valid index of the stack.
        unsafe { ffi::lua_remove(self.raw(), self.at(index)) };
    }

    /// Moves the top to `index`, and what was there up.
    pub(crate) fn insert(&mut self, index: c_int) {
        // SAFETY: a valid index of the stack.
        unsafe { ffi::lua_insert(self.raw(), self.at(index)) };
    }

    /// Replaces the key on top by its value in the table.
    pub(crate) fn raw_get(&mut self, table: c_int) {
        self.table(table);
        // SAFETY: a table, and a key on top.
        unsafe { ffi::lua_rawget(self.raw(), self.at(table)) };
    }

    /// Pushes a field of a table.
    pub(crate) fn field(&mut self, table: c_int, name: &str) -> Type {
        self.push_bytes(name);
        self.raw_get(if table < 0 && table > ffi::REGISTRYINDEX { table - 1 } else { table });
        self.type_of(-1)
    }

    /// Pushes an element of a table.
    pub(crate) fn raw_geti(&mut self, table: c_int, n: usize) {
        self.table(table);
        self.room(1);
        // SAFETY: a table, and room for the value.
        unsafe { ffi::lua_rawgeti(self.raw(), self.at(table), n as c_int) };
    }

    /// `table[key] = value` for the two topmost values, which go. Refuses what is no key; then both remain.
    pub(crate) fn raw_set(&mut self, table: c_int) -> Result<(), Raise> {
        self.table(table);
        match self.type_of(-2) {
            Type::Nil => return Err(Raise::Plain("table index is nil")),
            Type::Number if self.number(-2).is_some_and(f64::is_nan) => {
                return Err(Raise::Plain("table index is NaN"));
            }
            _ => {}
        }
        // SAFETY: a table that this crate has made and not protected (a protected one would throw: it is our bug, and
        // no such table is passed here), a key that can be one, and a value.
        unsafe { ffi::lua_rawset(self.raw(), self.at(table)) };
        Ok(())
    }

    /// `table[n] = top`, which goes.
    pub(crate) fn raw_seti(&mut self, table: c_int, n: usize) {
        self.table(table);
        // SAFETY: as for raw_set.
        unsafe { ffi::lua_rawseti(self.raw(), self.at(table), n as c_int) };
    }

    /// `table[name] = top`, which goes.
    pub(crate) fn set_field(&mut self, table: c_int, name: &str) {
        self.push_bytes(name);
        self.insert(-2);
        let table = if table < 0 && table > ffi::REGISTRYINDEX { table - 1 } else { table };
        assert!(self.raw_set(table).is_ok(), "a name is a key");
    }

    /// Replaces the key on top by the next pair of the table, or by nothing when there is none.
    pub(crate) fn next(&mut self, table: c_int) -> bool {
        self.table(table);
        self.room(1);
        // SAFETY: a table that nobody changes while it is walked: no script runs, and callers do not. So the key is
        // one of its keys, or nil.
        unsafe { ffi::lua_next(self.raw(), self.at(table)) != 0 }
    }

    fn table(&self, index: c_int) {
        assert!(index == ffi::GLOBALSINDEX || self.type_of(index) == Type::Table, "a table at {index}");
    }

    /// Gives the table (or the type of the value, if it is a string) at `index` the metatable on top.
    pub(crate) fn set_metatable(&mut self, index: c_int) {
        assert_eq!(self.type_of(-1), Type::Table);
        // SAFETY: a valid index and a table. Called while the sandbox is built, before anything is protected.
        unsafe { ffi::lua_setmetatable(self.raw(), self.at(index)) };
    }

    /// Gives the function at `index` the globals on top.
    pub(crate) fn set_globals_of(&mut self, index: c_int) {
        assert!(self.type_of(-1) == Type::Table && self.type_of(index) == Type::Function);
        // SAFETY: a function and a table.
        unsafe { ffi::lua_setfenv(self.raw(), self.at(index)) };
    }

    /// Whether scripts, and Rust functions, get an error when they change the table.
    pub(crate) fn set_readonly(&mut self, table: c_int, readonly: bool) {
        self.table(table);
        // SAFETY: a table.
        unsafe { ffi::df_set_readonly(self.raw(), self.at(table), c_int::from(readonly)) };
    }

    /// Keeps the value on top, which goes, under a number.
    pub(crate) fn keep(&mut self) -> Kept {
        assert!(!matches!(self.type_of(-1), Type::Nil | Type::None));
        self.room(2);
        // SAFETY: the registry is a table, the value is not nil, and there is room for what luaL_ref pushes.
        Kept(unsafe { ffi::luaL_ref(self.raw(), ffi::REGISTRYINDEX) })
    }

    /// Pushes what was kept.
    pub(crate) fn push_kept(&mut self, kept: &Kept) {
        self.room(1);
        // SAFETY: the registry is a table; there is room.
        unsafe { ffi::lua_rawgeti(self.raw(), ffi::REGISTRYINDEX, kept.0) };
    }

    /// Lets go of what was kept.
    pub(crate) fn let_go(&mut self, kept: Kept) {
        self.room(2);
        // SAFETY: a number that luaL_ref gave and that is not used again: it is consumed.
        unsafe { ffi::luaL_unref(self.raw(), ffi::REGISTRYINDEX, kept.0) };
    }

    /// Fails if Rust mode has taken more memory than the state may have. For loops that make values.
    pub(crate) fn check_memory(&self) -> Result<(), Raise> {
        let shared = shared_of(self.raw());
        if shared.used.get() <= shared.limit {
            return Ok(());
        }
        // SAFETY: what Rust functions refer to is on the stack, and collecting calls no script.
        unsafe { ffi::lua_gc(self.raw(), ffi::GCCOLLECT, 0) };
        if shared.used.get() <= shared.limit { Ok(()) } else { Err(Raise::Memory) }
    }

    /// Accounts for work that a function does at once; the tick comes at the next pause.
    pub(crate) fn work(&self, units: usize) {
        // SAFETY: in Rust mode `tick` answers LATER, so nothing is thrown.
        unsafe { ffi::df_work(self.raw(), units) };
    }

    /// Whether a tick is due. It is from now on the caller's.
    pub(crate) fn take_tick(&self) -> bool {
        // SAFETY: plain getter and setter.
        unsafe {
            let due = ffi::df_is_due(self.raw()) != 0;
            if due {
                ffi::df_settle(self.raw());
            }
            due
        }
    }

    /// Fails if `bytes` more would be too many.
    pub(crate) fn check_room(&self, bytes: usize) -> Result<(), Raise> {
        let shared = shared_of(self.raw());
        if shared.used.get().saturating_add(bytes) <= shared.limit { Ok(()) } else { Err(Raise::Memory) }
    }

    /// Where the function `level` calls out is now: 0 is the running one.
    pub(crate) fn position(&self, level: c_int) -> Option<Position> {
        let mut debug = std::mem::MaybeUninit::<ffi::Debug>::zeroed();
        // SAFETY: zeroes are a valid lua_Debug; lua_getinfo fills the asked fields with texts that live as long as
        // the function on the stack, and they are copied at once. Neither throws for these fields.
        unsafe {
            let debug = debug.assume_init_mut();
            if ffi::lua_getstack(self.raw(), level, debug) == 0 {
                return None;
            }
            ffi::lua_getinfo(self.raw(), c"nSl".as_ptr(), debug);
            Some(Position {
                native: text_of(debug.what) == b"C",
                name: (!debug.name.is_null()).then(|| text_of(debug.name).to_vec()),
                method: text_of(debug.namewhat) == b"method",
                source: text_of(debug.source).to_vec(),
                short_source: text_of(debug.short_src.as_ptr()).to_vec(),
                line: debug.currentline,
            })
        }
    }
}

/// A value in the registry; see [`Stack::keep`].
#[derive(Debug)]
pub(crate) struct Kept(c_int);

/// Where a function is.
pub(crate) struct Position {
    /// It is not written in Lua.
    pub(crate) native: bool,
    /// What its caller calls it.
    pub(crate) name: Option<Vec<u8>>,
    /// It was called as `object:name()`.
    pub(crate) method: bool,
    /// The name of its chunk.
    pub(crate) source: Vec<u8>,
    /// The same as messages have it.
    pub(crate) short_source: Vec<u8>,
    /// Its current line, or -1.
    pub(crate) line: c_int,
}

/// # Safety
/// A text that ends with a zero and lives long enough, or null.
unsafe fn text_of<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        return b"";
    }
    // SAFETY: passed on to the caller.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_bytes()
}

/// Prints a number with C's `%.<precision>g`, which is how Lua and its libraries print them.
pub(crate) fn print_number(number: f64, precision: usize, out: &mut Vec<u8>) {
    /// Below this, integers have at most 14 digits and print as integers.
    const PLAIN: f64 = 1e14;
    if precision >= 14
        && number.abs() < PLAIN
        && number.trunc() == number
        && (number != 0.0 || number.is_sign_positive())
    {
        out.extend_from_slice(itoa::Buffer::new().format(number as i64).as_bytes());
        return;
    }
    let mut buf = [0u8; 64];
    // SAFETY: the buffer is as long as said, the format takes an int and a double.
    let len = unsafe {
        ffi::snprintf(
            buf.as_mut_ptr().cast(),
            buf.len(),
            c"%.*g".as_ptr(),
            precision.min(17) as c_int,
            number,
        )
    };
    out.extend_from_slice(&buf[..len as usize]);
}

/// Reads a number as C's `strtod` does, and how many bytes of `text` it is.
pub(crate) fn read_number(text: &[u8]) -> (f64, usize) {
    assert_eq!(text.last(), Some(&0), "strtod needs an end");
    let start: *const c_char = text.as_ptr().cast();
    let mut end = std::ptr::null_mut();
    // SAFETY: there is a zero, at the end if not before, and `end` points into the text.
    unsafe {
        let number = ffi::strtod(start, &raw mut end);
        (number, end.offset_from(start) as usize)
    }
}
