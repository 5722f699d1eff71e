//! Segments that nobody needs.

use std::ops::Range;
use std::sync::atomic::Ordering;

use vouch_broker::NotDone;
use vouch_commitlog::{LogPosition, Released};
use vouch_storage::SnapshotBounds;

use super::Retention;

/// Releases the segments that neither snapshot needs, nor another node of the cluster as far as this one knows. Both snapshots are
/// read back first: from then on the log alone says no longer what happened.
pub(super) async fn release(of: &Retention, bounds: SnapshotBounds) -> Result<(), NotDone> {
    let Some(older) = bounds.older else { return Ok(()) };
    let needed = of.shard.group().await?.needed_from.unwrap_or(LogPosition::BEYOND);
    let before = older.log_from().min(bounds.newer.log_from()).min(needed);
    let Range { start, end } = of.upkeep.housekeeping.usage().start..before;
    if end.saturating_since(start) < of.segment_size {
        return Ok(());
    }
    let releasing = of.upkeep.clone();
    let released = tokio::task::spawn_blocking(move || {
        // From here on the log alone says no longer what happened: both must be readable.
        if let Err(error) = releasing.snapshotter.read_back([older, bounds.newer]) {
            // If a newer one came and took the place of the older, the next pass goes by those that are kept now.
            if releasing.snapshotter.bounds() == Some(bounds) {
                tracing::error!(%error, "a snapshot cannot be read back; no segment is released");
            }
            return Ok(Released::default());
        }
        releasing.housekeeping.release_before(before)
    })
    .await;
    match released {
        Ok(Ok(released)) if released.segments > 0 => {
            of.report.segments.fetch_add(released.segments, Ordering::Relaxed);
            let (segments, kept, start) = (released.segments, released.kept, released.start.0);
            tracing::info!(segments, kept, start, "released segments that nobody needs");
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "old segments could not be released"),
        Err(error) => tracing::error!(%error, "releasing old segments ended by a panic"),
    }
    Ok(())
}
