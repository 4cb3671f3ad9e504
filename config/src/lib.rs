//! Flags, environment and the table behind CONFIG.
//!
//! One table (rows.rs) says what can be configured. Its rows become the command line with
//! [`Config::from_args`], and the values that CONFIG GET and CONFIG SET work on with [`Settings`]. What is
//! read once at start is a typed field of [`Config`], passed down by value; what may change at run time is a
//! getter of [`Settings`], shared by all threads. Nothing is in both places but the port and the master,
//! which the server replaces by what it bound and follows.
//!
//! Beside the table live three things that configuration needs and others use as well: [`glob`], Redis'
//! patterns; [`cron`], when a snapshot is due; [`machine`], how much CPU and memory there is. Neither reads a
//! clock, a file or the environment by itself.
//!
//! Reading order: table.rs (what a row is), rows.rs, value.rs (kinds), cli.rs (the grammar), start.rs,
//! settings.rs.

mod cli;
pub mod cron;
pub mod glob;
mod help;
pub mod machine;
mod rows;
mod settings;
mod start;
mod table;
mod value;

pub use cli::{Action, ConfigError, Origin, Parsed, UnknownFlag};
pub use help::version;
pub use rows::ROWS;
pub use settings::{Change, Changed, SetError, Settings};
pub use start::{ClusterMode, Compression, Config, Initial, LogLevel, LuaFlags, MaxmemoryPolicy, Port};
pub use table::{Area, Effect, Exposure, Row};
pub use value::{Events, HostPort, Kind, OutputLimit, OutputLimits, TEXT_LEN_MAX, Units, Value, parse_bytes};
