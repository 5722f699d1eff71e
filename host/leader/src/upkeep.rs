//! What a leader looks after by the clock: receives whose time is over, leases, filters that nobody has.

use vouch_broker::ResourceName;

use vouch_broker::state::Exception;

use crate::renewal::{self, RENEWED_LEASE_MS};
use crate::{Dead, FilterOf, Leader, Turn};

/// What a leader that was lost leased and did not hand out it leased so shortly before its last record.
pub const SHORTLY_MS: u64 = 5_000;

impl Leader {
    /// Answers receives that waited long enough, wakes those for whom a lease ended, and gives up the leases of consumers
    /// that just died.
    pub fn tick(&mut self, turn: &Turn<'_>) {
        if std::mem::take(&mut self.some_died) {
            self.give_up_leases(turn);
        }
        for poll in self.polls.timed_out(turn.at) {
            self.answer(poll, Ok(None));
        }
        for (topic, group) in self.polls.awake(turn.time) {
            self.wake_group(turn.state, group, topic);
        }
        self.serve_ready(turn);
    }

    /// Once a second, whether anything can be written or not: those for whom the log took nothing look again.
    pub fn look_again(&mut self, turn: &Turn<'_>) {
        self.wake_unserved(turn.state);
    }

    /// Once a second while the log takes records: extends leases of consumers that live, gives up those of consumers that
    /// died, and lets filters go that nobody has.
    pub fn each_second(&mut self, turn: &Turn<'_>) {
        self.give_up_leases(turn);
        self.renew_leases(turn);
        self.let_filters_go(turn);
    }

    /// These consumers died; their leases are given up when the turn ends, or, where they are very many, in the next seconds.
    pub fn died(&mut self, dead: Vec<Dead>) {
        self.orphans.add(dead);
        self.some_died = true;
    }

    fn renew_leases(&mut self, turn: &Turn<'_>) {
        let members = turn.outside.members();
        let is_alive = |client: &str| members.keeps_leases(client, turn.at);
        let may_be_lost = |lease: &Exception| {
            // One that was extended came: a leader before this one was sure of that.
            let was_extended = lease.visible_at > lease.leased_at.plus_ms(RENEWED_LEASE_MS);
            members.may_be_lost(lease.generation, lease.leased_at <= self.began_at && !was_extended)
        };
        let renewals = renewal::due(turn.state, turn.time, is_alive, may_be_lost);
        for renewal in renewals {
            self.propose(|out| renewal.encode(out));
        }
    }

    fn give_up_leases(&mut self, turn: &Turn<'_>) {
        let members = turn.outside.members();
        let given_up = self.orphans.take(turn.state, turn.time, |client| members.keeps_leases(client, turn.at));
        for change in given_up {
            self.propose(|out| change.encode(out));
        }
    }

    fn let_filters_go(&mut self, turn: &Turn<'_>) {
        let members = turn.outside.members();
        let has_member = |group: &ResourceName, topic: &ResourceName| members.has_member_on(group, topic);
        let has_filter = |filter: FilterOf<'_>| members.has_filter(filter);
        for gone in self.absences.look(turn.state, has_member, has_filter, turn.at) {
            self.propose(|out| gone.encode(out));
        }
    }
}
