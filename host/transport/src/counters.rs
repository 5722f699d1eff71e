//! What is counted, for whoever exports metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::identity::Lane;

/// Whose connections are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DialedBy {
    /// This node dialed.
    Us,
    /// The peer dialed.
    Peer,
}

/// What was counted of one lane with one peer, since this node first heard of the peer. Bytes are those of frames, with their
/// headers and without TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneCounts {
    /// Frames that were handed to the system.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Frames that were read whole, with right checksums.
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// What was to be sent and was not: datagrams, and calls that were refused for want of room or of a connection.
    pub dropped: u64,
    /// Frames that were damaged on the way; each ended its connection.
    pub bad_checksums: u64,
    /// Connections that were made. All but the first are reconnects.
    pub connects: u64,
    /// Connections that are open now.
    pub connected: u64,
    /// Why the last connection ended, or was not made.
    pub last_error: Option<String>,
}

/// The counters behind [`LaneCounts`].
#[derive(Debug, Default)]
pub(crate) struct LaneCounters {
    pub(crate) frames_sent: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) frames_received: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) bad_checksums: AtomicU64,
    pub(crate) connects: AtomicU64,
    pub(crate) connected: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl LaneCounters {
    /// A frame of so many bytes was handed to the system.
    pub(crate) fn sent(&self, bytes: usize) {
        self.frames_sent.fetch_add(1, Relaxed);
        self.bytes_sent.fetch_add(bytes as u64, Relaxed);
    }

    /// A frame of so many bytes was read, and is right.
    pub(crate) fn received(&self, bytes: usize) {
        self.frames_received.fetch_add(1, Relaxed);
        self.bytes_received.fetch_add(bytes as u64, Relaxed);
    }

    /// Something was to be sent and was not.
    pub(crate) fn drop_one(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    /// A connection is open until what this returns is dropped.
    pub(crate) fn open(self: &Arc<Self>) -> OpenCounted {
        self.connects.fetch_add(1, Relaxed);
        self.connected.fetch_add(1, Relaxed);
        OpenCounted(self.clone())
    }

    /// Notes why a connection ended. Returns whether that is another reason than last time: only then it is worth a line.
    pub(crate) fn fail(&self, why: &str) -> bool {
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = last.as_deref() != Some(why);
        *last = Some(why.to_owned());
        is_new
    }

    fn counts(&self) -> LaneCounts {
        LaneCounts {
            frames_sent: self.frames_sent.load(Relaxed),
            bytes_sent: self.bytes_sent.load(Relaxed),
            frames_received: self.frames_received.load(Relaxed),
            bytes_received: self.bytes_received.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            bad_checksums: self.bad_checksums.load(Relaxed),
            connects: self.connects.load(Relaxed),
            connected: self.connected.load(Relaxed),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// A connection that is counted as open.
#[derive(Debug)]
pub(crate) struct OpenCounted(Arc<LaneCounters>);

impl Drop for OpenCounted {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Relaxed);
    }
}

/// One row for each peer, direction and lane.
pub type TrafficCounts = BTreeMap<(u64, DialedBy, Lane), LaneCounts>;

/// All counters of a transport. It has rows for peers only: a stranger makes none.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    rows: Mutex<BTreeMap<(u64, DialedBy, Lane), Arc<LaneCounters>>>,
}

impl Traffic {
    /// The row of these, which is made if there is none.
    pub(crate) fn of(&self, node: u64, by: DialedBy, lane: Lane) -> Arc<LaneCounters> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).entry((node, by, lane)).or_default().clone()
    }

    /// Forgets a peer that was removed. A link to it that somebody has keeps its row: it may come back.
    pub(crate) fn forget(&self, node: u64) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.retain(|(of, by, _), counters| *of != node || (*by == DialedBy::Us && Arc::strong_count(counters) > 1));
    }

    /// What all rows say now.
    pub(crate) fn counts(&self) -> TrafficCounts {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter().map(|(key, counters)| (*key, counters.counts())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_told_by_peer_direction_and_lane() {
        let traffic = Traffic::default();
        let counters = traffic.of(2, DialedBy::Us, Lane::Calls);
        counters.sent(100);
        counters.received(7);
        counters.drop_one();
        let open = counters.open();
        assert!(counters.fail("gone") && !counters.fail("gone") && counters.fail("refused"));
        traffic.of(3, DialedBy::Peer, Lane::Group(1));
        let counts = traffic.counts();
        assert_eq!(counts.len(), 2);
        let expected = LaneCounts {
            frames_sent: 1,
            bytes_sent: 100,
            frames_received: 1,
            bytes_received: 7,
            dropped: 1,
            connects: 1,
            connected: 1,
            last_error: Some("refused".to_owned()),
            ..LaneCounts::default()
        };
        assert_eq!(counts[&(2, DialedBy::Us, Lane::Calls)], expected);
        drop(open);
        assert_eq!(traffic.counts()[&(2, DialedBy::Us, Lane::Calls)].connected, 0);
        traffic.forget(2);
        assert_eq!(traffic.counts().len(), 2, "somebody counts on");
        drop(counters);
        traffic.forget(2);
        assert_eq!(traffic.counts().len(), 1);
    }
}
