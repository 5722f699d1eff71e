//! Whose leases live on: the broker renews those of push consumers while their clients live (protocol paper §4.6.4).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vouch_leader::Dead;

use super::Sessions;
use super::session::Session;

/// A consumer without a stream that was not heard for this long is dead: push consumers send a heartbeat every 10 s.
pub const DEAD_AFTER: Duration = Duration::from_secs(30);
/// Consumers that left with leases and have [`DEAD_AFTER`] to acknowledge what they work on. The leases of one more run
/// out by themselves.
pub(super) const LEFT_MAX: usize = 10_000;
/// How far a renewal carries a lease, as an upper bound.
const RENEWED_FOR: Duration = Duration::from_secs(90);

/// That of a session that ended, unless it had no leases, or they were given up before.
pub(super) fn dead_consumer(id: &Arc<str>, session: &Session) -> Option<Dead> {
    let group = session.declared.group.clone()?;
    (session.leased_until.is_some() && !session.dead).then(|| Dead { client_id: Arc::clone(id), group })
}

/// Consumers whose leases may have to be given up.
#[derive(Default)]
pub(super) struct LeaseLife {
    /// Sessions without a stream, by when they were heard; they may have been heard since.
    pub(super) fading: BTreeSet<(Instant, Arc<str>)>,
    /// Consumers that said that they leave, by when they did.
    pub(super) left: BTreeSet<(Instant, Dead)>,
}

impl LeaseLife {
    /// A consumer may have no stream now.
    pub(super) fn fade(&mut self, id: &Arc<str>, session: &mut Session) {
        if session.streams.is_empty() && session.declared.group.is_some() && !session.fading && !session.dead {
            session.fading = true;
            self.fading.insert((session.last_heard, Arc::clone(id)));
        }
    }

    /// A client was heard.
    pub(super) fn revive(&mut self, id: &Arc<str>, session: &mut Session) {
        session.dead = false;
        self.fade(id, session);
    }

    /// A client said that it leaves, and its session ended with that.
    pub(super) fn left(&mut self, id: Arc<str>, session: Session, now: Instant) {
        if self.left.len() < LEFT_MAX {
            self.left.extend(dead_consumer(&id, &session).map(|dead| (now, dead)));
        }
    }

    /// Whether a consumer that was last heard then is dead.
    pub(super) fn long_ago(at: Instant, now: Instant) -> bool {
        now.saturating_duration_since(at) > DEAD_AFTER
    }
}

impl Sessions {
    /// The client was handed messages; their leases live until then unless it acknowledges them.
    pub(crate) fn leased(&self, client_id: &str, until: Instant) {
        if let Some(session) = self.table().by_client.get_mut(client_id) {
            session.lease_until(until);
        }
    }

    /// Whether leases of this client are to be renewed: its session lives, and it has a stream or was heard of late.
    pub(crate) fn keeps_leases(&self, client_id: &str, now: Instant) -> bool {
        let mut table = self.table();
        // It may have a session with a node that has not told of it yet.
        let awaits = table.leadership.as_ref().is_some_and(|leadership| leadership.awaits_others(now));
        let session = table.by_client.get_mut(client_id).filter(|session| session.keeps_leases(now));
        session.map(|session| session.lease_until(now + RENEWED_FOR)).is_some() || awaits
    }
}

impl Session {
    pub(super) fn lease_until(&mut self, until: Instant) {
        self.leased_until = self.leased_until.max(Some(until));
    }

    pub(super) fn keeps_leases(&self, now: Instant) -> bool {
        self.has_open_stream() || !LeaseLife::long_ago(self.last_heard, now)
    }
}
