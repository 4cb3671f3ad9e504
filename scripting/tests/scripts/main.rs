//! The engine from outside, with a fake server.

mod engine;
mod fake;
mod limits;
mod replay;
mod sandbox;
