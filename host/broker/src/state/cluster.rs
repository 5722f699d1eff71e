//! What the log says about the cluster itself.

use super::snapshot::{SectionSource, Snapshot, Unreadable};
use crate::Millis;
use crate::record::codec::{Reader, Writer};
use crate::record::{ClusterInit, Fields, SnapshotNamed};

/// Identity of the cluster and the log's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The first record of the log; `None` before it.
    pub init: Option<ClusterInit>,
    /// Version of Vouch that last opened the log for writing.
    pub last_version: String,
    /// Latest leader time in the log: no later record has an earlier one.
    pub clock: Millis,
}

impl Cluster {
    /// The feature level of the log, above which nothing is written; `None` before its first record.
    pub fn level(&self) -> Option<u32> {
        self.init.as_ref().map(|init| init.feature_level)
    }

    /// Whether the log names the positions at which snapshots are made: see [`SnapshotNamed`].
    pub fn names_snapshots(&self) -> bool {
        self.level().is_some_and(|level| level >= SnapshotNamed::LEVEL)
    }
}

impl Snapshot for Cluster {
    const SECTION: u16 = 1;

    fn write(&self, w: &mut Writer<'_>, _: u8) {
        let Self { init, last_version, clock } = self;
        w.option(init.as_ref(), |w, init| init.write(w));
        w.text(last_version);
        w.u64(clock.0);
    }

    fn read(r: &mut Reader<'_>, _: &SectionSource<'_>) -> Result<Self, Unreadable> {
        Ok(Self {
            init: r.option("cluster", ClusterInit::read)?,
            last_version: r.string("last version")?,
            clock: Millis(r.u64("clock")?),
        })
    }
}
