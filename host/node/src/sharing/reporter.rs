//! Tells the leader of the sessions of this node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use vouch_cluster::NodeId;
use vouch_shard::WhoBelongs;

use super::asks::{SessionAnswer, SessionAsk, ask};
use crate::peers::PeerNodes;
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
/// A node that is not reached for this long has lost its clients, or they have found another one.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// Tells the leader of the sessions of this node, and keeps what others tell while this one leads.
pub(crate) struct SessionReporter {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) nodes: Arc<PeerNodes>,
    pub(crate) leader: watch::Receiver<Option<NodeId>>,
    pub(crate) belongs: watch::Receiver<WhoBelongs>,
    pub(crate) stopping: Arc<Stopping>,
}

/// What was told, and when.
#[derive(Default)]
struct Told {
    /// To whom, and in which leadership of that.
    to: Option<(NodeId, u64)>,
    at: Option<Instant>,
    /// Clients that left, of which the leader has not heard.
    gone: BTreeSet<String>,
    /// Tellings in a row that were not heard, and when there may be the next one.
    failed: u32,
    again: Option<Instant>,
}

/// Goes on until the node stops.
pub(crate) async fn run(mut reporter: SessionReporter) {
    let (mut told, mut unreached) = (Told::default(), Unreached::default());
    reporter.sessions.keep_changes();
    loop {
        let leader = *reporter.leader.borrow_and_update();
        let mut changed = reporter.leader.clone();
        if leader == Some(reporter.nodes.me) {
            told = Told::default();
            reporter.lead(&mut unreached);
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

/// Since when others are not reached.
#[derive(Default)]
struct Unreached(Vec<(NodeId, Instant)>);

impl SessionReporter {
    fn others(&self) -> BTreeSet<NodeId> {
        let belongs = self.belongs.borrow();
        let joined = belongs.nodes.nodes.iter().filter(|(_, node)| node.invitation.is_none());
        joined.map(|(id, _)| *id).filter(|id| *id != self.nodes.me).collect()
    }

    /// Begins what a leader keeps of others, and gives up those that are gone.
    fn lead(&self, unreached: &mut Unreached) {
        let now = Instant::now();
        if self.sessions.leadership().is_none() {
            self.sessions.begin_leading(rand::random::<u64>().max(1), self.others(), now);
        }
        for node in self.others() {
            let since = unreached.0.iter().position(|(other, _)| *other == node);
            match (self.nodes.reaches_sessions(node), since) {
                (true, Some(at)) => drop(unreached.0.remove(at)),
                (false, None) => unreached.0.push((node, now)),
                (false, Some(at)) if now.saturating_duration_since(unreached.0[at].1) > LOST_AFTER => {
                    self.sessions.set_known(node, false);
                    self.sessions.lost(node, now);
                }
                _ => {}
            }
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
        if waits || knows.is_some() && !due && !self.sessions.has_changes() {
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
        match self.tell_in_parts(leader, knows.map(|(_, life)| life), changes).await {
            Some(SessionAnswer::Heard { life }) => {
                *told = Told { to: Some((leader, life)), at: Some(now), ..Told::default() };
            }
            _ => {
                told.failed += 1;
                told.again = Some(Instant::now() + AGAIN_MIN.saturating_mul(1 << told.failed.min(5)));
            }
        }
    }

    async fn tell_in_parts(&self, leader: NodeId, life: Option<u64>, changes: SessionChanges) -> Option<SessionAnswer> {
        let parts = changes.in_parts(PART_BYTES);
        let last = parts.len() - 1;
        let mut answer = None;
        for (at, changes) in parts.into_iter().enumerate() {
            let what = match life {
                Some(life) => SessionAsk::Changed { life, changes },
                None => SessionAsk::All { changes, begins: at == 0, ends: at == last },
            };
            answer = ask(&self.nodes, leader, &what, tokio::time::Instant::now() + TOLD_WITHIN).await;
            if !matches!(answer, Some(SessionAnswer::Heard { .. })) {
                break;
            }
        }
        answer
    }
}
