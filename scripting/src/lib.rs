//! Lua scripts and function libraries, as Redis 7 knows them; knows no keys and no server.
//!
//! One [`Engine`] per thread runs scripts for a [`Host`], which is the server as scripts see it. The server keeps the
//! sources of scripts by SHA-1 and of libraries by name for all threads; an engine is told a source when it does not
//! have it compiled ([`Ended::Unknown`]).
//!
//! Why the interpreter is Lua 5.1 with changes of our own (`interpreter/`, made to the sources of the crate `lua-src`
//! while it is built), and not that crate's, or LuaJIT's:
//!
//! * Scripts are strangers' programs, and Lua 5.1.5 lets them load bytecode that is trusted blindly, use memory after
//!   it is freed (CVE-2025-49844), and spend minutes in one call of C. None of this can be mended from outside.
//! * Later versions and LuaJIT differ where clients see it: order of `pairs` (and of JSON's fields), integers, messages.
//!   LuaJIT's compiled code also has no place where a script could be interrupted.
//! * Read-only tables and budgets of work inside the interpreter cost a few instructions; by metatables and hooks they
//!   cost more and are never exact.
//!
//! Reading order: `engine.rs` (running), `redis.rs` (what scripts call), `lua.rs` (why this is safe), `reply.rs`.

mod bit;
mod cjson;
mod context;
mod engine;
mod function;
mod host;
mod lua;
mod msgpack;
mod packing;
mod raise;
mod random;
mod redis;
mod reply;
mod shebang;

pub use engine::{ByScript, COMPILED_MAX, Call, Ended, Engine, Options, Sha};
pub use function::{FunctionInfo, Library, key_of};
pub use host::{AclCheck, CallOutcome, Host, How, LogLevel, Repl, Tick};
pub use shebang::ScriptFlags;
