//! The vocabulary between this crate and whoever builds or walks a value: reading emits these, writing takes them.
//!
//! Events instead of owned values, because a set of ten million members must not exist twice. All slices live until
//! the receiver returns. The order within a value is fixed:
//!
//! ```text
//! String | Json | Module                                             alone
//! Begin(List)   Element ...                                   End
//! Begin(Set)    Member ...                                    End
//! Begin(Hash)   Field ...                                     End
//! Begin(ZSet)   Scored ...                                    End
//! Begin(Stream) Entry ... StreamMeta
//!               { Group Pending ... Consumers { Consumer Claimed ... } ... } ...  End
//! Bloom         { BloomFilter Bytes ... } ...                 End
//! CountMin      Bytes ...                                     End
//! TopK          TopKItem ... TopKCounters Bytes ...           End
//! Cuckoo        { CuckooFilter Bytes ... } ...                End
//! ```
//!
//! A value is good only when `End` has come: the error that spoils it may follow its last element.

use std::fmt;

use crate::error::Refused;

/// Receives the events of one value.
///
/// The decoder checks form; what needs the value itself is for the receiver to refuse: duplicates in the encodings
/// that are streamed (types 2, 4, 5, 24, 31, 32), claimed entries that are not pending in the group.
pub trait ValueSink {
    /// Takes the next event, or stops the decoder.
    fn event(&mut self, event: Event<'_>) -> Result<(), Refused>;
}

impl<F: FnMut(Event<'_>) -> Result<(), Refused>> ValueSink for F {
    #[inline]
    fn event(&mut self, event: Event<'_>) -> Result<(), Refused> {
        self(event)
    }
}

/// The containers whose elements are events of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `Element`s in order.
    List,
    /// `Member`s in any order.
    Set,
    /// `Field`s in any order.
    Hash,
    /// `Scored` members, in any order.
    ZSet,
    /// Entries in order of their ids, then groups.
    Stream,
}

/// One step through a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// A whole string value.
    String(&'a [u8]),
    /// The text of a whole JSON document. Documents that are plain integers arrive here too.
    Json(&'a [u8]),
    /// A module value was walked over; its bytes are gone. The id is Redis' 54 bits of name and 10 of version.
    Module {
        /// The 64-bit module type id.
        id: u64,
    },
    /// A container begins.
    Begin {
        /// What the following events mean.
        kind: Kind,
        /// How many elements the input claims, 0 if it does not say. A claim: fit for a progress bar, and for
        /// `with_capacity` only after a cap.
        count: u64,
    },
    /// A list element.
    Element(&'a [u8]),
    /// A set member.
    Member {
        /// The member.
        member: &'a [u8],
        /// Absolute deadline, if it has one.
        expire_at_ms: Option<u64>,
    },
    /// A hash field.
    Field {
        /// The field.
        field: &'a [u8],
        /// Its value.
        value: &'a [u8],
        /// Absolute deadline, if it has one.
        expire_at_ms: Option<u64>,
    },
    /// A sorted set member; the score is never NaN.
    Scored {
        /// The member.
        member: &'a [u8],
        /// Its score.
        score: f64,
    },
    /// A stream entry; ids ascend strictly.
    Entry {
        /// Its id.
        id: StreamId,
        /// Its fields and values.
        fields: Fields<'a>,
    },
    /// What a stream knows besides its entries.
    StreamMeta(StreamMeta),
    /// A consumer group begins.
    Group(Group<'a>),
    /// An entry of the group's pending list, owner to follow.
    Pending(Pending),
    /// All pending entries of the group were sent; so many consumers follow.
    Consumers(u64),
    /// A consumer of the group begins.
    Consumer(Consumer<'a>),
    /// A pending entry of the group that this consumer owns.
    Claimed(StreamId),
    /// A scalable Bloom filter begins.
    Bloom(Bloom),
    /// One of its filters begins; `Bytes` of together `len` follow.
    BloomFilter {
        /// Number of hash functions.
        hashes: u64,
        /// Size of the bit array in bytes.
        len: u64,
    },
    /// A count-min sketch; `Bytes` of `width * depth` i64le follow, row by row.
    CountMin {
        /// Counters per row.
        width: u64,
        /// Rows.
        depth: u64,
        /// Sum of all increments.
        count: u64,
    },
    /// A top-k begins.
    TopK(TopK),
    /// One of its items.
    TopKItem {
        /// The item.
        item: &'a [u8],
        /// Its estimated count.
        count: u64,
    },
    /// All items were sent; `Bytes` of together `len` follow, u32le each.
    TopKCounters {
        /// Size of the counters in bytes.
        len: u64,
    },
    /// A cuckoo filter begins.
    Cuckoo(Cuckoo),
    /// One of its filters begins; `Bytes` of together `len` follow.
    CuckooFilter {
        /// Size of the bucket array in bytes.
        len: u64,
    },
    /// Raw content of the sketch or filter that began last, in pieces.
    Bytes(&'a [u8]),
    /// The value is complete.
    End,
}

/// A stream entry's id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Milliseconds.
    pub ms: u64,
    /// Sequence number within the millisecond.
    pub seq: u64,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// Fields and values of one stream entry.
#[derive(Clone, Copy, PartialEq)]
pub struct Fields<'a>(pub(crate) FieldsForm<'a>);

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum FieldsForm<'a> {
    /// Borrowed from wherever the writer's caller keeps them.
    Pairs(&'a [(&'a [u8], &'a [u8])]),
    /// As the reader has them: all texts one after the other, and where each of them ends.
    Joined { text: &'a [u8], ends: &'a [usize] },
}

impl<'a> Fields<'a> {
    /// Fields for the writer.
    pub fn new(pairs: &'a [(&'a [u8], &'a [u8])]) -> Fields<'a> {
        Fields(FieldsForm::Pairs(pairs))
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        match self.0 {
            FieldsForm::Pairs(pairs) => pairs.len(),
            FieldsForm::Joined { ends, .. } => ends.len() / 2,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The field and value at `position`; it must be below [`Fields::len`].
    pub fn get(&self, position: usize) -> (&'a [u8], &'a [u8]) {
        match self.0 {
            FieldsForm::Pairs(pairs) => pairs[position],
            FieldsForm::Joined { text, ends } => {
                let start = position.checked_sub(1).map_or(0, |before| ends[2 * before + 1]);
                let (middle, end) = (ends[2 * position], ends[2 * position + 1]);
                (&text[start..middle], &text[middle..end])
            }
        }
    }

    /// Fields and values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a> {
        let fields = *self;
        (0..fields.len()).map(move |position| fields.get(position))
    }
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// What a stream knows besides its entries and groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamMeta {
    /// Number of entries.
    pub length: u64,
    /// The greatest id ever given.
    pub last_id: StreamId,
    /// The smallest id present; 0-0 if there is none.
    pub first_id: StreamId,
    /// The greatest id ever deleted.
    pub max_deleted_id: StreamId,
    /// Entries ever added. Streams of before Redis 7.0 do not say; then it is `length`.
    pub entries_added: u64,
    /// Groups that follow.
    pub groups: u64,
}

/// The head of a consumer group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// The last id delivered.
    pub last_id: StreamId,
    /// Entries read, if known.
    pub entries_read: Option<u64>,
    /// Pending entries; `Pending` events follow.
    pub pending: u64,
}

/// A pending entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its id.
    pub id: StreamId,
    /// When it was delivered last.
    pub delivered_at_ms: u64,
    /// How often.
    pub deliveries: u64,
}

/// The head of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumer<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// When it last tried anything.
    pub seen_at_ms: u64,
    /// When it last got something; `None` if never. Streams of before Redis 7.2 do not say; then it is
    /// `seen_at_ms`, as Redis takes it.
    pub active_at_ms: Option<u64>,
    /// Pending entries it owns; `Claimed` events follow.
    pub pending: u64,
}

/// The head of a scalable Bloom filter.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bloom {
    /// What the format calls options: zero in all files of Dragonfly.
    pub options: u64,
    /// Factor between the capacities of successive filters.
    pub grow_factor: f64,
    /// Wanted probability of a false positive.
    pub fp_probability: f64,
    /// Items in all filters but the newest.
    pub prev_size: u64,
    /// Items in the newest filter.
    pub current_size: u64,
    /// Capacity of the newest filter.
    pub max_capacity: u64,
    /// Number of filters.
    pub filters: u64,
}

/// The head of a top-k.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TopK {
    /// Items kept.
    pub k: u64,
    /// Counters per row.
    pub width: u64,
    /// Rows.
    pub depth: u64,
    /// Decay of the counters.
    pub decay: f64,
    /// Items that follow.
    pub items: u64,
}

/// The head of a cuckoo filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cuckoo {
    /// Fingerprints per bucket.
    pub slots_per_bucket: u64,
    /// Evictions before giving up.
    pub max_iterations: u64,
    /// Factor between the sizes of successive filters.
    pub expansion: u64,
    /// Buckets of the first filter.
    pub buckets: u64,
    /// Items inserted.
    pub items: u64,
    /// Items deleted.
    pub deletes: u64,
    /// Number of filters.
    pub filters: u64,
}
