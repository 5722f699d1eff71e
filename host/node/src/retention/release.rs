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
    // What two replicas know otherwise the log alone can settle: all of it stays until that is done.
    if of.snapshots.comparison().doubt().is_some() {
        return Ok(());
    }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use vouch_broker::record::SealedAt;
    use vouch_broker::testing::message;
    use vouch_broker::{NewMessage, RecordPosition, ResourceName};

    use crate::{Expect, Node, NodeConfig, SendRequest};

    const MIB: usize = 1 << 20;
    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Sends mebibytes until this holds.
    async fn send_until(node: &Node, holds: impl Fn() -> bool) {
        let began = Instant::now();
        for n in 0.. {
            if holds() {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "it never comes true, after {n} messages");
            let message = NewMessage { body: Bytes::from(vec![7; MIB]), ..message(&format!("m{n}")) };
            let (topic, producer) = (ResourceName::plain("t"), "p".to_owned());
            node.messages.send(SendRequest { topic, producer, messages: vec![message] }).await.unwrap();
            // Snapshots, which let go of the log, are not to be left far behind.
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    #[tokio::test]
    async fn no_segment_goes_while_it_is_not_known_who_is_right_and_then_they_go() {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start(NodeConfig {
            segment_size: Some(4 << 20),
            zero_ahead: 1 << 20,
            snapshot_every: 1 << 20,
            retention_every: Duration::from_millis(20),
            ..NodeConfig::new(folder.path())
        });
        let node = node.unwrap();
        let retention = serde_json::from_str(r#"{"queues": 1, "retention_size": "1MiB"}"#).unwrap();
        node.settings.put_topic("t", retention, Expect::Anything).await.unwrap();
        let comparison = node.cluster.snapshots.comparison();
        // Of a position that the log never names: the doubt stays until the end.
        let had = |state| SealedAt { position: RecordPosition(u64::MAX), since: 0, part: None, state };
        comparison.has(&[had(1)]);
        comparison.told([had(2)]);
        let expired = || node.status.retention().expired.load(Ordering::Relaxed);
        send_until(&node, || expired() >= 40).await;
        assert_eq!(node.status.log_usage().start.0, 0);
        comparison.decided(RecordPosition(u64::MAX));
        send_until(&node, || node.status.log_usage().start.0 >= 8 << 20).await;
        node.stop().await;
    }
}
