//! Compressed runs of opcodes: zstd frames and LZ4 frames.
//!
//! Expanding believes no size: output grows as it is produced, or a stated size is one that so many bytes can amount
//! to; and it stops at the limit. One frame per blob, and all of the blob, because anything else was not written by a
//! server.

use std::hash::Hasher;
use std::io::Read;

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use lz4_flex::frame::FrameDecoder;
use twox_hash::XxHash32;
use zstd::stream::read::Decoder;
use zstd::zstd_safe::{DCtx, DParameter, ResetDirective, find_frame_compressed_size, get_frame_content_size};

use crate::error::ErrorKind;

/// Frames that ask for a larger window are refused before memory is reserved: 2^26 is the limit of the output too.
const ZSTD_WINDOW_LOG_MAX: u32 = 26;

/// How the runs of a dfs file are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// As zstd frames of this level.
    Zstd {
        /// 1 (fast) to 22 (small).
        level: i32,
    },
    /// As LZ4 frames.
    Lz4,
}

/// No block of zstd expands to more than this, and none is shorter than its head and a byte.
const ZSTD_BLOCK_MAX: u64 = 128 << 10;
const ZSTD_BLOCK_LEN_MIN: u64 = 4;

/// Expands runs. What the library needs for a frame is kept for the next one.
#[derive(Default)]
pub(crate) struct Expander {
    zstd: Option<Box<DCtx<'static>>>,
}

impl Expander {
    /// Expands a zstd frame into `out`, at most to `len_max` bytes.
    pub(crate) fn zstd(&mut self, frame: &[u8], len_max: u64, out: &mut Vec<u8>) -> Result<(), ErrorKind> {
        const BAD: ErrorKind = ErrorKind::Blob("zstd frame");
        let context = self.zstd.get_or_insert_with(|| Box::new(DCtx::create()));
        // A frame that was bad may have left it in the midst.
        context.reset(ResetDirective::SessionOnly).map_err(|_| BAD)?;
        let stated = get_frame_content_size(frame).map_err(|_| BAD)?;
        let amounts_to = (frame.len() as u64 / ZSTD_BLOCK_LEN_MIN + 1) * ZSTD_BLOCK_MAX;
        // Where the frame says how long it is, it is taken in one go, without a window beside what it expands to.
        if let Some(len) = stated
            && find_frame_compressed_size(frame) == Ok(frame.len())
        {
            if len > len_max {
                return Err(ErrorKind::TooLarge("content of a blob"));
            }
            if len > amounts_to {
                return Err(BAD);
            }
            // What is in it is overwritten, and need not be cleared.
            out.resize(len as usize, 0);
            return match context.decompress(&mut out[..], frame) {
                Ok(written) if written == out.len() => Ok(()),
                _ => Err(BAD),
            };
        }
        context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).map_err(|_| BAD)?;
        let mut decoder = Decoder::with_context(frame, context).single_frame();
        out.clear();
        decoder.by_ref().take(len_max + 1).read_to_end(out).map_err(|_| BAD)?;
        check(out, len_max, decoder.finish())
    }

    /// Expands an LZ4 frame, in the same way.
    pub(crate) fn lz4(&mut self, frame: &[u8], len_max: u64, out: &mut Vec<u8>) -> Result<(), ErrorKind> {
        expand_lz4(frame, len_max, out)
    }
}

/// What an LZ4 frame begins with.
const LZ4_MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();
/// Format version 1, independent blocks, the size of the content, no checksums: what most writers choose.
const LZ4_PLAIN: u8 = 0b0110_1000;
/// Largest blocks of a frame, by the number that stands for them in the header.
const LZ4_BLOCK_LENS: [(u8, usize); 4] = [(4, 64 << 10), (5, 256 << 10), (6, 1 << 20), (7, 4 << 20)];
/// In a block's length: its bytes are not compressed.
const LZ4_AS_IT_IS: u32 = 1 << 31;
/// No block of LZ4 expands to more than this times its length.
const LZ4_RATIO_MAX: u64 = 255;

/// Magic number, flags, largest block, size of the content, checksum of the three before it.
const LZ4_HEAD_LEN: usize = 15;

fn lz4_head(block_len: u8, content_len: u64) -> [u8; LZ4_HEAD_LEN] {
    let mut head = [0; LZ4_HEAD_LEN];
    head[..4].copy_from_slice(&LZ4_MAGIC);
    (head[4], head[5]) = (LZ4_PLAIN, block_len << 4);
    head[6..14].copy_from_slice(&content_len.to_le_bytes());
    let mut checksum = XxHash32::with_seed(0);
    checksum.write(&head[4..14]);
    head[14] = (checksum.finish() >> 8) as u8;
    head
}

/// Expands an LZ4 frame into `out`, at most to `len_max` bytes.
///
/// The library's reader of frames takes and clears several megabytes for each, which costs more than the decoding; so
/// plain frames are taken apart here, and the library has the rest.
fn expand_lz4(frame: &[u8], len_max: u64, out: &mut Vec<u8>) -> Result<(), ErrorKind> {
    if let Some((head, blocks)) = frame.split_first_chunk::<LZ4_HEAD_LEN>() {
        let content_len = u64::from_le_bytes(head[6..14].try_into().expect("eight bytes"));
        if *head == lz4_head(head[5] >> 4, content_len) {
            return expand_plain_lz4(blocks, content_len, len_max, out);
        }
    }
    expand_any_lz4(frame, len_max, out)
}

fn expand_plain_lz4(blocks: &[u8], len: u64, len_max: u64, out: &mut Vec<u8>) -> Result<(), ErrorKind> {
    const BAD: ErrorKind = ErrorKind::Blob("LZ4 frame");
    if len > len_max {
        return Err(ErrorKind::TooLarge("content of a blob"));
    }
    if len > LZ4_RATIO_MAX * blocks.len() as u64 {
        return Err(BAD);
    }
    // What is in it is overwritten, and need not be cleared.
    out.resize(len as usize, 0);
    let (mut rest, mut filled) = (blocks, 0);
    loop {
        let (head, behind) = rest.split_first_chunk().ok_or(BAD)?;
        let head = u32::from_le_bytes(*head);
        if head == 0 {
            rest = behind;
            break;
        }
        let (block, behind) = behind.split_at_checked((head & !LZ4_AS_IT_IS) as usize).ok_or(BAD)?;
        let room = &mut out[filled..];
        filled += if head & LZ4_AS_IT_IS == 0 {
            decompress_into(block, room).map_err(|_| BAD)?
        } else {
            room.get_mut(..block.len()).ok_or(BAD)?.copy_from_slice(block);
            block.len()
        };
        rest = behind;
    }
    match (filled == out.len(), rest) {
        (true, []) => Ok(()),
        (true, _) => Err(ErrorKind::Blob("bytes after the frame")),
        (false, _) => Err(BAD),
    }
}

/// As [`expand_lz4`], whatever the frame makes use of.
fn expand_any_lz4(frame: &[u8], len_max: u64, out: &mut Vec<u8>) -> Result<(), ErrorKind> {
    let mut decoder = FrameDecoder::new(frame);
    out.clear();
    decoder.by_ref().take(len_max + 1).read_to_end(out).map_err(|_| ErrorKind::Blob("LZ4 frame"))?;
    check(out, len_max, decoder.into_inner())?;
    // The library takes a frame that ends between two blocks for complete. Flag 8: the header states the size.
    match frame {
        [_, _, _, _, flags, _, size @ ..] if flags & 8 != 0 => {
            let size = size.first_chunk().ok_or(ErrorKind::Blob("LZ4 frame"))?;
            if u64::from_le_bytes(*size) == out.len() as u64 {
                Ok(())
            } else {
                Err(ErrorKind::Blob("LZ4 frame"))
            }
        }
        [_, _, _, _, _, _, _, ..] => Ok(()),
        _ => Err(ErrorKind::Blob("LZ4 frame")),
    }
}

fn check(out: &[u8], len_max: u64, unread: &[u8]) -> Result<(), ErrorKind> {
    if out.len() as u64 > len_max {
        return Err(ErrorKind::TooLarge("content of a blob"));
    }
    if !unread.is_empty() {
        return Err(ErrorKind::Blob("bytes after the frame"));
    }
    Ok(())
}

/// A compressor of runs with its context.
pub(crate) enum Compressor {
    None,
    Zstd(Box<zstd::bulk::Compressor<'static>>),
    /// With what it remembers between two runs: memory, nothing of their contents.
    Lz4(Box<CompressTable>),
}

impl Compressor {
    pub(crate) fn new(compression: Compression) -> Compressor {
        match compression {
            Compression::None => Compressor::None,
            Compression::Zstd { level } => {
                let compressor = zstd::bulk::Compressor::new(level);
                Compressor::Zstd(Box::new(compressor.expect("the library clamps levels it does not have")))
            }
            Compression::Lz4 => Compressor::Lz4(Box::new(CompressTable::large())),
        }
    }

    /// Writes `run` as one frame into `out` (cleared first); false if nothing is to be compressed.
    pub(crate) fn compress(&mut self, run: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        match self {
            Compressor::None => false,
            Compressor::Zstd(compressor) => {
                out.reserve(zstd::zstd_safe::compress_bound(run.len()));
                compressor.compress_to_buffer(run, out).is_ok()
            }
            Compressor::Lz4(table) => compress_lz4(run, table, out),
        }
    }
}

/// Writes a frame with a block, or with several if no block is so long.
fn compress_lz4(run: &[u8], table: &mut CompressTable, out: &mut Vec<u8>) -> bool {
    let [.., longest] = LZ4_BLOCK_LENS;
    let (number, block_len) =
        LZ4_BLOCK_LENS.into_iter().find(|(_, len)| run.len() <= *len).unwrap_or(longest);
    out.extend_from_slice(&lz4_head(number, run.len() as u64));
    for block in run.chunks(block_len) {
        let head = out.len();
        let start = head + size_of::<u32>();
        out.resize(start + get_maximum_output_size(block.len()), 0);
        let Ok(len) = compress_into_with_table(block, &mut out[start..], table) else { return false };
        let mut stated = len as u32;
        if len >= block.len() {
            out[start..start + block.len()].copy_from_slice(block);
            stated = block.len() as u32 | LZ4_AS_IT_IS;
        }
        out[head..start].copy_from_slice(&stated.to_le_bytes());
        out.truncate(start + len.min(block.len()));
    }
    out.extend_from_slice(&[0; size_of::<u32>()]);
    true
}

/// Bytes of a run after compression, its own length if it does not get shorter.
pub fn compressed_len(run: &[u8], compression: Compression) -> usize {
    let mut out = Vec::new();
    if Compressor::new(compression).compress(run, &mut out) { out.len().min(run.len()) } else { run.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both frames come back, within the limit and not beyond it.
    #[test]
    fn frames() {
        let run = b"a run of opcodes, of which many repeat; ".repeat(5000);
        let (mut frame, mut back) = (Vec::new(), Vec::new());
        assert!(Compressor::new(Compression::Zstd { level: 3 }).compress(&run, &mut frame));
        // One after the other with the same context, good and bad ones, with the size stated and without.
        let mut expander = Expander::default();
        let unstated = zstd::stream::encode_all(&run[..], 3).expect("memory takes all");
        assert!(matches!(get_frame_content_size(&unstated), Ok(None)));
        for frame in [&frame, &unstated] {
            for _ in 0..2 {
                assert!(expander.zstd(&frame[..frame.len() - 1], 1 << 20, &mut back).is_err());
                assert_eq!(expander.zstd(frame, run.len() as u64, &mut back), Ok(()));
                assert_eq!(back, run);
                assert!(expander.zstd(frame, run.len() as u64 - 1, &mut back).is_err());
                assert!(expander.zstd(&[frame, &b"x"[..]].concat(), 1 << 20, &mut back).is_err());
                assert!(expander.zstd(&[&frame[..], &frame[..]].concat(), 1 << 20, &mut back).is_err());
                assert!(expander.zstd(b"", 1 << 20, &mut back).is_err());
            }
        }

        assert!(Compressor::new(Compression::Lz4).compress(&run, &mut frame));
        assert_eq!(frame[4] & 0x08, 0x08, "content size is present");
        assert_eq!(expand_lz4(&frame, run.len() as u64, &mut back), Ok(()));
        assert_eq!(back, run);
        assert!(expand_lz4(&frame, run.len() as u64 - 1, &mut back).is_err());
        assert!((0..frame.len() - 4).all(|len| expand_lz4(&frame[..len], 1 << 20, &mut back).is_err()));
        assert!(expand_lz4(&[&frame[..], b"x"].concat(), 1 << 20, &mut back).is_err());
    }

    /// A small frame that unfolds to far more than the limit is stopped at the limit.
    #[test]
    fn bombs() {
        let zeros = vec![0; 40 << 20];
        let (mut frame, mut back) = (Vec::new(), Vec::new());
        type Expand = fn(&mut Expander, &[u8], u64, &mut Vec<u8>) -> Result<(), ErrorKind>;
        for (compression, expand) in
            [(Compression::Zstd { level: 1 }, Expander::zstd as Expand), (Compression::Lz4, Expander::lz4)]
        {
            assert!(Compressor::new(compression).compress(&zeros, &mut frame));
            assert!(frame.len() < 1 << 20);
            let expanded = expand(&mut Expander::default(), &frame, 1 << 20, &mut back);
            assert_eq!(expanded, Err(ErrorKind::TooLarge("content of a blob")));
            assert!(back.capacity() <= 4 << 20, "{}", back.capacity());
        }
    }
}
