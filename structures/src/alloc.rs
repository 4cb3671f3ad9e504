//! What an allocation really costs.
//!
//! The server's allocator (mimalloc) serves sizes from classes: multiples of 16 bytes up to 128, then four classes
//! per doubling; the longest blocks have pages of their own. Byte accounting that ignores the rounding is off by up to a
//! fifth, which is the difference between staying inside `maxmemory` and not. The function here is pure arithmetic, so
//! data structures stay independent of which allocator the binary links.

/// Blocks longer than this have pages of their own, and take those of the system's that they touch.
pub const ALONE_FROM: usize = 64 << 10;
/// What the system gives and takes back.
pub const PAGE: usize = 4 << 10;

/// The bytes that an allocation of `size` bytes takes from the heap. Zero stays zero: empty containers do not
/// allocate.
#[inline]
pub const fn good_size(size: usize) -> usize {
    if size == 0 {
        return 0;
    }
    if size <= 128 {
        return (size + 15) & !15;
    }
    if size > ALONE_FROM {
        return size.next_multiple_of(PAGE);
    }
    // Four classes per power of two: the two bits after the leading one select the class.
    let shift = (usize::BITS - 1 - (size - 1).leading_zeros()) as usize - 2;
    let mask = (1usize << shift) - 1;
    (size + mask) & !mask
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The classes that the allocator documents, at their borders.
    #[test]
    fn classes() {
        for (size, class) in [
            (0, 0),
            (1, 16),
            (16, 16),
            (17, 32),
            (128, 128),
            (129, 160),
            (160, 160),
            (161, 192),
            (256, 256),
            (257, 320),
            (1024, 1024),
            (1025, 1280),
            (4096, 4096),
            (4097, 5120),
            (57_345, ALONE_FROM),
            (ALONE_FROM, ALONE_FROM),
            (ALONE_FROM + 1, ALONE_FROM + PAGE),
            (1_000_000, 1_003_520),
        ] {
            assert_eq!(good_size(size), class, "size {size}");
        }
    }
}
