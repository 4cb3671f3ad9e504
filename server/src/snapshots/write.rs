//! One file of a snapshot: what the shards saved, encoded, compressed and written by a thread of its own.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use damselfly_keyspace::{Attributes, Content, Saved};
use damselfly_rdb::{FileWriter, Meta};
use damselfly_snapshot::Output;

use super::queue::Queue;

/// Encoded bytes that are written at once.
const WRITE_FROM: usize = 1 << 20;

/// See the module's head.
pub struct FileOut {
    writer: FileWriter,
    output: Box<dyn Output>,
    buffer: Vec<u8>,
    /// What went wrong first; from then on nothing is written.
    failed: Option<io::Error>,
}

fn meta(attributes: &Attributes) -> Meta {
    Meta {
        expire_at_ms: attributes.expire_at,
        sticky: attributes.sticky,
        mc_flags: Some(attributes.mc_flags).filter(|flags| *flags != 0),
        ..Meta::default()
    }
}

/// Writes what is final; an error is kept.
fn carry(
    writer: &mut FileWriter,
    output: &mut dyn Output,
    buffer: &mut Vec<u8>,
    failed: &mut Option<io::Error>,
) {
    writer.take(buffer);
    if failed.is_none() {
        *failed = output.write_all(buffer).err();
    }
    buffer.clear();
}

impl FileOut {
    /// A file that begins.
    pub fn new(writer: FileWriter, output: Box<dyn Output>) -> FileOut {
        FileOut { writer, output, buffer: Vec::new(), failed: None }
    }

    /// For what stands beside the entries.
    pub fn writer(&mut self) -> &mut FileWriter {
        &mut self.writer
    }

    /// Writes all that comes through a queue. `wake` is called with the lane of a shard that rests and has room again.
    pub fn take_all(&mut self, queue: &Queue, keys: &AtomicU64, wake: impl Fn(usize)) -> io::Result<()> {
        // A long string that has begun: its lane, number, and bytes to come. Nothing else may be written before its
        // end, so what its shard saves between its parts waits: what clients changed meanwhile.
        let mut open: Option<(usize, u64, usize)> = None;
        let mut aside = VecDeque::new();
        loop {
            let from_aside = if open.is_none() { aside.pop_front() } else { None };
            let (lane, saved) = match from_aside {
                Some(piece) => piece,
                None => {
                    let Some(next) = queue.next(open.map(|(lane, ..)| lane)) else { break };
                    if next.wake {
                        wake(next.lane);
                    }
                    (next.lane, next.saved)
                }
            };
            match (saved, open) {
                (Saved::Part { number, bytes }, Some((_, of, left))) if number == of => {
                    self.writer.put_part(&bytes);
                    open = Some((lane, of, left - bytes.len())).filter(|(.., left)| *left > 0);
                }
                (saved, Some(_)) => aside.push_back((lane, saved)),
                (Saved::Part { .. }, None) => unreachable!("a string has begun before its parts"),
                (Saved::Long { number, db, key, attributes, len }, None) => {
                    self.writer.begin_string(db.into(), &meta(&attributes), &key, len as u64);
                    open = Some((lane, number, len));
                    keys.fetch_add(1, Ordering::Relaxed);
                }
                (Saved::Entries(rows), None) => {
                    keys.fetch_add(rows.len() as u64, Ordering::Relaxed);
                    let FileOut { writer, output, buffer, failed } = self;
                    let drained = rows.drain(|db, key, attributes, content| {
                        let meta = meta(attributes);
                        match content {
                            Content::Text(text) => writer.string(db.into(), &meta, key, text),
                            Content::Other(object) => damselfly_commands::write_object(
                                writer,
                                db.into(),
                                &meta,
                                key,
                                &object,
                                &mut |writer| carry(writer, &mut **output, buffer, failed),
                            ),
                        }
                        Ok::<(), std::convert::Infallible>(())
                    });
                    drained.unwrap_or_else(|never| match never {});
                }
            }
            if self.writer.ready_len() >= WRITE_FROM {
                self.carry();
            }
            if let Some(error) = self.failed.take() {
                queue.give_up();
                return Err(error);
            }
        }
        if open.is_some() || queue.is_given_up() {
            return Err(io::Error::other("another part of the snapshot has failed"));
        }
        Ok(())
    }

    fn carry(&mut self) {
        carry(&mut self.writer, &mut *self.output, &mut self.buffer, &mut self.failed);
    }

    /// Writes the end of the file and brings it to the disk.
    pub fn finish(mut self) -> io::Result<()> {
        self.writer.eof();
        self.carry();
        match self.failed {
            Some(error) => Err(error),
            None => self.output.finish(),
        }
    }
}
