//! Finding a byte among about a hundred: the inner loop of every lookup by member.

const LOW_SEVEN: u64 = 0x7f7f_7f7f_7f7f_7f7f;
const ONES: u64 = 0x0101_0101_0101_0101;

/// Calls `found` with the positions of `needle` in order until it answers true; that position is the result.
///
/// Eight bytes per step with plain integers.
#[inline(always)]
pub(super) fn find_byte(hay: &[u8], needle: u8, mut found: impl FnMut(usize) -> bool) -> Option<usize> {
    let pattern = ONES * u64::from(needle);
    let (words, rest) = hay.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let different = u64::from_le_bytes(*word) ^ pattern;
        // The high bit of each byte that is zero; no carry crosses bytes, so there are no false ones.
        let mut zeros = !(((different & LOW_SEVEN) + LOW_SEVEN) | different | LOW_SEVEN);
        while zeros != 0 {
            let here = 8 * at + zeros.trailing_zeros() as usize / 8;
            if found(here) {
                return Some(here);
            }
            zeros &= zeros - 1;
        }
    }
    let base = hay.len() - rest.len();
    (base..hay.len()).find(|&at| hay[at] == needle && found(at))
}

#[cfg(test)]
mod tests {
    use super::find_byte;

    /// Agrees with the plain loop for every length around the chunk size and every position.
    #[test]
    fn agrees_with_a_plain_loop() {
        for len in 0..70 {
            let hay: Vec<u8> = (0..len).map(|i| (i * 5 % 7) as u8).collect();
            for needle in 0..8 {
                let expected: Vec<usize> = (0..len).filter(|&i| hay[i] == needle).collect();
                let mut seen = Vec::new();
                assert_eq!(
                    find_byte(&hay, needle, |at| {
                        seen.push(at);
                        false
                    }),
                    None
                );
                assert_eq!(seen, expected);
                assert_eq!(find_byte(&hay, needle, |_| true), expected.first().copied());
            }
        }
    }
}
