//! Entries as clients see them: `[id, [field, value, ...]]`, in both protocols.

use damselfly_keyspace::stream::{Entry, Stream, StreamId, Text};
use damselfly_protocol::ReplyWriter;

use super::id;
use crate::long::{Walk, is_long, put_aside};
use crate::task::Later;

#[inline]
fn text(out: &mut ReplyWriter<'_>, text: Text<'_>) {
    match text {
        Text::Bytes(bytes) => out.bulk(bytes),
        Text::Int(number) => out.bulk_int(number),
    }
}

/// Writes one entry.
#[inline]
pub(crate) fn entry(out: &mut ReplyWriter<'_>, entry: Entry<'_>) {
    out.array(2);
    id::reply(out, entry.id);
    out.array(2 * entry.fields.len());
    for (name, value) in entry.fields {
        text(out, name);
        text(out, value);
    }
}

/// Writes an array of up to `count` entries. `likely` is a guess of how many there are.
fn entries<'a>(out: &mut ReplyWriter<'_>, range: impl Iterator<Item = Entry<'a>>, count: usize, likely: u64) {
    let array = out.deferred(count.min(usize::try_from(likely).unwrap_or(usize::MAX)));
    let mut written = 0;
    for one in range.take(count) {
        entry(out, one);
        written += 1;
    }
    out.fill_array(array, written);
}

/// Writes an array of up to `count` entries of a stream between two ids, both included; many are left to be written
/// behind what is there ([`put_aside`]).
pub(super) fn entries_between(
    out: &mut ReplyWriter<'_>,
    later: &mut Later<'_>,
    stream: &Stream,
    (start, end): (StreamId, StreamId),
    count: usize,
    reverse: bool,
) {
    let (len, heap) = (stream_len(stream), stream.heap_bytes());
    if later.is_some() && is_long(count.min(len), len, heap) {
        let left = usize::try_from(stream.count(start, end)).unwrap_or(usize::MAX).min(count);
        let before = out.len();
        out.array(left);
        let walk = || Walk::Entries { start, end, reverse, left };
        if put_aside(later, out.proto(), stream, (left, len, heap), walk) {
            return;
        }
        out.truncate(before);
    }
    let range = if reverse { stream.range_reverse(start, end) } else { stream.range(start, end) };
    entries(out, range, count, stream.len());
}

/// How many entries a stream has.
pub(crate) fn stream_len(stream: &Stream) -> usize {
    usize::try_from(stream.len()).unwrap_or(usize::MAX)
}

/// Writes an entry that is pending but no longer in the stream.
pub(super) fn gone(out: &mut ReplyWriter<'_>, id: StreamId) {
    out.array(2);
    id::reply(out, id);
    out.null_array();
}
