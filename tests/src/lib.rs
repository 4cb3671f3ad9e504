//! Scripts, oracles and scenarios over the whole server.
//!
//! A test for a command is a session in a text file under `commands/`: commands, and what they answer. The same
//! session runs against a real Redis (the *oracle*) and against every way of starting our server; what Redis says,
//! byte for byte, is what we must say. So a wrong belief of the author about Redis fails first, on the oracle, and
//! never becomes a wrong server.
//!
//! Reading order: [`script`] (what a file may contain), [`expect`] (what may stand behind `->`), [`executor`] (who
//! answers), [`bare`] (a shard without a server), [`servers`] (processes), [`run`] (one script on several executors,
//! and how they are compared), [`served`] (what becomes of scripts for commands that we do not have yet).
//! The test targets beside this crate: `scripts.rs` runs the files, `bare.rs` runs them on a bare shard, `coverage.rs`
//! finds commands that no file tests, `protocol.rs` speaks to the socket below the level of commands, `flags.rs` looks
//! at what flags do, `order.rs` and `linear.rs` at what several clients see of each other (with [`client`] and
//! [`history`]).

pub mod bare;
pub mod client;
pub mod executor;
pub mod expect;
pub mod history;
pub mod lex;
pub mod random;
pub mod reply;
pub mod run;
pub mod script;
pub mod served;
pub mod servers;
