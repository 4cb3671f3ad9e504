//! Who this node is in a replication group, and how it says so.
//!
//! Pure data: no sockets, no clock, no randomness of its own. The server owns one [`Node`] and asks it for the lines
//! of `INFO replication` and the content of `ROLE`. Links to other nodes are not here yet, so a node is a master
//! without replicas.

use std::fmt;
use std::fmt::Write as _;

/// Names a history of data: 40 lower-case hexadecimal digits, as Redis and Dragonfly have them.
///
/// Two nodes with the same id and offset hold the same data, so an id must never be made twice: it takes 160 bits
/// from outside.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplicationId([u8; ReplicationId::LEN]);

impl ReplicationId {
    /// Digits of an id.
    pub const LEN: usize = 40;

    /// The id of no history: what `master_replid2` shows on a node that never followed anybody.
    pub const NONE: ReplicationId = ReplicationId([b'0'; ReplicationId::LEN]);

    /// Makes an id of random bytes.
    pub fn from_random(random: [u8; ReplicationId::LEN / 2]) -> ReplicationId {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; ReplicationId::LEN];
        for (pair, byte) in text.chunks_exact_mut(2).zip(random) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        ReplicationId(text)
    }

    /// Reads an id that another node sent. None if it is none.
    pub fn parse(text: &[u8]) -> Option<ReplicationId> {
        let digits: [u8; ReplicationId::LEN] = text.try_into().ok()?;
        digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')).then_some(ReplicationId(digits))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only digits are put in")
    }
}

impl fmt::Display for ReplicationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ReplicationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A place in a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplicationOffset(pub u64);

/// The content of ROLE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes writes.
    Master {
        /// How far its history has come.
        offset: ReplicationOffset,
    },
}

/// This node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    id: ReplicationId,
    offset: ReplicationOffset,
}

impl Node {
    /// A master at the beginning of a history.
    pub fn master(id: ReplicationId) -> Node {
        Node { id, offset: ReplicationOffset::default() }
    }

    /// The id of its history.
    pub fn id(&self) -> ReplicationId {
        self.id
    }

    /// How far it has come.
    pub fn offset(&self) -> ReplicationOffset {
        self.offset
    }

    /// Counts what was written to the history.
    pub fn advance(&mut self, by: u64) {
        let offset = self.offset.0.checked_add(by);
        self.offset = ReplicationOffset(offset.expect("2^64 bytes of history take centuries to write"));
    }

    /// Begins another history, which shares nothing with the old one.
    pub fn begin_history(&mut self, id: ReplicationId) {
        assert!(id != self.id, "a history's id is used once");
        *self = Node::master(id);
    }

    /// What ROLE tells.
    pub fn role(&self) -> Role {
        Role::Master { offset: self.offset }
    }

    /// Appends the lines of `INFO replication`, without the title.
    ///
    /// The Kubernetes operator takes each line that has `role` in it for the role, so no other line may have that
    /// word; a test holds it.
    pub fn put_info(&self, text: &mut String) {
        write!(
            text,
            "role:master\r\n\
             connected_slaves:0\r\n\
             master_failover_state:no-failover\r\n\
             master_replid:{}\r\n\
             master_replid2:{}\r\n\
             master_repl_offset:{}\r\n\
             second_repl_offset:-1\r\n\
             repl_backlog_active:0\r\n",
            self.id,
            ReplicationId::NONE,
            self.offset.0
        )
        .expect("strings take all");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> ReplicationId {
        ReplicationId::from_random([byte; 20])
    }

    /// Every bit of the randomness is in the id, in order, and a printed id is read back.
    #[test]
    fn ids() {
        let random: [u8; 20] = std::array::from_fn(|at| (at as u8).wrapping_mul(0x1D) ^ 0xA0);
        let made = ReplicationId::from_random(random);
        let expected: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(made.to_string(), expected);
        assert_eq!(ReplicationId::parse(expected.as_bytes()), Some(made));
        assert_eq!(ReplicationId::parse(&[b'0'; 40]), Some(ReplicationId::NONE));
    }

    /// What a stranger sends in place of an id is refused.
    #[test]
    fn other_texts_are_no_ids() {
        for text in [&b""[..], b"?", &[b'0'; 39], &[b'0'; 41], &[b'g'; 40], &[b'A'; 40], &[0xFF; 40]] {
            assert_eq!(ReplicationId::parse(text), None);
        }
    }

    /// An offset belongs to its history and starts again with a new one.
    #[test]
    fn histories() {
        let mut node = Node::master(id(1));
        node.advance(10);
        node.advance(0);
        assert_eq!((node.id(), node.offset()), (id(1), ReplicationOffset(10)));
        assert_eq!(node.role(), Role::Master { offset: ReplicationOffset(10) });
        node.begin_history(id(2));
        assert_eq!((node.id(), node.offset()), (id(2), ReplicationOffset(0)));
    }

    /// One line has the word that orchestrators look for; every line is `name:value`, and none is blank.
    #[test]
    fn info() {
        let mut node = Node::master(id(0xAB));
        node.advance(7);
        let mut text = String::new();
        node.put_info(&mut text);
        let lines: Vec<(&str, &str)> =
            text.split_terminator("\r\n").map(|line| line.split_once(':').expect("name:value")).collect();
        assert!(text.ends_with("\r\n"));
        assert_eq!(text.matches("role").count(), 1);
        assert_eq!(lines[0], ("role", "master"));
        assert!(lines.contains(&("connected_slaves", "0")));
        assert!(lines.contains(&("master_replid", &"ab".repeat(20))));
        assert!(lines.contains(&("master_repl_offset", "7")));
    }
}
