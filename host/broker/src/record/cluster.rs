//! Records about the log itself: whose it is, who opened it, and what its time did.

use vouch_cluster::{ClusterIncarnation, NodeId};

use super::Fields;
use super::codec::{DecodeError, Reader, Writer};
use crate::{Millis, RecordPosition};

/// The kinds of this family, each with its sentence: a link of the chain of [`super::each_kind`].
macro_rules! cluster_kinds {
    ([$next:path $(, $rest:path)*] $($before:tt)*) => {
        $next! { [$($rest),*] $($before)*
            /// The first record of a log.
            ClusterInit,
            /// A node opened the log.
            NodeStarted,
            /// Time leapt.
            Leapt,
            /// The time that was in doubt did pass.
            LeapsBelieved,
            /// The cluster begins anew, as one node.
            ClusterBegunAnew,
            /// All nodes know more than the log was to say so far.
            LevelRaised,
            /// Here every replica makes a snapshot, and here its part of the index ends.
            SnapshotNamed,
        }
    };
}
pub(crate) use cluster_kinds;

/// The first record of every log (ruling 20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterInit {
    /// Made once, at random.
    pub cluster_id: [u8; 16],
    /// Bytes in a segment of the log.
    pub segment_size: u64,
    /// Key of the check value in receipt handles.
    pub handle_key: [u8; 32],
    /// Meanings that every node of the cluster understands: see [`super::FEATURE_LEVEL`]. [`LevelRaised`] raises it.
    pub feature_level: u32,
    /// Version of Vouch that made the log.
    pub written_by: String,
}

impl Fields for ClusterInit {
    const KIND: u16 = 1;

    fn write(&self, w: &mut Writer<'_>) {
        w.0.extend_from_slice(&self.cluster_id);
        w.u64(self.segment_size);
        w.0.extend_from_slice(&self.handle_key);
        w.u32(self.feature_level);
        w.text(&self.written_by);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            cluster_id: r.take(16, "cluster id")?.try_into().expect("sixteen bytes were taken"),
            segment_size: r.u64("segment size")?,
            handle_key: r.take(32, "handle key")?.try_into().expect("thirty-two bytes were taken"),
            feature_level: r.u32("feature level")?,
            written_by: r.string("written by")?,
        })
    }
}

/// A node opened the log for writing: tells which version wrote what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStarted {
    /// Version of Vouch.
    pub version: String,
}

impl Fields for NodeStarted {
    const KIND: u16 = 2;

    fn write(&self, w: &mut Writer<'_>) {
        w.text(&self.version);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { version: r.string("version")? })
    }
}

/// The log's time went ahead to that of this entry, and nobody lived through what lies between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leapt {
    /// Where the leap begins: up to here time went by the boot-time clock, which does not leap. Where the wall clock was
    /// followed, this is when it was first seen ahead.
    pub from: Millis,
    /// A node started, and only the wall clock says that so much time passed: it makes nothing older until
    /// [`LeapsBelieved`]. Otherwise the wall clock was ahead for long enough, and what was stored meanwhile counts as
    /// stored now.
    pub doubted: bool,
}

impl Fields for Leapt {
    const KIND: u16 = 13;

    fn write(&self, w: &mut Writer<'_>) {
        w.u64(self.from.0);
        w.u8(self.doubted.into());
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { from: Millis(r.u64("leapt from")?), doubted: r.flag("doubted")? })
    }
}

/// The wall clock agreed with the log's time for long enough: the time that was in doubt did pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeapsBelieved {
    /// Every leap that ended by this time is believed.
    pub to: Millis,
}

impl Fields for LeapsBelieved {
    const KIND: u16 = 14;

    fn write(&self, w: &mut Writer<'_>) {
        w.u64(self.to.0);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { to: Millis(r.u64("leaps to")?) })
    }
}

/// A backup was restored, or what was left after the loss of a majority goes on: the cluster begins anew, as one node, in another
/// life (ruling 31). Alone in its entry, which is of the kind *members* and in a term above all others; nobody voted for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterBegunAnew {
    /// The life that begins, drawn at random. Never the first.
    pub incarnation: ClusterIncarnation,
    /// The only node: an id that none had before.
    pub node: NodeId,
    /// What lies from here on may not be what the life before had there: it is named as of the new life. Not behind this record.
    pub since: RecordPosition,
    /// Key of the check value in receipt handles from now on: those of before are void.
    pub handle_key: [u8; 32],
    /// Version of Vouch that wrote it.
    pub written_by: String,
}

impl Fields for ClusterBegunAnew {
    const KIND: u16 = 24;
    const LEVEL: u32 = 2;

    fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.incarnation.0);
        w.u64(self.node.0);
        w.u64(self.since.0);
        w.0.extend_from_slice(&self.handle_key);
        w.text(&self.written_by);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            incarnation: ClusterIncarnation(r.u32("cluster incarnation")?),
            node: NodeId(r.u64("node")?),
            since: RecordPosition(r.u64("since")?),
            handle_key: r.take(32, "handle key")?.try_into().expect("thirty-two bytes were taken"),
            written_by: r.string("written by")?,
        })
    }
}

/// An operator ended an upgrade: every node of the cluster understands this feature level, and what belongs to it may be written from
/// here on. A version that does not know it cannot read the log any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelRaised {
    /// The level, above the one before.
    pub level: u32,
    /// Who ended the upgrade.
    pub by: String,
    /// Version of Vouch that wrote it.
    pub written_by: String,
}

impl Fields for LevelRaised {
    const KIND: u16 = 25;

    fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.level);
        w.text(&self.by);
        w.text(&self.written_by);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { level: r.u32("feature level")?, by: r.string("by")?, written_by: r.string("written by")? })
    }
}

/// Whoever leads names a position of the log: where this record's entry ends, every replica ends a part of its index and makes a snapshot. So
/// parts and snapshots of this position have the same bytes everywhere. With it the leader says what its own of before were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotNamed {
    /// What the leader sealed at positions that were named before, ascending; some may be left out.
    pub sealed: Vec<SealedAt>,
}

impl Fields for SnapshotNamed {
    const KIND: u16 = 26;
    const LEVEL: u32 = 2;

    fn write(&self, w: &mut Writer<'_>) {
        w.varint(self.sealed.len() as u64);
        for SealedAt { position, since, part, state } in &self.sealed {
            w.u64(position.0);
            w.u64(*since);
            w.option(part.as_ref(), |w, checksum| w.u32(*checksum));
            w.u64(*state);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let sealed = r.list("sealed", |r| {
            Ok(SealedAt {
                position: RecordPosition(r.u64("position")?),
                since: r.u64("the part before")?,
                part: r.option("part", |r| r.u32("checksum of the part"))?,
                state: r.u64("digest of the state")?,
            })
        })?;
        Ok(Self { sealed })
    }
}

/// What a replica had at a position that the log names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedAt {
    /// All records before it are in the state.
    pub position: RecordPosition,
    /// The part before, by its id, or 0: what lies between the two is in the one that was sealed here.
    pub since: u64,
    /// Checksum of the part that was sealed here; `None` if there was nothing for one.
    pub part: Option<u32>,
    /// XXH3 of all else that the state holds.
    pub state: u64,
}

impl SealedAt {
    /// What two replicas had of the same position and should have had alike, if it differs.
    pub fn differs(&self, other: &Self) -> Option<&'static str> {
        if self.position != other.position {
            None
        } else if self.state != other.state {
            Some("what is known of topics, groups and transactions")
        } else if self.since == other.since && self.part != other.part {
            // A replica that had to make room in between has other parts.
            Some("the index of messages")
        } else {
            None
        }
    }
}
