//! Collections that choose between a compact and a large form.

pub mod hash;
pub mod set;
pub mod zset;

/// When a collection is small enough for one pack: `*-max-listpack-entries` and `*-max-listpack-value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackLimits {
    /// Most entries.
    pub entries_max: usize,
    /// Longest string in it.
    pub len_max: usize,
}

impl Default for PackLimits {
    fn default() -> PackLimits {
        PackLimits { entries_max: 128, len_max: 64 }
    }
}
