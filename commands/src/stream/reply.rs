//! Entries as clients see them: `[id, [field, value, ...]]`, in both protocols.

use damselfly_keyspace::stream::{Entry, StreamId, Text};
use damselfly_protocol::ReplyWriter;

use super::id;

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

/// Writes an array of up to `count` entries; how many there were. `likely` is a guess of that.
pub(super) fn entries<'a>(
    out: &mut ReplyWriter<'_>,
    range: impl Iterator<Item = Entry<'a>>,
    count: usize,
    likely: u64,
) -> usize {
    let array = out.deferred(count.min(usize::try_from(likely).unwrap_or(usize::MAX)));
    let mut written = 0;
    for one in range.take(count) {
        entry(out, one);
        written += 1;
    }
    out.fill_array(array, written);
    written
}

/// Writes an entry that is pending but no longer in the stream.
pub(super) fn gone(out: &mut ReplyWriter<'_>, id: StreamId) {
    out.array(2);
    id::reply(out, id);
    out.null_array();
}
