//! Flags, environment and the table behind CONFIG.
