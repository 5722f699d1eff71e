//! One client, and what it declared.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use vouch_broker::{ResourceName, TagFilter};

use super::questions::TelemetryStream;
use super::{Declaration, SessionRole};

/// Streams of one client that commands may go over; of more, the newest.
pub(super) const STREAMS_MAX: usize = 64;

/// What a session holds about its client, fit to be compared and looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DeclaredByClient {
    pub(super) role: SessionRole,
    pub(super) topics: BTreeSet<ResourceName>,
    pub(super) group: Option<ResourceName>,
    pub(super) subscriptions: BTreeMap<ResourceName, TagFilter>,
    /// The client said so in its settings; else it follows from its calls.
    pub(super) told: bool,
}

impl DeclaredByClient {
    /// What settings say.
    pub(super) fn told(declaration: Declaration) -> Self {
        let Declaration { role, topics, group, subscriptions } = declaration;
        let (topics, subscriptions) = (topics.into_iter().collect(), subscriptions.into_iter().collect());
        Self { role, topics, group, subscriptions, told: true }
    }
}

/// What is known of one client.
pub(super) struct Session {
    pub(super) declared: DeclaredByClient,
    /// Topics that the client sent half messages to, among those it declared or not.
    pub(super) halves: BTreeSet<ResourceName>,
    pub(super) streams: Vec<Arc<dyn TelemetryStream>>,
    pub(super) last_heard: Instant,
    /// When it last said something new of itself.
    pub(super) declared_at: Instant,
    /// It made a call besides its settings.
    pub(super) called: bool,
    /// When its last stream closed; when it began, if it never had one.
    pub(super) streamless_since: Instant,
    /// Leases of this client may live until then; `None` if it never got one.
    pub(super) leased_until: Option<Instant>,
    /// It waits in the order of those that may be dead.
    pub(super) fading: bool,
    /// Its leases were given up.
    pub(super) dead: bool,
    /// Tells this session from an earlier one of the same client, which was lost.
    pub(super) generation: u64,
    /// Whose share it is in.
    pub(super) address: Option<IpAddr>,
    /// Bytes that it counts for.
    pub(super) bytes: usize,
    /// Its place in the order of silence: no later than when it was last heard.
    pub(super) silent_from: Instant,
}

impl Session {
    /// Whether a question can be handed to it now.
    pub(super) fn has_open_stream(&self) -> bool {
        self.streams.iter().any(|stream| stream.is_open())
    }

    /// It made no call but its settings, and its stream is gone.
    pub(super) fn is_mute(&self) -> bool {
        !self.called && self.streams.is_empty()
    }
}

/// Adds a stream to a client's, as the newest one.
pub(super) fn add_stream(streams: &mut Vec<Arc<dyn TelemetryStream>>, stream: Arc<dyn TelemetryStream>) {
    streams.retain(|old| old.is_open() && !Arc::ptr_eq(old, &stream));
    if streams.len() >= STREAMS_MAX {
        streams.remove(0);
    }
    streams.push(stream);
}
