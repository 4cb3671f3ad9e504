//! Bytes to requests, replies to bytes; knows no keys.
