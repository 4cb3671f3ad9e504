//! The entries of a stream value, in three allocations however many they are.
//!
//! As vectors of vectors each entry with two fields would be five allocations, made by the thread that reads a file and
//! freed by the one that builds the stream: that was half the time of loading a stream.

use crate::event::{Fields, FieldsForm, StreamId};

/// Entries with their fields, in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    heads: Vec<Head>,
    /// Fields and values, one after the other.
    text: Vec<u8>,
    /// Where each of them ends, counted from the beginning of its entry.
    ends: Vec<usize>,
}

/// An entry begins where the one before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    id: StreamId,
    text_end: usize,
    ends_end: usize,
}

impl Entries {
    /// Adds an entry at the end.
    pub fn push<'a>(&mut self, id: StreamId, fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) {
        let start = self.text.len();
        for (field, value) in fields {
            for text in [field, value] {
                self.text.extend_from_slice(text);
                self.ends.push(self.text.len() - start);
            }
        }
        self.heads.push(Head { id, text_end: self.text.len(), ends_end: self.ends.len() });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (StreamId, Fields<'_>)> {
        let (mut text_at, mut ends_at) = (0, 0);
        self.heads.iter().map(move |head| {
            let text = &self.text[text_at..head.text_end];
            let ends = &self.ends[ends_at..head.ends_end];
            (text_at, ends_at) = (head.text_end, head.ends_end);
            (head.id, Fields(FieldsForm::Joined { text, ends }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes in comes out, entries without fields and empty texts too.
    #[test]
    fn comes_out_as_it_went_in() {
        let pairs: [(&[u8], &[u8]); 4] = [(b"field", b"value"), (b"", b""), (b"f", b""), (b"", b"v")];
        let mut entries = Entries::default();
        assert!(entries.is_empty() && entries.iter().len() == 0);
        let id = |seq| StreamId { ms: 1, seq };
        for count in [0, 4, 1, 0, 3] {
            entries.push(id(count as u64), pairs[..count].iter().copied());
        }
        assert_eq!(entries.len(), 5);
        for ((found, fields), count) in entries.iter().zip([0, 4, 1, 0, 3]) {
            assert_eq!(found, id(count as u64));
            assert!(fields.iter().eq(pairs[..count].iter().copied()));
        }
    }
}
