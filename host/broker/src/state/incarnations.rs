//! Which lives the cluster had, and what transactions are called in each (ruling 31).

use vouch_cluster::ClusterIncarnation;

use super::snapshot::{SectionSource, Snapshot, Unreadable};
use crate::record::codec::{DecodeError, Reader, Writer};
use crate::record::{ClusterBegunAnew, Fields};
use crate::{HalfPosition, RecordPosition, Refusal, ShardId, TransactionId};

/// Lives that are remembered. Beyond it the oldest is forgotten: what was written in it is named as of the cluster's first life.
pub const INCARNATIONS_MAX: usize = 1000;

/// A life of the cluster that is not its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    /// What is written from here on belongs to it.
    since: RecordPosition,
    incarnation: ClusterIncarnation,
}

/// The lives of a cluster, as its log says. A place of the log belongs to one of them; the log of another life may hold something
/// else there, so whatever is named by its place to somebody outside is named with the life as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incarnations(Vec<Life>);

impl Incarnations {
    /// The life that it is in.
    pub fn current(&self) -> ClusterIncarnation {
        self.0.last().map_or(ClusterIncarnation::FIRST, |life| life.incarnation)
    }

    /// The life in which something was written there.
    pub fn at(&self, position: RecordPosition) -> ClusterIncarnation {
        let begun = self.0.partition_point(|life| life.since <= position);
        begun.checked_sub(1).map_or(ClusterIncarnation::FIRST, |last| self.0[last].incarnation)
    }

    /// What a transaction of the first shard is called outside: always so, whatever life comes after.
    pub fn transaction_id(&self, half: HalfPosition) -> TransactionId {
        TransactionId { shard: ShardId::FIRST, half, incarnation: self.at(half.first_place()) }
    }

    /// The half message that an id names in the first shard.
    ///
    /// # Errors
    /// [`Refusal::UnknownTransaction`] of one that was given by another life of the cluster, or that another shard holds. Whether
    /// there is such a half message is not said.
    pub fn half_of(&self, id: TransactionId) -> Result<HalfPosition, Refusal> {
        let TransactionId { shard, half, incarnation } = id;
        let why = if shard != ShardId::FIRST {
            format!("its shard {shard} is not served by this node")
        } else if incarnation != self.at(half.first_place()) {
            "it was given by another life of this cluster, before it was restored or recovered, or beside that"
                .to_owned()
        } else {
            return Ok(half);
        };
        Err(Refusal::UnknownTransaction { id: id.to_string(), why })
    }

    /// Whether one of the lives is called so.
    pub(super) fn had(&self, incarnation: ClusterIncarnation) -> bool {
        incarnation.is_first() || self.0.iter().any(|life| life.incarnation == incarnation)
    }

    /// Another life begins; what lies from `since` on, which may be before its first record, belongs to it.
    pub(super) fn begin(&mut self, since: RecordPosition, incarnation: ClusterIncarnation) {
        let since = self.0.last().map_or(since, |last| since.max(last.since));
        self.0.push(Life { since, incarnation });
        if self.0.len() > INCARNATIONS_MAX {
            self.0.remove(0);
        }
    }
}

impl Snapshot for Incarnations {
    const SECTION: u16 = 12;
    // Of the first version of sections the checksum leaves out the head; this one is younger.
    const OLDEST: u8 = 2;
    const VERSION: u8 = 2;
    const LEVEL: u32 = ClusterBegunAnew::LEVEL;

    fn write(&self, w: &mut Writer<'_>, _: u8) {
        w.varint(self.0.len() as u64);
        for Life { since, incarnation } in &self.0 {
            w.u64(since.0);
            w.u32(incarnation.0);
        }
    }

    fn read(r: &mut Reader<'_>, _: &SectionSource<'_>) -> Result<Self, Unreadable> {
        let mut lives = Self::default();
        for _ in 0..r.count("incarnations")? {
            let (since, incarnation) = (r.u64("incarnation since")?, r.u32("incarnation")?);
            let (since, incarnation) = (RecordPosition(since), ClusterIncarnation(incarnation));
            if lives.0.last().is_some_and(|last| last.since > since) {
                return Err(DecodeError::Value { field: "incarnation since", value: since.0 }.into());
            }
            if lives.had(incarnation) || lives.0.len() == INCARNATIONS_MAX {
                return Err(DecodeError::Value { field: "incarnation", value: incarnation.0.into() }.into());
            }
            lives.0.push(Life { since, incarnation });
        }
        Ok(lives)
    }
}
