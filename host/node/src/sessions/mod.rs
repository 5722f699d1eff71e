//! Client instances as the broker knows them: who is alive, what it declared, and how to reach it (protocol paper §4.0).
//!
//! Belongs to the node that has the client's connections and is never replicated: clients tell it anew after every restart. The
//! node that leads hears of the sessions of all others ([`report`]).
//!
//! # How long a session lives
//!
//! | what is known of the client | how long |
//! |---|---|
//! | It made calls, or holds a stream open. | [`SESSION_LIMIT`] after it was last heard. |
//! | It only sent its settings, and its stream is gone. | [`SETTINGS_ONLY_LIMIT`] after the stream. |
//! | It consumes, has no stream, and was not heard for [`DEAD_AFTER`]. | As before, but its leases are free. |
//!
//! A closed stream alone ends nothing: Python and Go live without one for up to five minutes, Rust for ever.
//!
//! # To ensure correctness
//!
//! All of this lies under one lock that every call takes. No operation on it costs more than the session that it is
//! about, and a look into an index: what is due is found by time, who makes room by the order in which sessions may go.

mod admission;
mod asking;
mod changes;
mod ending;
mod expiry;
mod filters;
mod groups;
mod leading;
mod lease_life;
mod producers;
mod questions;
mod report;
mod room;
mod session;
mod table;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use vouch_broker::{ResourceName, TagFilter};
use vouch_leader::Dead;

pub(crate) use asking::{AfterAsk, Asked};
pub(crate) use expiry::{Expiry, run as expire};
pub(crate) use filters::{BoundMember, GroupFilter};
pub use lease_life::DEAD_AFTER;
pub use questions::{CheckCommand, Question, TelemetryStream};
pub(crate) use report::{SessionChanges, TOLD_WITHIN};
pub use room::{NoRoom, machine};
use session::DeclaredByClient;
use table::SessionTable;

/// Silence after which a session is over. Well above the longest heartbeat interval of any client, 30 s.
pub const SESSION_LIMIT: Duration = Duration::from_secs(120);
/// A session whose client made no call but its settings goes this long after its last stream.
pub const SETTINGS_ONLY_LIMIT: Duration = Duration::from_secs(10);
/// Most sessions at once.
pub const SESSIONS_MAX: usize = 100_000;
/// Sessions that are ended by time under one hold of the lock.
const ENDED_AT_ONCE: usize = 256;
/// Sessions that are looked at before others have their turn: thousands of clients may be lost at once.
const ENDED_IN_A_TURN: usize = 2048;

/// What a client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionRole {
    /// Sends.
    #[default]
    Producer,
    /// Receives and has its leases renewed.
    PushConsumer,
    /// Receives and renews by itself.
    SimpleConsumer,
}

/// What a client said about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// What it is.
    pub role: SessionRole,
    /// Topics that a producer declared.
    pub topics: Vec<ResourceName>,
    /// Group of a consumer.
    pub group: Option<ResourceName>,
    /// Subscriptions of a consumer; of several to one topic the last one holds.
    pub subscriptions: Vec<(ResourceName, TagFilter)>,
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its id, which it chose.
    pub id: &'a str,
    /// Where it calls from; clients without an address have no share among addresses.
    pub address: Option<IpAddr>,
}

impl<'a> From<&'a str> for Client<'a> {
    fn from(id: &'a str) -> Self {
        Self { id, address: None }
    }
}

/// What became of sessions whose time was over.
#[derive(Debug, Default)]
pub(crate) struct Over {
    /// Consumers whose leases are free.
    pub(crate) dead: Vec<Dead>,
    /// Sessions that ended by silence.
    silent: usize,
    /// Others may be over, too: ask again soon.
    pub(crate) more: bool,
}

/// All sessions of this node.
#[derive(Default)]
pub struct Sessions {
    table: Mutex<SessionTable>,
    producers_changed: Notify,
    /// Times that filters in a group came to differ, or came to differ in another way.
    filter_differences: AtomicU64,
    /// Clients that found no room.
    refused: AtomicU64,
}

impl Sessions {
    fn table(&self) -> MutexGuard<'_, SessionTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a client that found no room.
    fn counted<T>(&self, admitted: Result<T, NoRoom>) -> Result<T, NoRoom> {
        admitted.inspect_err(|_| {
            self.refused.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// The settings of a client: opens its session, or replaces what it declared.
    ///
    /// A consumer that declares no subscription keeps those it has: some say them only when they receive. A producer
    /// keeps the topics that it sent half messages to.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing is changed then.
    pub fn declare<'a>(
        &self,
        client: impl Into<Client<'a>>,
        declaration: Declaration,
        now: Instant,
    ) -> Result<(), NoRoom> {
        let client = client.into();
        let declared = DeclaredByClient::told(declaration);
        let new_producer = !declared.topics.is_empty();
        let differing = self.table().declare(client, declared, now);
        self.report(client.id, self.counted(differing)?, now);
        if new_producer {
            self.producers_changed.notify_one();
        }
        Ok(())
    }

    /// The client made a call. Returns whether its session is known.
    pub fn heard(&self, client_id: &str, now: Instant) -> bool {
        self.table().heard(client_id, now)
    }

    /// A call says what its client is. If the client is not known, for instance after a restart, it gets a session from
    /// that: the Rust client never sends its settings again, others only after minutes. A producer whose session ended
    /// by silence is taken for what it was.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn introduce<'a>(
        &self,
        client: impl Into<Client<'a>>,
        role: SessionRole,
        group: Option<ResourceName>,
        now: Instant,
    ) -> Result<(), NoRoom> {
        let client = client.into();
        let mut table = self.table();
        if table.heard(client.id, now) {
            return Ok(());
        }
        let introduced = table.introduce(client, role, group, now);
        drop(table);
        self.counted(introduced)?;
        self.producers_changed.notify_one();
        Ok(())
    }

    /// The client said that it leaves. What it still works on it may acknowledge for a while.
    pub fn close(&self, client_id: &str, now: Instant) {
        self.table().close(client_id, now);
    }

    /// How many sessions there are: producers, consumers.
    pub fn count(&self) -> (usize, usize) {
        self.table().count()
    }

    /// Clients that found no room among the sessions.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Ends sessions whose time is over, so many of them, and names the consumers whose leases are free.
    pub(crate) fn expire(&self, now: Instant) -> Over {
        let mut over = Over::default();
        // Others take the lock meanwhile.
        for _ in 0..ENDED_IN_A_TURN / ENDED_AT_ONCE {
            over.more = self.table().expire(now, ENDED_AT_ONCE, &mut over) == ENDED_AT_ONCE;
            if !over.more {
                break;
            }
        }
        if over.silent > 0 {
            tracing::info!(sessions = over.silent, "sessions ended by silence");
        }
        over
    }

    /// Whether a member of this group lives.
    pub(crate) fn has_member(&self, group: &ResourceName) -> bool {
        self.table().groups.has_member(group)
    }
}

#[cfg(test)]
mod tests;
