//! How much a topic had received when its parts were sealed, and when: what retention by time and size goes by.
//!
//! An entry of a queue tells neither. A part does: what lies in it came before it was sealed.

use std::collections::VecDeque;
use std::time::Duration;

use super::fault::PartError;
use super::leaps::Now;
use super::part::{MARK_LEN, Of, PartWriter, Row};
use crate::{Millis, RecordPosition, TopicId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    part: u64,
    received_bytes: u64,
    at: Millis,
}

/// The marks of one topic, by part. Not in snapshots: they lie in the parts that queues need.
#[derive(Debug, Default)]
pub(super) struct TopicMarks(VecDeque<Mark>);

fn numbers(entry: &[u8]) -> Option<(u64, Millis)> {
    let both = u128::from_le_bytes(*entry.first_chunk::<MARK_LEN>()?);
    Some((both as u64, Millis((both >> 64) as u64)))
}

impl TopicMarks {
    /// Writes the row of a topic that has received so much by now.
    pub(super) fn write_row(topic: TopicId, received_bytes: u64, now: Millis, out: &mut PartWriter) {
        out.row(Of::Mark(topic), 0, 1, |bytes| {
            bytes.extend_from_slice(&received_bytes.to_le_bytes());
            bytes.extend_from_slice(&now.0.to_le_bytes());
            (RecordPosition::START, RecordPosition::START)
        });
    }

    /// Whether a row can be the topic's next mark: no less and no earlier than the last one, and no more than the topic
    /// has received by now.
    pub(super) fn fits(&self, row: &Row, entry: &[u8], received_bytes: u64) -> Result<(), PartError> {
        let last = self.0.back();
        let follows = |(received, at): (u64, Millis)| {
            received <= received_bytes && last.is_none_or(|last| received >= last.received_bytes && at >= last.at)
        };
        if row.count == 1 && numbers(entry).is_some_and(follows) {
            Ok(())
        } else {
            Err(PartError::Misfit("what it says of a topic's size is not what follows"))
        }
    }

    /// Adds the mark of a row that fits.
    pub(super) fn push(&mut self, part: u64, entry: &[u8]) {
        if let Some((received_bytes, at)) = numbers(entry) {
            self.0.push_back(Mark { part, received_bytes, at });
        }
    }

    /// Forgets marks of parts below this one.
    pub(super) fn forget_below(&mut self, part: u64) {
        self.0.drain(..self.0.partition_point(|mark| mark.part < part));
    }

    /// The last part that was sealed longer than `kept` ago, or before the topic had received more than `received` bytes:
    /// what lies in it, and in those before it, is past its retention.
    pub(super) fn last_part(&self, now: Now<'_>, kept: Option<Duration>, received: Option<u64>) -> Option<u64> {
        let old = |mark: &Mark| kept.is_some_and(|kept| u128::from(now.age_ms(mark.at)) > kept.as_millis());
        let beyond = |mark: &Mark| received.is_some_and(|received| mark.received_bytes <= received);
        // Both hold for a mark if they hold for a later one.
        let count = self.0.partition_point(|mark| old(mark) || beyond(mark));
        count.checked_sub(1).map(|last| self.0[last].part)
    }
}
