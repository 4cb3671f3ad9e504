//! From a name, in any case, to its command.
//!
//! A hash table built once, because this is done for every request: the first and last eight bytes of the name,
//! folded to upper case by masking a bit, are multiplied into a place; comparing the whole name decides. A phf or
//! `HashMap` with a general hasher took two to three times as long per lookup.

use std::sync::LazyLock;

use crate::{Command, all};

const PLACES: usize = 2048;
const NAME_LEN_MAX: usize = 64;

/// A command and its number in the order of [`all`], for counters.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The command.
    pub command: &'static Command,
    /// Its number.
    pub index: usize,
}

static TABLE: LazyLock<Vec<Option<Found>>> = LazyLock::new(|| {
    let mut table = vec![None; PLACES];
    for (index, command) in all().enumerate() {
        let mut place = place(command.name.as_bytes());
        while table[place].is_some() {
            place = (place + 1) % PLACES;
        }
        table[place] = Some(Found { command, index });
    }
    table
});

#[inline]
fn place(name: &[u8]) -> usize {
    let (first, last) = match name.len() {
        0..4 => {
            let mut bytes = [0; 8];
            bytes[..name.len()].copy_from_slice(name);
            (u64::from_le_bytes(bytes), 0)
        }
        4..8 => {
            let first = u32::from_le_bytes(name[..4].try_into().expect("four bytes"));
            let last = u32::from_le_bytes(name[name.len() - 4..].try_into().expect("four bytes"));
            (u64::from(first), u64::from(last))
        }
        _ => (
            u64::from_le_bytes(name[..8].try_into().expect("eight bytes")),
            u64::from_le_bytes(name[name.len() - 8..].try_into().expect("eight bytes")),
        ),
    };
    // Clearing bit 5 folds letters to upper case; what it does to digits and dots does not matter here.
    const FOLD: u64 = 0xDFDF_DFDF_DFDF_DFDF;
    let mixed = ((first & FOLD) ^ (last & FOLD).rotate_left(23)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 48) as usize % PLACES
}

/// The command with this name, in any case.
#[inline]
pub fn lookup(name: &[u8]) -> Option<Found> {
    if name.len() > NAME_LEN_MAX {
        return None;
    }
    let table = &**TABLE;
    let mut place = place(name);
    while let Some(found) = table[place] {
        let upper = found.command.name.as_bytes();
        // Most clients write it so, and comparing without regard to case goes byte by byte.
        if upper == name || upper.eq_ignore_ascii_case(name) {
            return Some(found);
        }
        place = (place + 1) % PLACES;
    }
    None
}
