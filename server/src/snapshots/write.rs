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
        let mut aside: VecDeque<(usize, Saved)> = VecDeque::new();
        loop {
            // Parts of a string that has waited itself are there before those that are still to come.
            let of_open = |(from, saved): &(usize, Saved)| match (open, saved) {
                (Some((lane, of, _)), Saved::Part { number, .. }) => (*from, *number) == (lane, of),
                _ => false,
            };
            let at = if open.is_none() { Some(0) } else { aside.iter().position(of_open) };
            let from_aside = at.and_then(|at| aside.remove(at));
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
                (Saved::Part { number, bytes }, Some((from, of, left))) if (lane, number) == (from, of) => {
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
                (Saved::Entries(mut rows), None) => {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use damselfly_keyspace::Rows;
    use damselfly_rdb::{Compression, Event, FileOptions, FileReader, Item, Limits, Target};

    use super::*;

    /// A file in memory that takes so many bytes.
    #[derive(Clone)]
    struct Memory(Arc<Mutex<Vec<u8>>>, usize);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut content = self.0.lock().expect("not poisoned");
            if content.len() + bytes.len() > self.1 {
                return Err(io::Error::other("full"));
            }
            content.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output for Memory {
        fn finish(self: Box<Self>) -> io::Result<()> {
            Ok(())
        }
    }

    fn entries(keys: &[&str]) -> Saved {
        let mut rows = Rows::default();
        keys.iter().for_each(|key| rows.push_text(0, key.as_bytes(), Attributes::default(), b"short"));
        Saved::Entries(rows)
    }

    fn long(number: u64, key: &str, len: usize) -> Saved {
        Saved::Long { number, db: 0, key: key.as_bytes().into(), attributes: Attributes::default(), len }
    }

    fn part(number: u64, len: usize) -> Saved {
        Saved::Part { number, bytes: vec![b'a' + number as u8; len].into() }
    }

    fn file(target: Target, memory: &Memory) -> FileOut {
        let options =
            FileOptions { target, compression: Compression::Lz4, chunk_len_max: 1 << 16, checksum: true };
        FileOut::new(FileWriter::new(options), Box::new(memory.clone()))
    }

    /// Whatever comes between the parts of a long string, of its shard or of another, is written around it.
    #[test]
    fn long_strings_stay_together() {
        for target in [Target::Dfs, Target::Redis7_0] {
            let queue = Queue::new(2);
            for piece in
                [entries(&["a"]), long(1, "one", 300), part(1, 100), entries(&["b", "c"]), long(2, "two", 50)]
            {
                queue.push(0, piece);
            }
            queue.push(1, long(1, "other", 10));
            queue.push(0, part(2, 50));
            queue.push(1, part(1, 10));
            queue.push(0, part(1, 200));
            queue.push(0, entries(&["d"]));
            queue.end(0);
            queue.end(1);
            let memory = Memory(Arc::default(), usize::MAX);
            let mut out = file(target, &memory);
            let keys = AtomicU64::new(0);
            out.take_all(&queue, &keys, |_| {}).expect("written");
            out.finish().expect("finished");
            assert_eq!(keys.into_inner(), 7);
            let (mut found, mut key) = (BTreeMap::new(), String::new());
            let bytes = memory.0.lock().expect("not poisoned").clone();
            let read = FileReader::new(Limits::FILE).read_all(&mut &bytes[..], &mut |item: Item<'_>| {
                match item {
                    Item::Key(next) => key = String::from_utf8_lossy(next.key).into_owned(),
                    Item::Value { event: Event::String(text), .. } => {
                        found.insert(key.clone(), text.to_vec());
                    }
                    _ => {}
                }
                Ok(())
            });
            read.expect("well formed");
            assert_eq!(found.len(), 7);
            assert!(
                found["one"] == [b'b'; 300] && found["two"] == [b'c'; 50] && found["other"] == [b'b'; 10]
            );
        }
    }

    /// A full disk ends the writing, and the shards hear of it.
    #[test]
    fn full_disk() {
        let queue = Queue::new(1);
        queue.push(0, long(1, "one", 4 << 20));
        queue.push(0, part(1, 4 << 20));
        queue.push(0, entries(&["a"]));
        let mut out = file(Target::Dfs, &Memory(Arc::default(), 1 << 20));
        assert!(out.take_all(&queue, &AtomicU64::new(0), |_| {}).is_err());
        assert!(queue.is_given_up() && queue.push(0, entries(&["b"])) == 0 && queue.waiting(0) == 0);
    }
}
