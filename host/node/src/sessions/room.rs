//! Room for sessions: how many there are, what they hold, and who goes first where there is none.
//!
//! A newcomer takes the place of a session that made no call but its settings and whose stream is gone; if there is
//! none, of one that is silent for [`SPOKE_LATELY`] and has neither an open stream nor a lease. Clients of one address
//! have half of the room at most, so that one machine does not shut out all others.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vouch_broker::{ResourceName, TagFilter};

use super::table::{Declared, Session, Table};
use super::{Client, SESSIONS_MAX};

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
/// Silent sessions that are looked at for one newcomer.
const LOOKS: usize = 64;

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
pub(super) struct Bounds {
    pub(super) sessions: usize,
    pub(super) bytes: usize,
    pub(super) session_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { sessions: SESSIONS_MAX, bytes: BYTES_MAX, session_bytes: SESSION_BYTES_MAX }
    }
}

/// When, and which client.
type Since = (Instant, Arc<str>);

#[derive(Default)]
struct Used {
    sessions: usize,
    bytes: usize,
    /// Sessions that made no call but their settings and have no stream, by when that closed.
    mute: BTreeSet<Since>,
}

/// What sessions take, and the orders in which they go.
#[derive(Default)]
pub(super) struct Room {
    pub(super) bounds: Bounds,
    all: Used,
    shares: HashMap<IpAddr, Used>,
    /// All sessions, by a time no later than when they were heard.
    silent: BTreeSet<Since>,
    /// Where the last search among the silent ones stopped at one that stays.
    searched_to: Option<Since>,
}

/// What stands for one machine, as far as an address tells: a customer of an IPv6 network has 64 bits to choose from.
pub fn machine(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Room {
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
    fn lacks(&self, address: Option<IpAddr>, sessions: usize, bytes: usize) -> Option<NoRoom> {
        let Bounds { sessions: sessions_max, bytes: bytes_max, .. } = self.bounds;
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

impl Declared {
    /// Bytes that a session counts for which holds this.
    fn bytes(&self) -> usize {
        let topics: usize = self.topics.iter().map(name_bytes).sum();
        let filters: usize = self.subscriptions.iter().map(|(topic, filter)| subscription_bytes(topic, filter)).sum();
        SESSION_BYTES + self.group.as_ref().map_or(0, name_bytes) + topics + filters
    }
}

fn name_bytes(name: &ResourceName) -> usize {
    2 * (NAME_BYTES + name.namespace.len() + name.name.len())
}

/// Bytes that one subscription counts for.
pub(super) fn subscription_bytes(topic: &ResourceName, filter: &TagFilter) -> usize {
    let filter = match filter {
        TagFilter::All => 0,
        TagFilter::Tags(tags) => 2 * size_of_val(tags.as_slice()),
    };
    name_bytes(topic) + filter
}

impl Table {
    /// Sees to it that a client's session can hold this. Returns the bytes that it will count for.
    pub(super) fn make_room(&mut self, client: Client<'_>, declared: &Declared, now: Instant) -> Result<usize, NoRoom> {
        self.make_room_for(client, declared.bytes(), now)
    }

    /// Sees to it that a client's session can count for so many bytes, and returns them.
    pub(super) fn make_room_for(&mut self, client: Client<'_>, bytes: usize, now: Instant) -> Result<usize, NoRoom> {
        let max = self.room.bounds.session_bytes;
        if bytes > max {
            return Err(NoRoom::Declaration { bytes, max });
        }
        let (address, sessions, more) = match self.by_client.get(client.id) {
            Some(session) => (session.address, 0, bytes.saturating_sub(session.bytes)),
            None => (client.address, 1, bytes),
        };
        if sessions == 0 && more == 0 {
            return Ok(bytes);
        }
        while let Some(lack) = self.room.lacks(address, sessions, more) {
            let of = match lack {
                NoRoom::Share(machine) => Some(machine),
                _ => None,
            };
            let Some(id) = self.first_to_go(of, client.id, now) else { return Err(lack) };
            tracing::debug!(client = &*id, "session ended: another client needs its place");
            // Whoever is silent for so long has no lease.
            self.end_by_silence(&id, &mut Vec::new());
        }
        Ok(bytes)
    }

    /// The session that makes room, of this machine or of all, but not the one `but`.
    fn first_to_go(&mut self, of: Option<IpAddr>, but: &str, now: Instant) -> Option<Arc<str>> {
        let used = match of {
            Some(machine) => self.room.shares.get(&machine)?,
            None => &self.room.all,
        };
        let mute = used.mute.iter().map(|(_, id)| id).find(|id| ***id != *but);
        mute.cloned().or_else(|| self.silent_to_go(of, but, now))
    }

    /// One search costs [`LOOKS`] at most, and the next one goes on where it stopped.
    fn silent_to_go(&mut self, of: Option<IpAddr>, but: &str, now: Instant) -> Option<Arc<str>> {
        for _ in 0..LOOKS {
            let from = self.room.searched_to.take();
            let next = match &from {
                Some(place) => self.room.silent.range((Excluded(place), Unbounded)).next(),
                None => self.room.silent.first(),
            };
            let silent = |at: Instant| now.saturating_duration_since(at) >= SPOKE_LATELY;
            let Some((at, id)) = next.filter(|(at, _)| silent(*at)).cloned() else {
                // Whoever comes behind was heard of late. Those before are looked at once more.
                from.as_ref()?;
                continue;
            };
            let session = self.by_client.get_mut(&id)?;
            if session.last_heard > at {
                self.room.heard_since(&id, session);
                self.room.searched_to = from;
                continue;
            }
            let leased = session.leased_until.is_some_and(|until| until > now);
            let stays = leased || session.has_open_stream() || *id == *but;
            if stays || of.is_some_and(|of| session.address.map(machine) != Some(of)) {
                self.room.searched_to = Some((at, id));
                continue;
            }
            self.room.searched_to = from;
            return Some(id);
        }
        None
    }
}
