//! The size of a radix tree that is not there.
//!
//! Redis keeps the nodes of a stream in a radix tree over the sixteen bytes of their ids, big-endian, and shows how
//! many nodes that has: one for each place where keys part, one for each run of bytes between such places, one for
//! each key. All that follows from the sorted keys.

use super::id::StreamId;

/// Bytes of a key.
const LEN: u32 = 16;

/// Nodes for a run of bytes without a branch: it is one, however long.
fn run(bytes: u32) -> u64 {
    u64::from(bytes > 0)
}

/// Nodes of the tree over these ids, which ascend.
pub(super) fn count(ids: impl Iterator<Item = StreamId>) -> u64 {
    let mut last: Option<u128> = None;
    // The root is there always, and the first key's run begins with it.
    let mut nodes = 1;
    // The depths at which the path to the last key branches, as bits.
    let mut branches = 0u32;
    for id in ids {
        let key = u128::from(id.ms) << 64 | u128::from(id.seq);
        let Some(previous) = last.replace(key) else {
            nodes += 1;
            continue;
        };
        let depth = (previous ^ key).leading_zeros() / 8;
        let deeper = branches >> depth >> 1;
        let above = branches & ((1 << depth) - 1);
        if branches >> depth & 1 == 0 {
            // A run is cut in two with a branch between. Behind a branch it begins one byte later, which the branch
            // has; the first one begins at the root.
            let start = if above == 0 { 0 } else { above.ilog2() + 1 };
            let end = if deeper == 0 { LEN } else { depth + 1 + deeper.trailing_zeros() };
            nodes = nodes + run(depth - start) + 1 + run(end - depth - 1) - run(end - start);
        }
        nodes += run(LEN - depth - 1) + 1;
        branches = above | 1 << depth;
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As XINFO STREAM of redis-server 7.0.15 has it for streams of one entry per node with these ids.
    #[test]
    fn as_redis_counts() {
        let count = |ids: &[(u64, u64)]| count(ids.iter().map(|&(ms, seq)| StreamId { ms, seq }));
        assert_eq!(count(&[]), 1);
        assert_eq!(count(&[(1, 1)]), 2);
        assert_eq!(count(&[(1, 1), (1, 2)]), 4);
        assert_eq!(count(&[(1, 1), (1, 2), (1, 3)]), 5);
        assert_eq!(count(&[(1, 1), (1, 256), (1, 257)]), 7);
        assert_eq!(count(&[(1, 1), (1 << 60, 1)]), 5);
    }
}
