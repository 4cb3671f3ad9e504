//! Compressed runs of opcodes: zstd frames and LZ4 frames.
//!
//! Expanding believes no size: output grows as it is produced and stops at the limit. One frame per blob, and all
//! of the blob, because anything else was not written by a server.

use std::io::{Read, Write};

use lz4_flex::frame::{FrameDecoder, FrameEncoder, FrameInfo};

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

/// Expands a zstd frame into `out`, at most to `len_max` bytes.
pub(crate) fn expand_zstd(frame: &[u8], len_max: u64, out: &mut Vec<u8>) -> Result<(), ErrorKind> {
    const BAD: ErrorKind = ErrorKind::Blob("zstd frame");
    let decoder = zstd::stream::read::Decoder::with_buffer(frame).map_err(|_| BAD)?;
    let mut decoder = decoder.single_frame();
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| BAD)?;
    out.clear();
    decoder.by_ref().take(len_max + 1).read_to_end(out).map_err(|_| BAD)?;
    check(out, len_max, decoder.finish())
}

/// Expands an LZ4 frame into `out`, at most to `len_max` bytes.
pub(crate) fn expand_lz4(frame: &[u8], len_max: u64, out: &mut Vec<u8>) -> Result<(), ErrorKind> {
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
    Lz4,
}

impl Compressor {
    pub(crate) fn new(compression: Compression) -> Compressor {
        match compression {
            Compression::None => Compressor::None,
            Compression::Zstd { level } => {
                let compressor = zstd::bulk::Compressor::new(level);
                Compressor::Zstd(Box::new(compressor.expect("the library clamps levels it does not have")))
            }
            Compression::Lz4 => Compressor::Lz4,
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
            Compressor::Lz4 => {
                let info = FrameInfo::new().content_size(Some(run.len() as u64));
                let mut encoder = FrameEncoder::with_frame_info(info, out);
                encoder.write_all(run).is_ok() && encoder.finish().is_ok()
            }
        }
    }
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
        assert_eq!(expand_zstd(&frame, run.len() as u64, &mut back), Ok(()));
        assert_eq!(back, run);
        assert!(expand_zstd(&frame, run.len() as u64 - 1, &mut back).is_err());
        assert!(expand_zstd(&frame[..frame.len() - 1], 1 << 20, &mut back).is_err());
        assert!(expand_zstd(&[&frame[..], b"x"].concat(), 1 << 20, &mut back).is_err());

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
        for (compression, expand) in [
            (
                Compression::Zstd { level: 1 },
                expand_zstd as fn(&[u8], u64, &mut Vec<u8>) -> Result<(), ErrorKind>,
            ),
            (Compression::Lz4, expand_lz4),
        ] {
            assert!(Compressor::new(compression).compress(&zeros, &mut frame));
            assert!(frame.len() < 1 << 20);
            assert_eq!(expand(&frame, 1 << 20, &mut back), Err(ErrorKind::TooLarge("content of a blob")));
            assert!(back.capacity() <= 4 << 20, "{}", back.capacity());
        }
    }
}
