//! Entries of a leader's log that cannot be read, and that another member lacks.
//!
//! # To ensure correctness
//!
//! - What cannot be read is not sent, and nothing is sent in its place.
//! - As long as this replica leads, the other member gets these entries from nobody; so one that has all that is committed leads
//!   instead, if there is one. Who is asked may not hear it, may be too slow, or may lead and be gone again: it is asked anew, each
//!   time after twice as long. Only one that gives leadership back cannot read the same, and is not asked again for some time: it
//!   would go to and fro, and whoever leads so briefly lets nobody go to mend its log.
//! - Where there is none, this one serves all others on: what it cannot read was committed without that member.
//! - What is not committed nobody else may have, and while it is not sent nothing is committed: this replica takes part in nothing
//!   any more, and whoever leads next goes on without it. One that has just begun to lead does not know yet what is committed, so
//!   it waits for that.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use vouch_cluster::GroupMembers;
use vouch_commitlog::LogPosition;
use vouch_consensus::{FollowerProgress, GroupMessage, NodeId, Replica, Role, Said};
use vouch_leader::Outside;

use super::{Command, Core, LeaderEntry};

/// The same again is told, and somebody asked to lead again, after this long at least: a group needs a second or two for that.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// One that has just begun to lead and has heard of nobody looks again after this long.
const SOON: Duration = Duration::from_secs(1);
/// What is committed is known by then, where it is.
const KNOWN_WITHIN: Duration = Duration::from_secs(3);
/// Whoever was asked to lead, and gave it back, is asked again after this long: it may have mended its log.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// What was done so far about entries that cannot be read, to be sent.
#[derive(Default)]
pub(super) struct CannotSend {
    /// Nothing more is done in this term before.
    not_before: Option<(u64, Instant)>,
    /// Who was asked to lead, one after the other, and who was the last of them.
    asked: BTreeSet<NodeId>,
    asked_last: Option<NodeId>,
    /// In which term somebody was asked, and how often in that.
    in_vain: (u64, u32),
    /// Who gave leadership back, and when the last one did.
    gave_back: (BTreeSet<NodeId>, Option<Instant>),
    /// Since when the entry that ends there was found not to be committed.
    uncommitted: Option<(LogPosition, Instant)>,
}

impl CannotSend {
    /// Who is asked next, of those whom this finds that are in none of these sets.
    fn next(&mut self, now: Instant, find: impl Fn([&BTreeSet<NodeId>; 2]) -> Option<NodeId>) -> Option<NodeId> {
        if self.gave_back.1.is_some_and(|at| now >= at + FORGOTTEN_AFTER) {
            self.gave_back = (BTreeSet::new(), None);
        }
        find([&self.asked, &self.gave_back.0]).or_else(|| {
            let again = find([&BTreeSet::new(), &self.gave_back.0])?;
            self.asked.clear();
            Some(again)
        })
    }

    /// Whether something was done a moment ago, in this term.
    fn waits(&self, term: u64, now: Instant) -> bool {
        self.not_before.is_some_and(|(of, at)| of == term && now < at)
    }

    /// This one is asked to lead now, in this term.
    fn ask(&mut self, node: NodeId, term: u64, now: Instant) {
        let before = if self.in_vain.0 == term { self.in_vain.1 } else { 0 };
        self.in_vain = (term, before + 1);
        self.asked.insert(node);
        self.asked_last = Some(node);
        // While it is asked nothing is written, so what goes wrong each time is not tried all the time.
        self.not_before = Some((term, now + (AGAIN_AFTER * 2_u32.pow(before.min(4))).min(FORGOTTEN_AFTER)));
    }

    /// This one leads in this term, and wants the replica to lead. If that led before, and asked somebody, it was this one, or one that
    /// asked others in turn.
    fn gave_back(&mut self, node: NodeId, term: u64, now: Instant) {
        if let Some(asked) = self.asked_last.take_if(|_| term > self.in_vain.0) {
            self.gave_back.0.extend([asked, node]);
            self.gave_back.1 = Some(now);
        }
    }
}

impl Core {
    /// Looks at what another member says, before the replica does.
    pub(super) fn hears_who_leads_no_more(&mut self, said: &GroupMessage) {
        if said.body == Said::TakeOver {
            self.cannot_send.gave_back(said.from, said.term, self.now.at);
        }
    }

    /// This member lacks the entry that ends at this position, which cannot be read.
    pub(super) fn cannot_send(&mut self, to: NodeId, end: LogPosition, why: &str, outside: &dyn Outside) {
        let Some(replica) = self.replica.as_ref().filter(|_| self.closed.is_none()) else { return };
        let Role::Leads { since } = replica.role() else { return };
        let now = self.now.at;
        if replica.position_behind(replica.commit()).is_none_or(|committed| end.0 > committed) {
            let first = self.cannot_send.uncommitted.filter(|(of, _)| *of == end).map_or(now, |(_, first)| first);
            self.cannot_send.uncommitted = Some((end, first));
            if now >= first + KNOWN_WITHIN {
                self.commands.push_back(Command::ClosedByDamage(Vec::new()));
                self.poison(format!("entries of the log cannot be read, to be sent: {why}"));
            }
            return;
        }
        if self.cannot_send.waits(replica.term(), now) {
            return;
        }
        let (term, members) = (replica.term(), self.state.members());
        let successor = self.cannot_send.next(now, |but| {
            who_has_all(replica, members, |node| node != to && !but.iter().any(|nodes| nodes.contains(&node)))
        });
        let knows_others = successor.is_some() || replica.commit() >= since.index;
        self.cannot_send.not_before = Some((term, now + if knows_others { AGAIN_AFTER } else { SOON }));
        let Some(successor) = successor else {
            if knows_others {
                tracing::error!(
                    node = %to,
                    why,
                    "the log of this node is damaged: node {to} lacks entries that cannot be read here, and no other node that is there \
                     has them all, to lead instead; it gets no further until one is, or until this log is restored (see damage.md)"
                );
            }
            return;
        };
        self.cannot_send.ask(successor, term, now);
        tracing::error!(
            node = %to,
            why,
            "the log of this node is damaged: node {to} lacks entries that cannot be read here; node {successor} has them, and is to lead"
        );
        self.replica.iter_mut().for_each(|replica| replica.hand_over(successor));
        self.decide(outside);
    }
}

/// Of the others that vote and may be asked, one that is there and has all that is committed; of several the one that has most.
fn who_has_all(
    replica: &Replica<LeaderEntry>,
    members: &GroupMembers,
    may_be_asked: impl Fn(NodeId) -> bool,
) -> Option<NodeId> {
    let may = |other: &FollowerProgress| {
        may_be_asked(other.node) && other.is_heard && other.durable >= replica.commit() && members.votes(other.node)
    };
    replica.followers().into_iter().filter(may).max_by_key(|other| other.durable).map(|other| other.node)
}
