//! What a replica notes, and its bytes.

use vouch_broker::ShardId;
use vouch_commitlog::LogPosition;
use vouch_consensus::NodeId;

/// Which log a replica is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogName {
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// Its shard.
    pub shard: ShardId,
}

/// Up to where the log is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Index of the last entry that is; 0 without one.
    pub index: u64,
    /// The end of that entry.
    pub position: LogPosition,
}

/// A cut of the log's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotedCut {
    /// Where the log ends afterwards.
    pub to: LogPosition,
    /// Where it ended before.
    pub end: LogPosition,
}

/// What a replica knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaNote {
    /// Which node it is.
    pub node: NodeId,
    /// How often the log was opened to be written: what belongs to an earlier process is told by it.
    pub incarnation: u64,
    /// It was one of several replicas, at some time. Then the marks in the entries of its log may speak of another one's disk,
    /// and this note and the snapshots alone tell a torn tail from damage (ruling 17).
    pub member: bool,
    /// The latest term that it knows.
    pub term: u64,
    /// For whom it voted in that term.
    pub vote: Option<NodeId>,
    /// What it knows to be committed. It may lie behind [`Self::durable`], and behind the end of a log that lost its tail.
    pub commit: Committed,
    /// Everything before this position was durable here.
    pub durable: LogPosition,
    /// A cut that is under way.
    pub cut: Option<NotedCut>,
}

/// Why bytes are no note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    Version(u8),
    /// Of another log.
    Foreign,
    /// No program wrote it so.
    Damaged,
}

const VERSION: u8 = 1;
const MEMBER: u8 = 1;
const VOTED: u8 = 2;
const CUT: u8 = 4;
const ENCODED_LEN: usize = 96;
/// Where the numbers begin, of eight bytes each.
const NUMBERS_AT: usize = 24;

impl ReplicaNote {
    /// That of a node that is alone, and has noted nothing yet.
    pub(super) fn of_one(node: NodeId) -> Self {
        Self {
            node,
            incarnation: 0,
            member: false,
            term: 0,
            vote: None,
            commit: Committed::default(),
            durable: LogPosition(0),
            cut: None,
        }
    }

    /// The bytes to note; `docs/replica-file.md` describes them.
    pub(super) fn encode(&self, log: LogName) -> Vec<u8> {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(self.member, MEMBER) | flag(self.vote.is_some(), VOTED) | flag(self.cut.is_some(), CUT);
        let mut bytes = vec![VERSION, flags];
        bytes.extend(log.shard.0.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(log.cluster_id);
        let vote = self.vote.map_or(0, |node| node.0);
        let (to, end) = self.cut.map_or((0, 0), |cut| (cut.to.0, cut.end.0));
        let Committed { index, position } = self.commit;
        let numbers = [self.node.0, self.incarnation, self.term, vote, index, position.0, self.durable.0, to, end];
        bytes.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
        bytes
    }

    /// Reads what [`Self::encode`] gave.
    pub(super) fn decode(bytes: &[u8], log: LogName) -> Result<Self, Unread> {
        match bytes.first() {
            Some(&VERSION) if bytes.len() == ENCODED_LEN => {}
            Some(&version) if version != VERSION && version != 0 => return Err(Unread::Version(version)),
            _ => return Err(Unread::Damaged),
        }
        let number = |n: usize| {
            let at = NUMBERS_AT + 8 * n;
            bytes[at..at + 8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        let flags = bytes[1];
        let note = Self {
            node: NodeId(number(0)),
            incarnation: number(1),
            member: flags & MEMBER != 0,
            term: number(2),
            vote: (flags & VOTED != 0).then(|| NodeId(number(3))),
            commit: Committed { index: number(4), position: LogPosition(number(5)) },
            durable: LogPosition(number(6)),
            cut: (flags & CUT != 0).then(|| NotedCut { to: LogPosition(number(7)), end: LogPosition(number(8)) }),
        };
        if bytes[8..NUMBERS_AT] != log.cluster_id || bytes[2..4] != log.shard.0.to_le_bytes() {
            return Err(Unread::Foreign);
        }
        // One note has one encoding.
        if note.encode(log) == bytes { Ok(note) } else { Err(Unread::Damaged) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOG: LogName = LogName { cluster_id: *b"0123456789abcdef", shard: ShardId(0x0203) };

    fn full() -> ReplicaNote {
        ReplicaNote {
            node: NodeId(0x11),
            incarnation: 0x22,
            member: true,
            term: 0x33,
            vote: Some(NodeId(0x44)),
            commit: Committed { index: 0x55, position: LogPosition(0x66) },
            durable: LogPosition(0x77),
            cut: Some(NotedCut { to: LogPosition(0x88), end: LogPosition(0x0102_0304_0506_0708) }),
        }
    }

    /// What was written lies in users' folders.
    #[test]
    fn each_byte_lies_where_the_document_says() {
        let mut expected = b"\x01\x07\x03\x02\0\0\0\x000123456789abcdef".to_vec();
        for byte in [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88] {
            expected.extend([byte, 0, 0, 0, 0, 0, 0, 0]);
        }
        expected.extend([8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(full().encode(LOG), expected);
        assert_eq!(expected.len(), ENCODED_LEN);
        let mut alone = b"\x01\0\x03\x02\0\0\0\x000123456789abcdef\x01".to_vec();
        alone.resize(ENCODED_LEN, 0);
        assert_eq!(ReplicaNote::of_one(NodeId::FIRST).encode(LOG), alone);
    }

    #[test]
    fn what_no_program_writes_is_damaged_and_what_belongs_elsewhere_is_told() {
        let bytes = ReplicaNote { vote: None, cut: None, ..full() }.encode(LOG);
        let with = |at: usize, byte: u8| {
            let mut changed = bytes.clone();
            changed[at] = byte;
            ReplicaNote::decode(&changed, LOG).unwrap_err()
        };
        assert_eq!(with(0, 2), Unread::Version(2));
        assert_eq!(with(0, 0), Unread::Damaged);
        // An unknown flag, bytes that are zero, a vote and a cut that the flags do not know.
        for (at, byte) in [(1, 0x09), (1, 0x80), (4, 1), (7, 1), (48, 1), (80, 1), (95, 1)] {
            assert_eq!(with(at, byte), Unread::Damaged, "{byte} at {at}");
        }
        assert_eq!((with(8, 0), with(23, 0), with(2, 9)), (Unread::Foreign, Unread::Foreign, Unread::Foreign));
        for len in [0, 1, ENCODED_LEN - 1] {
            assert_eq!(ReplicaNote::decode(&bytes[..len], LOG), Err(Unread::Damaged));
        }
        assert_eq!(ReplicaNote::decode(&[&bytes[..], &[0]].concat(), LOG), Err(Unread::Damaged));
    }

    proptest! {
        #[test]
        fn whatever_is_noted_reads_back_as_it_was(numbers: [u64; 9], flags in 0..8_u8) {
            let [node, incarnation, term, vote, index, position, durable, to, end] = numbers;
            let note = ReplicaNote {
                node: NodeId(node),
                incarnation,
                member: flags & MEMBER != 0,
                term,
                vote: (flags & VOTED != 0).then_some(NodeId(vote)),
                commit: Committed { index, position: LogPosition(position) },
                durable: LogPosition(durable),
                cut: (flags & CUT != 0).then_some(NotedCut { to: LogPosition(to), end: LogPosition(end) }),
            };
            prop_assert_eq!(ReplicaNote::decode(&note.encode(LOG), LOG), Ok(note));
        }

        #[test]
        fn whatever_the_bytes_are_they_are_one_note_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(note) = ReplicaNote::decode(&bytes, LOG) {
                prop_assert_eq!(note.encode(LOG), bytes);
            }
        }
    }
}
