//! Parts as the node sees them, which builds indexes of its own over what is in them.

use bytes::Bytes;

use super::index_entry::{IndexEntry, entries};
use super::part::{Of, Part, Row};
use super::{SnapshotError, State};
use crate::{QueueOffset, TopicId};

/// A part that is there to be read: its table was checked, the entries of a row are checked when they are asked for.
#[derive(Debug)]
pub struct PartView(Part);

/// A stretch of the index of one queue in a part.
#[derive(Clone, Copy, Debug)]
pub struct QueueRow<'a> {
    /// The topic's life; it may be over.
    pub topic: TopicId,
    /// The queue.
    pub queue: u32,
    /// Queue offset of the first entry.
    pub first: QueueOffset,
    /// How many entries there are; never 0.
    pub count: u64,
    row: &'a Row,
}

impl PartView {
    /// Checks that these bytes are the part `id`, whole, with a table that is as it was written.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Part`]: the part is damaged, of another version, or another one.
    pub fn open(id: u64, bytes: Bytes) -> Result<Self, SnapshotError> {
        Part::open(id, bytes).map(Self)
    }

    /// The checksum by which snapshots name it; two parts with the same one say the same.
    pub fn checksum(&self) -> u32 {
        self.0.checksum
    }

    /// The stretches of queues in it, ascending by topic and queue; each queue at most once.
    pub fn queue_rows(&self) -> impl Iterator<Item = QueueRow<'_>> {
        self.0.rows.iter().filter_map(|row| match row.of {
            Of::Queue(topic, queue) => {
                Some(QueueRow { topic, queue, first: row.offsets().start, count: row.count, row })
            }
            _ => None,
        })
    }

    /// The entries of a row of this part, by their offsets from [`QueueRow::first`] on.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Part`]: the entries are not as they were written.
    pub fn entries(&self, row: &QueueRow<'_>) -> Result<QueueEntries, SnapshotError> {
        self.0.checked_entries(row.row).map(QueueEntries)
    }
}

/// Entries of one queue; they share the memory of their part.
#[derive(Clone, Debug)]
pub struct QueueEntries(Bytes);

impl QueueEntries {
    /// One after the other, ascending by offset.
    pub fn iter(&self) -> impl Iterator<Item = IndexEntry> + '_ {
        entries(&self.0)
    }
}

impl State {
    /// Ids of the parts that a snapshot of this state names, ascending, and the checksums by which it knows them.
    pub fn named_parts(&self) -> Vec<(u64, u32)> {
        let named = |part: u64| self.named.0.get(&part).map(|checksum| (part, *checksum));
        self.parts().into_iter().filter_map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::RecordLog;

    #[test]
    fn a_view_says_what_the_queues_say_and_gives_no_damaged_entries() {
        let mut log = RecordLog::new();
        let (a, b) = (log.topic("a", 2), log.topic("b", 1));
        for n in 0..5 {
            log.send(a, n % 2, None);
            log.send(b, 0, None);
        }
        let part = log.state.seal(1_000_000).unwrap();
        log.send(a, 0, None);
        let view = PartView::open(1_000_000, part.clone()).unwrap();
        assert_eq!(log.state.named_parts(), [(1_000_000, view.checksum())]);
        let rows: Vec<_> = view.queue_rows().map(|row| (row.topic, row.queue, row.first.0, row.count)).collect();
        assert_eq!(rows, [(a, 0, 0, 3), (a, 1, 0, 2), (b, 0, 0, 5)]);
        for row in view.queue_rows() {
            let queue = log.state.topics().get(row.topic).unwrap();
            let held = QueueOffset::each(row.first..row.first.plus(row.count))
                .map(|offset| queue.entry(row.queue, offset).unwrap());
            assert!(view.entries(&row).unwrap().iter().eq(held));
        }

        let mut bytes = part.to_vec();
        let first_entry = 40 + 56 * u64::from_le_bytes(bytes[24..32].try_into().unwrap()) as usize;
        bytes[first_entry] ^= 1;
        let view = PartView::open(1_000_000, bytes.clone().into()).unwrap();
        let whole: Vec<_> = view.queue_rows().map(|row| view.entries(&row).is_ok()).collect();
        assert_eq!(whole, [false, true, true]);
        bytes[12] ^= 1;
        assert!(PartView::open(1_000_000, bytes.into()).is_err());
    }
}
