//! Room for sessions: how many there are, what they hold, and who goes first where there is none.
//!
//! A newcomer takes the place of a session that made no call but its settings and whose stream is gone; if there is
//! none, of one that is silent for [`SPOKE_LATELY`] and has neither an open stream nor a lease. Clients of one address
//! have half of the room at most, so that one machine does not shut out all others.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vouch_broker::{ResourceName, TagFilter};

use super::SESSIONS_MAX;
use super::session::{DeclaredByClient, Session};

/// A session that was heard this recently makes room for nobody.
pub(super) const SPOKE_LATELY: Duration = Duration::from_secs(60);
/// What all sessions together may hold, in bytes.
const BYTES_MAX: usize = 256 << 20;
/// What one client may declare, in bytes: 1 024 topics with the longest names, or filters of 256 tags on a hundred.
const SESSION_BYTES_MAX: usize = 512 << 10;
/// A session counts for this many bytes and what it declared.
const SESSION_BYTES: usize = 1024;
/// A name in a session counts for this many bytes and its length, twice: it is in an index as well.
const NAME_BYTES: usize = 96;

/// Why a client gets no session, or its session cannot hold more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// All places are taken by clients that live. Try again later.
    #[error("{0} clients are connected, which is the bound; stop some and try again")]
    Sessions(usize),
    /// What clients declared fills the memory that is set aside for it. Try again later.
    #[error("what connected clients declared fills {0} bytes, which is the bound; stop some and try again")]
    Bytes(usize),
    /// Clients of this address have their share. Try again later, or from another address.
    #[error("clients of {0} hold half of all room for sessions, which is the bound; stop some and try again")]
    Share(IpAddr),
    /// This client declares too much. Declare less.
    #[error(
        "the topics and filters of this client take {bytes} bytes, and at most {max} are allowed; use fewer, or \
         several clients"
    )]
    Declaration {
        /// What it would take.
        bytes: usize,
        /// The bound.
        max: usize,
    },
}

/// How much there may be of what. Not settings: parameters, so that a test need not fill a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoomBounds {
    pub(super) sessions: usize,
    pub(super) bytes: usize,
    pub(super) session_bytes: usize,
}

impl Default for RoomBounds {
    fn default() -> Self {
        Self { sessions: SESSIONS_MAX, bytes: BYTES_MAX, session_bytes: SESSION_BYTES_MAX }
    }
}

/// When, and which client.
pub(super) type SilentSince = (Instant, Arc<str>);

/// What some sessions take.
#[derive(Default)]
pub(super) struct Used {
    sessions: usize,
    bytes: usize,
    /// Sessions that made no call but their settings and have no stream, by when that closed.
    pub(super) mute: BTreeSet<SilentSince>,
}

/// What sessions take, and the orders in which they go.
#[derive(Default)]
pub(super) struct SessionRoom {
    pub(super) bounds: RoomBounds,
    pub(super) all: Used,
    pub(super) shares: HashMap<IpAddr, Used>,
    /// All sessions, by a time no later than when they were heard.
    pub(super) silent: BTreeSet<SilentSince>,
    /// Where the last search among the silent ones stopped at one that stays.
    pub(super) searched_to: Option<SilentSince>,
}

/// What stands for one machine, as far as an address tells: a customer of an IPv6 network has 64 bits to choose from.
pub fn machine(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl SessionRoom {
    /// Changes what all sessions take, and what those of one machine take.
    fn used(&mut self, address: Option<IpAddr>, each: impl Fn(&mut Used)) {
        each(&mut self.all);
        if let Some(machine) = address.map(machine) {
            let share = self.shares.entry(machine).or_default();
            each(share);
            if share.sessions == 0 {
                self.shares.remove(&machine);
            }
        }
    }

    /// What is missing for so much more.
    pub(super) fn lacks(&self, address: Option<IpAddr>, sessions: usize, bytes: usize) -> Option<NoRoom> {
        let RoomBounds { sessions: sessions_max, bytes: bytes_max, .. } = self.bounds;
        if let Some(machine) = address.map(machine)
            && let Some(share) = self.shares.get(&machine)
            && (share.sessions + sessions > sessions_max / 2 || share.bytes + bytes > bytes_max / 2)
        {
            return Some(NoRoom::Share(machine));
        }
        if self.all.sessions + sessions > sessions_max {
            return Some(NoRoom::Sessions(sessions_max));
        }
        (self.all.bytes + bytes > bytes_max).then_some(NoRoom::Bytes(bytes_max))
    }

    /// A session holds other things now.
    pub(super) fn grow(&mut self, address: Option<IpAddr>, before: usize, after: usize) {
        self.used(address, |used| used.bytes = used.bytes + after - before);
    }

    /// A session begins.
    pub(super) fn enter(&mut self, id: &Arc<str>, session: &Session) {
        self.used(session.address, |used| {
            used.sessions += 1;
            used.bytes += session.bytes;
        });
        self.silent.insert((session.silent_from, Arc::clone(id)));
        if session.is_mute() {
            self.mute(id, session.address, session.streamless_since);
        }
    }

    /// A session ended.
    pub(super) fn leave(&mut self, id: &Arc<str>, session: &Session) {
        if session.is_mute() {
            self.not_mute(id, session.address, session.streamless_since);
        }
        self.silent.remove(&(session.silent_from, Arc::clone(id)));
        self.used(session.address, |used| {
            used.sessions -= 1;
            used.bytes -= session.bytes;
        });
    }

    /// The stream of a client that only sent its settings closed.
    pub(super) fn mute(&mut self, id: &Arc<str>, address: Option<IpAddr>, since: Instant) {
        self.used(address, |used| {
            used.mute.insert((since, Arc::clone(id)));
        });
    }

    /// Such a client came back.
    pub(super) fn not_mute(&mut self, id: &Arc<str>, address: Option<IpAddr>, since: Instant) {
        let place = (since, Arc::clone(id));
        self.used(address, |used| {
            used.mute.remove(&place);
        });
    }

    /// A session that only sent its settings and has no stream for this long.
    pub(super) fn mute_since(&self, now: Instant, limit: Duration) -> Option<Arc<str>> {
        let (since, id) = self.all.mute.first()?;
        (now.saturating_duration_since(*since) >= limit).then(|| Arc::clone(id))
    }

    /// A session that may be silent for longer than this.
    pub(super) fn silent_since(&self, now: Instant, limit: Duration) -> Option<Arc<str>> {
        let (from, id) = self.silent.first()?;
        (now.saturating_duration_since(*from) > limit).then(|| Arc::clone(id))
    }

    /// A session was heard since it got its place in the order of silence.
    pub(super) fn heard_since(&mut self, id: &Arc<str>, session: &mut Session) {
        self.silent.remove(&(session.silent_from, Arc::clone(id)));
        session.silent_from = session.last_heard;
        self.silent.insert((session.silent_from, Arc::clone(id)));
    }
}

/// Bytes that one subscription counts for.
pub(super) fn subscription_bytes(topic: &ResourceName, filter: &TagFilter) -> usize {
    let filter = match filter {
        TagFilter::All => 0,
        TagFilter::Tags(tags) => 2 * size_of_val(tags.as_slice()),
    };
    name_bytes(topic) + filter
}

impl DeclaredByClient {
    /// Bytes that a session counts for which holds this.
    pub(super) fn bytes(&self) -> usize {
        let topics: usize = self.topics.iter().map(name_bytes).sum();
        let filters: usize = self.subscriptions.iter().map(|(topic, filter)| subscription_bytes(topic, filter)).sum();
        SESSION_BYTES + self.group.as_ref().map_or(0, name_bytes) + topics + filters
    }
}

/// Bytes that a name counts for.
fn name_bytes(name: &ResourceName) -> usize {
    2 * (NAME_BYTES + name.namespace.len() + name.name.len())
}
