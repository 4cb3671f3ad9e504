//! Values to bytes.

use crate::lzf::Lzf;
use crate::wire::{LZF_INPUT_LEN_MIN, LZF_SAVING_MIN, put_int_string, put_len, put_raw_string};

/// Who is to read what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// An `.rdb` file for Redis 7.0 and later, Valkey, Dragonfly: version 10, LZF strings, a real checksum.
    Redis7_0,
    /// A DUMP payload: the same types.
    Dump,
    /// A `.dfs` file or a full sync: version 9, compressed in blobs instead of strings, long values in chunks.
    Dfs,
}

/// What one writer keeps between values: the target's habits and reusable memory.
pub struct Encoder {
    target: Target,
    lzf: Option<Lzf>,
    packed: Vec<u8>,
}

impl Encoder {
    /// A writer for `target`.
    pub fn new(target: Target) -> Encoder {
        Encoder { target, lzf: None, packed: Vec::new() }
    }

    /// Appends a string in the shortest form the target's readers know.
    pub fn string(&mut self, out: &mut Vec<u8>, string: &[u8]) {
        if put_int_string(out, string) {
            return;
        }
        if self.target != Target::Dfs && string.len() >= LZF_INPUT_LEN_MIN {
            self.packed.clear();
            let lzf = self.lzf.get_or_insert_with(Lzf::new);
            if lzf.compress(string, string.len() - LZF_SAVING_MIN, &mut self.packed) {
                out.push(0xc3);
                put_len(out, self.packed.len() as u64);
                put_len(out, string.len() as u64);
                out.extend_from_slice(&self.packed);
                return;
            }
        }
        put_raw_string(out, string);
    }
}
