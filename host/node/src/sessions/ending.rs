//! Sessions whose time is over, and consumers that died.

use std::time::Instant;

use vouch_leader::Dead;

use super::lease_life::{LeaseLife, dead_consumer};
use super::table::SessionTable;
use super::{Over, SESSION_LIMIT, SETTINGS_ONLY_LIMIT, SessionRole};

impl SessionTable {
    /// Ends sessions whose time is over, about `at_once` of them, and names the consumers whose leases are free. Returns
    /// how many were looked at.
    pub(super) fn expire(&mut self, now: Instant, at_once: usize, over: &mut Over) -> usize {
        let mut looked_at = 0;
        while looked_at < at_once {
            let Some(id) = self.room.mute_since(now, SETTINGS_ONLY_LIMIT) else { break };
            looked_at += 1;
            self.end(&id);
        }
        while looked_at < at_once {
            let Some(id) = self.room.silent_since(now, SESSION_LIMIT) else { break };
            looked_at += 1;
            let Some(session) = self.by_client.get_mut(&id) else { break };
            if now.saturating_duration_since(session.last_heard) <= SESSION_LIMIT {
                self.room.heard_since(&id, session);
                continue;
            }
            tracing::debug!(client = &*id, "session ended by silence");
            self.end_by_silence(&id, &mut over.dead);
            over.silent += 1;
        }
        looked_at + self.find_dead(now, at_once - looked_at, &mut over.dead)
    }

    /// Ends a session whose client may come again: what a producer declared is remembered if it ever made a call, a
    /// consumer's leases are free.
    pub(super) fn end_by_silence(&mut self, client_id: &str, dead: &mut Vec<Dead>) {
        let Some((id, session)) = self.end(client_id) else { return };
        dead.extend(dead_consumer(&id, &session));
        if session.declared.role == SessionRole::Producer && session.called {
            self.producers.remember(id, session.declared.topics);
        }
    }

    /// Names consumers that died, about `at_once` of them. Returns how many were looked at.
    pub(super) fn find_dead(&mut self, now: Instant, at_once: usize, dead: &mut Vec<Dead>) -> usize {
        let mut looked_at = 0;
        while looked_at < at_once
            && self.leases.fading.first().is_some_and(|(at, _)| LeaseLife::long_ago(*at, now))
            && let Some((_, id)) = self.leases.fading.pop_first()
        {
            looked_at += 1;
            let Some(session) = self.by_client.get_mut(&id) else { continue };
            session.fading = false;
            if session.keeps_leases(now) {
                // With a stream it waits for the end of that.
                self.leases.fade(&id, session);
                continue;
            }
            dead.extend(dead_consumer(&id, session));
            session.dead = true;
        }
        while looked_at < at_once
            && self.leases.left.first().is_some_and(|(at, _)| LeaseLife::long_ago(*at, now))
            && let Some((_, left)) = self.leases.left.pop_first()
        {
            looked_at += 1;
            // It may have come back under its old name.
            let back = self.by_client.get(&left.client_id);
            if !back.is_some_and(|session| session.keeps_leases(now)) {
                dead.push(left);
            }
        }
        looked_at
    }
}
