//! Tells the leader of the sessions of this node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use vouch_cluster::NodeId;
use vouch_shard::WhoBelongs;

use super::asks::{SessionAnswer, SessionAsk, ask};
use crate::peers::PeerNodes;
use crate::sessions::{SessionChanges, Sessions};
use crate::stopping::Stopping;

/// Between two looks whether something is to be told.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// That clients were heard is told this often: well below the time after which one that is not heard is dead.
const HEARD_EVERY: Duration = Duration::from_secs(5);
/// How long one telling takes at most.
const TOLD_WITHIN: Duration = Duration::from_secs(3);
/// Sessions in one telling.
const AT_ONCE: usize = 1000;
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
}

/// Goes on until the node stops.
pub(crate) async fn run(mut reporter: SessionReporter) {
    let (mut told, mut unreached) = (Told::default(), Unreached::default());
    reporter.sessions.keep_changes();
    loop {
        let leader = *reporter.leader.borrow_and_update();
        if leader == Some(reporter.nodes.me) {
            told = Told::default();
            reporter.lead(&mut unreached);
        } else {
            if reporter.sessions.leadership().is_some() {
                reporter.sessions.end_leading(Instant::now());
                reporter.sessions.keep_changes();
            }
            if let Some(leader) = leader {
                reporter.tell(leader, &mut told).await;
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
    async fn tell(&self, leader: NodeId, told: &mut Told) {
        let now = Instant::now();
        let knows = told.to.filter(|(to, _)| *to == leader);
        let due = told.at.is_none_or(|at| now.saturating_duration_since(at) >= HEARD_EVERY);
        if knows.is_some() && !due && !self.sessions.has_changes() {
            return;
        }
        let answer = match knows {
            Some((_, life)) => {
                let changes = self.sessions.changes(now);
                self.ask(leader, &SessionAsk::Changed { life, changes }).await
            }
            None => self.tell_all(leader, now).await,
        };
        *told = match answer {
            Some(SessionAnswer::Heard { life }) => Told { to: Some((leader, life)), at: Some(now) },
            // All of it once more: what was not heard is not kept.
            _ => Told::default(),
        };
    }

    async fn tell_all(&self, leader: NodeId, now: Instant) -> Option<SessionAnswer> {
        let mut clients = self.sessions.everything(now).clients;
        loop {
            let rest = clients.split_off(clients.len().min(AT_ONCE));
            let (changes, more) = (SessionChanges { clients, ..SessionChanges::default() }, !rest.is_empty());
            let answer = self.ask(leader, &SessionAsk::All { changes, more }).await;
            if !more || !matches!(answer, Some(SessionAnswer::Heard { .. })) {
                return answer;
            }
            clients = rest;
        }
    }

    async fn ask(&self, leader: NodeId, what: &SessionAsk) -> Option<SessionAnswer> {
        ask(&self.nodes, leader, what, tokio::time::Instant::now() + TOLD_WITHIN).await
    }
}
