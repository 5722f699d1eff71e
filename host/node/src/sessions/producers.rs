//! Producers by what they can be asked about, and the streams that lead to them.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use vouch_broker::ResourceName;

use super::questions::TelemetryStream;
use super::session::add_stream;

/// Streams that are kept for clients that are not known yet; one more counts when its client's settings come.
pub(super) const EARLY_MAX: usize = 10_000;
/// Producers that are remembered past their session.
pub(super) const REMEMBERED_MAX: usize = 4096;
/// Topics of one of them.
const REMEMBERED_TOPICS_MAX: usize = 64;

/// Producers by what they can be asked about.
#[derive(Default)]
pub(super) struct Producers {
    /// Those that have a stream, by topic.
    pub(super) by_topic: HashMap<ResourceName, Askable>,
    /// Streams of clients that are not known: they count as soon as a call says who that is.
    early: HashMap<Arc<str>, Vec<Arc<dyn TelemetryStream>>>,
    /// How many these are.
    early_len: usize,
    /// Topics of producers whose session ended by silence: their settings come minutes after they are back, if ever.
    remembered: HashMap<Arc<str>, BTreeSet<ResourceName>>,
    /// The order in which they are forgotten; holds some that came back, too.
    forgotten_next: VecDeque<Arc<str>>,
}

/// Producers of a topic.
#[derive(Default)]
pub(super) struct Askable {
    pub(super) clients: BTreeSet<Arc<str>>,
    /// The one that was asked last: the next question goes to the next one.
    pub(super) asked: Option<Arc<str>>,
}

impl Producers {
    /// A client can be asked about these topics.
    pub(super) fn list(&mut self, id: &Arc<str>, topics: &BTreeSet<ResourceName>) {
        for topic in topics {
            self.by_topic.entry(topic.clone()).or_default().clients.insert(Arc::clone(id));
        }
    }

    /// It cannot any more.
    pub(super) fn unlist(&mut self, id: &Arc<str>, topics: &BTreeSet<ResourceName>) {
        for topic in topics {
            if let Some(askable) = self.by_topic.get_mut(topic) {
                askable.clients.remove(id);
                if askable.clients.is_empty() {
                    self.by_topic.remove(topic);
                }
            }
        }
    }

    /// Keeps a stream for a client that is not known.
    pub(super) fn keep_for(&mut self, client_id: &str, stream: Arc<dyn TelemetryStream>) {
        if self.early_len >= EARLY_MAX || !stream.is_open() {
            return;
        }
        let mut streams = self.claim(client_id);
        add_stream(&mut streams, stream);
        self.early_len += streams.len();
        self.early.insert(client_id.into(), streams);
    }

    /// Streams of clients that are not known.
    #[cfg(test)]
    pub(super) fn early_streams(&self) -> usize {
        assert_eq!(self.early.values().map(Vec::len).sum::<usize>(), self.early_len);
        self.early_len
    }

    /// The streams that were kept for a client.
    pub(super) fn claim(&mut self, client_id: &str) -> Vec<Arc<dyn TelemetryStream>> {
        let mut streams = self.early.remove(client_id).unwrap_or_default();
        self.early_len -= streams.len();
        streams.retain(|stream| stream.is_open());
        streams
    }

    /// A stream closed.
    pub(super) fn forget_stream(&mut self, client_id: &str, stream: &Arc<dyn TelemetryStream>) {
        let Some(streams) = self.early.get_mut(client_id) else { return };
        let before = streams.len();
        streams.retain(|kept| !Arc::ptr_eq(kept, stream));
        self.early_len -= before - streams.len();
        if streams.is_empty() {
            self.early.remove(client_id);
        }
    }

    /// Remembers what a producer could be asked about.
    pub(super) fn remember(&mut self, id: Arc<str>, topics: BTreeSet<ResourceName>) {
        if topics.is_empty() || topics.len() > REMEMBERED_TOPICS_MAX {
            return;
        }
        while self.forgotten_next.len() >= REMEMBERED_MAX {
            if let Some(oldest) = self.forgotten_next.pop_front() {
                self.remembered.remove(&oldest);
            }
        }
        self.forgotten_next.push_back(Arc::clone(&id));
        self.remembered.insert(id, topics);
    }

    /// What a producer could be asked about before its session ended by silence.
    pub(super) fn recall(&mut self, client_id: &str) -> BTreeSet<ResourceName> {
        self.remembered.remove(client_id).unwrap_or_default()
    }
}
