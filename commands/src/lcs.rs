//! The longest common subsequence of two strings, by the textbook table.
//!
//! Redis keeps the whole table of 32-bit lengths. The way back through it only asks which neighbour was longer, so
//! here a cell is one bit and the lengths live in a single row: a thirty-second of the memory. The time is the same,
//! so the limit on the table's size that Redis has stays, as a limit on the time.

/// A stretch that both strings have, at these offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) a: usize,
    pub(crate) b: usize,
    pub(crate) len: usize,
}

/// What Redis' table for strings of these lengths would take; None if that has no number.
pub(crate) fn table_bytes(a_len: usize, b_len: usize) -> Option<usize> {
    a_len.checked_add(1)?.checked_mul(b_len.checked_add(1)?)?.checked_mul(size_of::<u32>())
}

/// The length alone.
pub(crate) fn len(a: &[u8], b: &[u8]) -> usize {
    fill(a, b, |_, _| {})
}

/// One longest common subsequence, the one that Redis finds, as stretches from the last to the first.
pub(crate) fn runs(a: &[u8], b: &[u8]) -> Vec<Run> {
    let words = b.len().div_ceil(64);
    let mut shorter_a = vec![0u64; a.len() * words];
    fill(a, b, |i, j| shorter_a[i * words + j / 64] |= 1 << (j % 64));
    let mut runs = Vec::new();
    let mut run = Run { a: 0, b: 0, len: 0 };
    let (mut i, mut j) = (a.len(), b.len());
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            (i, j) = (i - 1, j - 1);
            run = Run { a: i, b: j, len: run.len + 1 };
            continue;
        }
        if run.len > 0 {
            runs.push(std::mem::replace(&mut run, Run { a: 0, b: 0, len: 0 }));
        }
        if shorter_a[(i - 1) * words + (j - 1) / 64] >> ((j - 1) % 64) & 1 == 1 {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    if run.len > 0 {
        runs.push(run);
    }
    runs
}

/// Fills the table row by row and answers its last cell. `shorter_a` is told the cells of differing bytes from which
/// the way back leads to a shorter `a`.
#[inline]
fn fill(a: &[u8], b: &[u8], mut shorter_a: impl FnMut(usize, usize)) -> usize {
    let mut row = vec![0u32; b.len()];
    let mut last = 0;
    for (i, &in_a) in a.iter().enumerate() {
        let (mut left, mut diagonal) = (0, 0);
        for (j, (&in_b, cell)) in b.iter().zip(&mut row).enumerate() {
            let above = *cell;
            *cell = if in_a == in_b {
                diagonal + 1
            } else if above > left {
                shorter_a(i, j);
                above
            } else {
                left
            };
            (left, diagonal) = (*cell, above);
        }
        last = left;
    }
    last as usize
}

#[cfg(test)]
mod tests {
    use super::{Run, len, runs, table_bytes};

    /// Against the definition by recursion, for many short strings over two letters.
    #[test]
    fn as_long_as_possible() {
        fn slow(a: &[u8], b: &[u8]) -> usize {
            match (a, b) {
                ([], _) | (_, []) => 0,
                ([x, a @ ..], [y, b @ ..]) if x == y => 1 + slow(a, b),
                ([_, rest_a @ ..], [_, rest_b @ ..]) => slow(rest_a, b).max(slow(a, rest_b)),
            }
        }
        let mut state = 7u64;
        let mut string = |len_max: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (0..state % (len_max + 1)).map(|i| b'a' + (state >> (i + 20)) as u8 % 2).collect::<Vec<u8>>()
        };
        for _ in 0..500 {
            let (a, b) = (string(9), string(9));
            let runs = runs(&a, &b);
            assert_eq!(len(&a, &b), slow(&a, &b), "{a:?} {b:?}");
            assert_eq!(runs.iter().map(|run| run.len).sum::<usize>(), slow(&a, &b));
            for run in &runs {
                assert_eq!(a[run.a..run.a + run.len], b[run.b..run.b + run.len]);
            }
            assert!(runs.windows(2).all(|pair| pair[1].a + pair[1].len <= pair[0].a));
            assert!(runs.windows(2).all(|pair| pair[1].b + pair[1].len <= pair[0].b));
        }
    }

    /// Rows of more than one word.
    #[test]
    fn long_rows() {
        let a: Vec<u8> = (0..300u32).map(|i| (i * i % 251) as u8).collect();
        assert_eq!(runs(&a, &a), [Run { a: 0, b: 0, len: 300 }]);
        assert_eq!(runs(&a[100..], &a), [Run { a: 0, b: 100, len: 200 }]);
        assert_eq!((len(b"", &a), runs(&a, b"")), (0, vec![]));
    }

    #[test]
    fn sizes_that_have_no_number() {
        assert_eq!(table_bytes(1, 2), Some(24));
        assert_eq!(table_bytes(1 << 40, 1 << 40), None);
        assert_eq!(table_bytes(usize::MAX, 0), None);
    }
}
