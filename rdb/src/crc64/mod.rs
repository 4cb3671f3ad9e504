//! CRC-64 as RDB uses it: Jones' polynomial, bits reflected, no inversion at either end.
//!
//! Sixteen tables, so that sixteen bytes cost sixteen independent loads instead of a chain of sixteen dependent
//! ones ("slicing"). 32 KiB of tables fit the first-level cache together with nothing else, so short inputs use
//! the first table alone. Processors that can multiply without carries get the long inputs folded first (fold.rs).

#[cfg(target_arch = "x86_64")]
mod fold;

/// x^64 + the terms of 0xad93d23594c935a9, bit-reversed because the register shifts right.
const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;

static T: [[u64; 256]; 16] = tables();

const fn tables() -> [[u64; 256]; 16] {
    let mut tables = [[0u64; 256]; 16];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut slice = 1;
    while slice < 16 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[slice - 1][byte];
            tables[slice][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        slice += 1;
    }
    tables
}

/// The checksum of what `crc` stands for followed by `bytes`; start with 0.
pub fn crc64(crc: u64, bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        let (rounds, rest) = bytes.as_chunks();
        if let Some(block) = fold::block_for(crc, rounds) {
            return by_tables(by_tables(0, &block), rest);
        }
    }
    by_tables(crc, bytes)
}

fn by_tables(mut crc: u64, bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<16>();
    for block in blocks {
        let (low, high) = block.split_at(8);
        let low = u64::from_le_bytes(low.try_into().expect("half a block")) ^ crc;
        let high = u64::from_le_bytes(high.try_into().expect("half a block"));
        let at = |word: u64, byte: u32| ((word >> (8 * byte)) & 0xff) as usize;
        crc = T[15][at(low, 0)]
            ^ T[14][at(low, 1)]
            ^ T[13][at(low, 2)]
            ^ T[12][at(low, 3)]
            ^ T[11][at(low, 4)]
            ^ T[10][at(low, 5)]
            ^ T[9][at(low, 6)]
            ^ T[8][at(low, 7)]
            ^ T[7][at(high, 0)]
            ^ T[6][at(high, 1)]
            ^ T[5][at(high, 2)]
            ^ T[4][at(high, 3)]
            ^ T[3][at(high, 4)]
            ^ T[2][at(high, 5)]
            ^ T[1][at(high, 6)]
            ^ T[0][at(high, 7)];
    }
    for &byte in rest {
        crc = T[0][((crc ^ u64::from(byte)) & 0xff) as usize] ^ (crc >> 8);
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of the algorithm's published description.
    #[test]
    fn check_value() {
        assert_eq!(crc64(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(crc64(0, b""), 0);
    }

    /// Single bytes, slices and folding agree at every length and at every cut.
    #[test]
    fn the_way_changes_nothing() {
        let bytes: Vec<u8> = (0..700u32).map(|n| (n * 37 + n / 7) as u8).collect();
        let slow = |bytes: &[u8]| bytes.iter().fold(0, |crc, &byte| by_tables(crc, &[byte]));
        for len in 0..bytes.len() {
            assert_eq!(crc64(0, &bytes[..len]), slow(&bytes[..len]));
            assert_eq!(by_tables(0, &bytes[..len]), slow(&bytes[..len]));
            assert_eq!(crc64(crc64(0, &bytes[..len]), &bytes[len..]), slow(&bytes));
        }
    }
}
