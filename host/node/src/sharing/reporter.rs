//! Tells the leader of the sessions of this node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use vouch_cluster::NodeId;
use vouch_consensus::{FollowerProgress, Role};
use vouch_shard::{Shard, WhoBelongs};
use vouch_storage::DiskUse;

use super::asks::{SessionAnswer, SessionAsk, ask};
use crate::forwarding::{HandedOutThere, Leaders};
use crate::others_room::OthersRoom;
use crate::peers::PeerNodes;
use crate::secrets::KeyExchange;
use crate::sessions::{SessionChanges, Sessions, TOLD_WITHIN};
use crate::stopping::Stopping;

/// Between two looks whether something is to be told.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// That clients were heard is told this often: well below the time after which one that is not heard is dead.
const HEARD_EVERY: Duration = Duration::from_secs(5);
/// Bytes of one telling, about: it is heard on a connection where others wait behind it.
const PART_BYTES: usize = 1 << 20;
/// Before what was not heard is told again; twice as long after each further one, up to 32 times.
const AGAIN_MIN: Duration = Duration::from_millis(50);
/// One that is short of something lets another lead at most this often.
const GIVEN_UP_EVERY: Duration = Duration::from_secs(60);
/// A node that is not reached for this long has lost its clients, or they have found another one.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// Tells the leader of the sessions of this node, and keeps what others tell while this one leads.
pub(crate) struct SessionReporter {
    /// Those of this node, and while it leads those of all.
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) nodes: Arc<PeerNodes>,
    /// Who leads, as this node knows.
    pub(crate) leader: watch::Receiver<Option<NodeId>>,
    /// Who the others are.
    pub(crate) belongs: watch::Receiver<WhoBelongs>,
    pub(crate) stopping: Arc<Stopping>,
    /// Of this node.
    pub(crate) disk: Arc<DiskUse>,
    /// Of the others.
    pub(crate) room: Arc<OthersRoom>,
    /// Of this node, and which of the others lack some.
    pub(crate) keys: Arc<KeyExchange>,
    pub(crate) shard: Arc<Shard>,
    pub(crate) leaders: Arc<Leaders>,
    pub(crate) handed_out: Arc<HandedOutThere>,
}

/// What a node is short of, so that another one leads better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ShortOf {
    /// Its disk is at the high-water mark.
    is_full: bool,
    /// It lacks a key of secrets, and nobody gives it.
    lacks_keys: bool,
}

/// What was told, and when.
#[derive(Default)]
struct Told {
    /// To whom, and in which leadership of that.
    to: Option<(NodeId, u64)>,
    at: Option<Instant>,
    /// What this node was short of then.
    short: ShortOf,
    /// Clients that left, of which the leader has not heard.
    gone: BTreeSet<String>,
    /// Tellings in a row that were not heard, and when there may be the next one.
    failed: u32,
    again: Option<Instant>,
}

/// Goes on until the node stops.
pub(crate) async fn run(mut reporter: SessionReporter) {
    let (mut told, mut leads) = (Told::default(), Leads::default());
    reporter.sessions.keep_changes();
    loop {
        let leader = *reporter.leader.borrow_and_update();
        let mut changed = reporter.leader.clone();
        if leader == Some(reporter.nodes.me) {
            told = Told::default();
            reporter.lead(&mut leads).await;
            reporter.give_up_for_want_of_something(&mut leads.given_up).await;
        } else {
            if reporter.sessions.leadership().is_some() {
                reporter.sessions.end_leading(Instant::now());
                reporter.sessions.keep_changes();
            }
            tokio::select! {
                () = reporter.tell(leader, &mut told) => {}
                // Another one may lead: this node, too.
                _ = changed.changed() => {
                    told.to = None;
                    continue;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            changed = reporter.leader.changed() => if changed.is_err() { return },
            () = reporter.stopping.cancelled() => return,
        }
    }
}

/// What is kept while this node leads.
#[derive(Default)]
struct Leads {
    /// Since when others are not reached, and whether they were taken for lost.
    unreached: BTreeMap<NodeId, (Instant, bool)>,
    /// When it was last noted what came to consumers here.
    came_at: Option<Instant>,
    /// When it last gave leadership up for want of something.
    given_up: Option<Instant>,
}

impl SessionReporter {
    /// Those that have joined.
    fn others(&self) -> BTreeSet<NodeId> {
        let belongs = self.belongs.borrow();
        let joined = belongs.nodes.nodes.iter().filter(|(_, node)| node.invitation.is_none());
        joined.map(|(id, _)| *id).filter(|id| *id != self.nodes.me).collect()
    }

    /// Begins what a leader keeps of others, for each term that it leads in, and gives up those that are gone.
    async fn lead(&self, leads: &mut Leads) {
        let Ok(group) = self.shard.group().await else { return };
        let Role::Leads { since } = group.role else { return };
        let (now, others) = (Instant::now(), self.others());
        if self.sessions.leadership() != Some(since.term) {
            self.sessions.end_leading(now);
            self.sessions.begin_leading(since.term, others.clone(), now);
            self.sessions.remembers(self.leaders.remembers_since().elapsed(), now);
            leads.came_at = None;
        }
        self.sessions.came(self.leaders.came_here(leads.came_at), now);
        leads.came_at = Some(now);
        let gone: Vec<_> = leads.unreached.keys().filter(|node| !others.contains(node)).copied().collect();
        for node in gone {
            leads.unreached.remove(&node);
            self.room.is_reached(node, true);
            self.lose(node, now);
        }
        for node in others {
            let is_reached = self.nodes.reaches_sessions(node);
            self.room.is_reached(node, is_reached);
            if is_reached {
                leads.unreached.remove(&node);
                continue;
            }
            // It may come back as another life, which remembers less than it told: it is to tell all again.
            self.sessions.set_known(node, false);
            let (since, is_lost) = leads.unreached.entry(node).or_insert((now, false));
            if !*is_lost && now.saturating_duration_since(*since) > LOST_AFTER {
                *is_lost = true;
                self.lose(node, now);
            }
        }
    }

    /// A node is lost, with its streams, and maybe with what it was given for its clients.
    fn lose(&self, node: NodeId, now: Instant) {
        self.sessions.set_known(node, false);
        self.sessions.lost(node, now);
        self.sessions.doubt(self.handed_out.went_to(node), now);
        self.room.told(node, false);
        self.keys.told(node, false);
    }

    /// What this node is short of.
    fn short_of(&self) -> ShortOf {
        ShortOf { is_full: self.disk.is_full(), lacks_keys: self.keys.lacks() }
    }

    /// Lets one lead that has room for sends, or the keys of secrets, where this node has not; at most once a minute, as far as this
    /// node sees to it. Room comes first: without keys only checks of some bindings wait.
    async fn give_up_for_want_of_something(&self, given_up: &mut Option<Instant>) {
        let (short, lately) = (self.short_of(), given_up.is_some_and(|at| at.elapsed() < GIVEN_UP_EVERY));
        if short == ShortOf::default() || lately {
            return;
        }
        let Ok(group) = self.shard.group().await else { return };
        let may = |other: &&FollowerProgress| {
            let votes = group.members.voters.contains(&other.node) && other.is_heard;
            let is_known = votes && self.sessions.knows_all_of(other.node);
            is_known && !self.room.is_full(other.node) && (short.is_full || !self.keys.lack_there(other.node))
        };
        let may_lead = group.followers.iter().filter(may);
        let best = may_lead.max_by_key(|other| (!self.keys.lack_there(other.node), other.durable));
        let Some(next) = best else { return };
        *given_up = Some(Instant::now());
        if short.is_full {
            tracing::warn!(to = %next.node, "the disk of this node has no room for sends; one leads next that has");
        } else {
            tracing::warn!(to = %next.node, "this node lacks keys of secrets; one leads next that has them");
        }
        if let Err(why) = self.shard.hand_over(next.node).await {
            tracing::warn!(%why, "leadership cannot be handed over");
        }
    }

    /// Tells the leader what changed, or all that it does not know.
    async fn tell(&self, leader: Option<NodeId>, told: &mut Told) {
        let now = Instant::now();
        let Some(leader) = leader.filter(|leader| self.nodes.reaches_sessions(*leader)) else {
            // The next one is told all; only who left is not among that.
            told.to = None;
            told.gone.extend(self.sessions.changes(now).gone);
            return;
        };
        let knows = told.to.filter(|(to, _)| *to == leader);
        let due = told.at.is_none_or(|at| now.saturating_duration_since(at) >= HEARD_EVERY);
        let waits = told.again.is_some_and(|again| now < again);
        let short = self.short_of();
        if waits || knows.is_some() && !due && short == told.short && !self.sessions.has_changes() {
            return;
        }
        let mut changes = match knows {
            Some(_) => self.sessions.changes(now),
            None => self.sessions.everything(now),
        };
        // Kept until they are heard, also where this telling is given up.
        told.to = None;
        told.gone.extend(std::mem::take(&mut changes.gone));
        changes.gone = told.gone.iter().cloned().collect();
        match self.tell_in_parts(leader, (knows.map(|(_, life)| life), told.at), changes, short).await {
            Some(SessionAnswer::Heard { life }) => {
                *told = Told { to: Some((leader, life)), at: Some(now), short, ..Told::default() };
            }
            _ => {
                told.failed += 1;
                told.again = Some(Instant::now() + AGAIN_MIN.saturating_mul(1 << told.failed.min(5)));
            }
        }
    }

    /// Tells it in parts, until one is not heard; the last answer.
    async fn tell_in_parts(
        &self,
        leader: NodeId,
        (life, came_at): (Option<u64>, Option<Instant>),
        changes: SessionChanges,
        ShortOf { is_full, lacks_keys }: ShortOf,
    ) -> Option<SessionAnswer> {
        let parts = changes.in_parts(PART_BYTES);
        let last = parts.len() - 1;
        let mut answer = None;
        for (at, changes) in parts.into_iter().enumerate() {
            // A leader that knows nothing is told all that is remembered.
            let came = if at == 0 { self.leaders.came_here(life.and(came_at)) } else { Vec::new() };
            let what = match life {
                Some(life) => SessionAsk::Changed { life, changes, came, is_full, lacks_keys },
                None => {
                    let remembers = self.leaders.remembers_since().elapsed();
                    let remembers_ms = u64::try_from(remembers.as_millis()).unwrap_or(u64::MAX);
                    let (begins, ends) = (at == 0, at == last);
                    SessionAsk::All { changes, begins, ends, came, remembers_ms, is_full, lacks_keys }
                }
            };
            answer = ask(&self.nodes, leader, &what, tokio::time::Instant::now() + TOLD_WITHIN).await;
            if !matches!(answer, Some(SessionAnswer::Heard { .. })) {
                break;
            }
        }
        answer
    }
}
