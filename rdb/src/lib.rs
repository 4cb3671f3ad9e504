//! The RDB serialisation format, read and written.
