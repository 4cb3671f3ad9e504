//! The command table and the handlers.
