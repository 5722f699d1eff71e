//! Opening a log: recovery, then the parts put together.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{Disk, RealDisk};
use crate::factory::SegmentFactory;
use crate::format::checksum_seed;
use crate::group_commit::{Durable, GroupCommit, OnDurable};
use crate::horizon::Horizon;
use crate::preallocate::Preallocator;
use crate::reader::View;
use crate::recovery::{OnEntry, recover};
use crate::settled::SettledEnd;
use crate::{Appender, Entry, LogConfig, LogReader, OpenError, Recovery, Settles};

/// The commit log of one shard: an endless sequence of checksummed entries in segment files.
pub struct CommitLog;

impl CommitLog {
    /// Opens the log of a folder, or creates it, and recovers it.
    ///
    /// Recovery hands every entry behind the checkpoint (or all of them) to `on_entry`, in order, once, while it verifies them; cuts a
    /// torn tail; and syncs what it read before it returns, so that everything before [`Recovery::end`] is durable.
    /// Keep to yourself what you learn in `on_entry` until `open` has returned: if it fails, drop it all.
    ///
    /// `on_durable` is told, in order, how far appended entries are durable. It is called from the log's own threads,
    /// must return quickly and must not panic.
    ///
    /// # Errors
    /// [`OpenError`]; interior damage (ruling 17) is refused with segment and position, and never cut.
    pub fn open<E: Into<Box<dyn Error + Send + Sync>>>(
        config: LogConfig,
        on_durable: Box<dyn Fn(Durable) + Send + Sync>,
        on_entry: &mut dyn FnMut(Entry) -> Result<(), E>,
    ) -> Result<(Appender, LogReader, Recovery), OpenError> {
        config.validate()?;
        let io = |action| {
            let file = config.directory.clone();
            move |source| OpenError::Io { action, file, source }
        };
        let disk = Arc::new(RealDisk::open(&config.directory).map_err(io("open the folder"))?);
        let mut on_entry = |entry| on_entry(entry).map_err(Into::into);
        let (mut appender, reader, recovery) = open_on(disk, &config, on_durable, &mut on_entry)?;
        appender.start(config.syncs_in_flight).map_err(io("start the threads for"))?;
        if let Some(cut) = &recovery.cut {
            tracing::warn!(
                at = cut.at.0,
                bytes = cut.bytes,
                reason = cut.reason,
                "cut the torn tail of the commit log"
            );
        }
        Ok((appender, reader, recovery))
    }
}

/// Opens a log on any disk, without starting its threads.
pub(crate) fn open_on(
    disk: Arc<dyn Disk>,
    config: &LogConfig,
    on_durable: OnDurable,
    on_entry: &mut OnEntry<'_>,
) -> Result<(Appender, LogReader, Recovery), OpenError> {
    let factory = SegmentFactory {
        disk: disk.clone(),
        cluster_id: config.cluster_id,
        shard: config.shard,
        segment_size: config.segment_size,
        syncs_in_flight: config.syncs_in_flight,
        spares: Arc::default(),
    };
    let recovered = recover(&factory, config, on_entry)?;
    factory.adopt_spares(recovered.segment.start).map_err(|source| OpenError::Io {
        action: "look at the spare files in",
        file: config.directory.clone(),
        source,
    })?;
    let end = recovered.tail.end;
    let seed = checksum_seed(&config.cluster_id, config.shard);
    let path_of = Box::new(move |name: &str| -> PathBuf { disk.path(name) });
    // All that recovery kept is durable. In the log of a single node it stays, too.
    let (from, with_durable) = match config.settles {
        Settles::WithDurable => (end, true),
        Settles::ByCaller { from } => (from.0.min(end), false),
    };
    let settled = Arc::new(SettledEnd::at(from));
    let stays = with_durable.then(|| settled.clone());
    let commit = Arc::new(GroupCommit::new(end, stays, recovered.segment.clone(), on_durable, path_of));
    let view = Arc::new(View::new(config.segment_size, seed, recovered.start, recovered.mappings, end, settled));
    let segment = recovered.segment;
    let horizon = Horizon::new(seed);
    let space = Preallocator::new(factory, config.zero_ahead, segment.clone(), recovered.prepared_to, horizon);
    let space = Arc::new(space);
    let appender = Appender::new(commit, space, view.clone(), segment, recovered.tail);
    Ok((appender, LogReader::new(view), recovered.report))
}
