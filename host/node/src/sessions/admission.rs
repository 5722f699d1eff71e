//! Who gets room among the sessions, and who goes for it.

use std::net::IpAddr;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::Instant;

use super::Client;
use super::room::{NoRoom, SPOKE_LATELY, machine};
use super::session::DeclaredByClient;
use super::table::SessionTable;

/// Silent sessions that are looked at for one newcomer.
const LOOKS: usize = 64;

impl SessionTable {
    /// Sees to it that a client's session can hold this. Returns the bytes that it will count for.
    pub(super) fn make_room(
        &mut self,
        client: Client<'_>,
        declared: &DeclaredByClient,
        now: Instant,
    ) -> Result<usize, NoRoom> {
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
