//! What a node does that had something else than another one: it asks all of them what they had, until it is known who is right.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use vouch_broker::RecordPosition;
use vouch_broker::record::SealedAt;
use vouch_cluster::NodeId;
use vouch_consensus::Role;
use vouch_shard::GroupStanding;
use vouch_storage::{SealedUnlike, note_differs};

use super::Nodes;
use super::who_is_right::{WhoIsRight, who_is_right};
use crate::stopping::Stopping;

/// Between two looks whether it is in doubt.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two times that all are asked. A snapshot that another one has not made yet is made within some of these.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// After this long at one position it is asked of the newest one: others may have forgotten, or started since.
const MOVE_ON_AFTER: Duration = Duration::from_secs(600);
/// Another node leads within this time, or this one closes as the one that leads.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(10);

/// Finds out who is right, for as long as the node runs.
pub(crate) struct Doubting {
    nodes: Arc<Nodes>,
    /// Where it is noted that this node differs.
    data_dir: PathBuf,
    stopping: Arc<Stopping>,
    /// Of which position it is, and since when.
    since: Option<(RecordPosition, Instant)>,
}

impl Doubting {
    pub(crate) fn new(nodes: Arc<Nodes>, data_dir: PathBuf, stopping: Arc<Stopping>) -> Self {
        Self { nodes, data_dir, stopping, since: None }
    }

    /// Goes on until the node stops, or closes.
    pub(crate) async fn run(mut self) {
        let stopping = self.stopping.clone();
        tokio::select! {
            () = self.look_on() => {}
            () = stopping.cancelled() => {}
        }
    }

    async fn look_on(&mut self) {
        while self.nodes.writable.closed().is_none() {
            let Some(doubt) = self.nodes.snapshots.comparison().doubt() else {
                self.since = None;
                sleep(LOOK_EVERY).await;
                continue;
            };
            self.begins(&doubt);
            match self.ask(&doubt).await {
                Some((group, WhoIsRight::Others { majority, what })) => {
                    return self.give_up(&group, &majority, what, doubt.own.position).await;
                }
                Some((_, WhoIsRight::This { differ })) => {
                    tell_who_differs(&doubt, &differ);
                    self.nodes.snapshots.comparison().decided(doubt.own.position);
                }
                Some((_, WhoIsRight::Unknown)) | None => sleep(ASK_EVERY).await,
            }
        }
    }

    /// Says once of each position that it is in doubt; and goes on to a later one after a while.
    fn begins(&mut self, doubt: &SealedUnlike) {
        let position = doubt.own.position;
        match self.since {
            Some((at, since)) if at == position => {
                if since.elapsed() > MOVE_ON_AFTER {
                    self.nodes.snapshots.comparison().move_on();
                    self.since = Some((position, Instant::now()));
                }
            }
            _ => {
                tracing::error!("{}", told(doubt));
                self.since = Some((position, Instant::now()));
            }
        }
    }

    /// What all say that they had there, and what follows. `None` where the shard does not answer.
    async fn ask(&self, doubt: &SealedUnlike) -> Option<(GroupStanding, WhoIsRight)> {
        let members = self.nodes.shard.group().await.ok()?.members;
        let mut others = BTreeMap::<NodeId, SealedAt>::new();
        if let Some(speaking) = &self.nodes.speaking {
            for node in members.all().into_iter().filter(|node| *node != speaking.nodes.me) {
                others.extend(speaking.had(node, doubt.own).await.map(|had| (node, had)));
            }
        }
        // Who votes may be others by now.
        let group = self.nodes.shard.group().await.ok()?;
        let right = who_is_right(group.node, doubt, &others, &group.members);
        Some((group, right))
    }

    /// A majority had one thing, and this node another: it lets one of them lead, notes it, and takes part in nothing more.
    async fn give_up(&self, group: &GroupStanding, majority: &BTreeSet<NodeId>, what: &str, position: RecordPosition) {
        self.hand_over(group, majority).await;
        let those = named(majority);
        let what = format!("at position {position} {what} is not what {those} had there, a majority of those who vote");
        // First: who is started again must not go on.
        let (data_dir, noted) = (self.data_dir.clone(), what.clone());
        let noted = tokio::task::spawn_blocking(move || note_differs(&data_dir, &noted)).await;
        if let Err(error) = noted.map_err(std::io::Error::other).and_then(|noted| noted) {
            tracing::error!(%error, "the data folder cannot note that its node differs; do not start it again");
        }
        self.nodes.shard.differs(what);
    }

    /// If it leads, the one of these that has most of the log is to lead. Where that fails the others elect one of them.
    async fn hand_over(&self, group: &GroupStanding, majority: &BTreeSet<NodeId>) {
        let there = group.followers.iter().filter(|other| other.is_heard && majority.contains(&other.node));
        let Some(next) = there.max_by_key(|other| other.durable).map(|other| other.node) else { return };
        if !matches!(group.role, Role::Leads { .. }) {
            return;
        }
        tracing::error!(to = %next, "this node knows something else than the others; another one is to lead before it closes");
        match timeout(HANDED_OVER_WITHIN, self.nodes.transfer_leader(next)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => {
                tracing::warn!(%why, "this node closes as the one that leads; the others elect one of them")
            }
            Err(_) => tracing::warn!("this node closes before another one leads; the others elect one of them"),
        }
    }
}

/// That it is in doubt, and what follows, in a sentence.
pub(super) fn told(doubt: &SealedUnlike) -> String {
    let SealedUnlike { own: SealedAt { position, .. }, what, .. } = doubt;
    format!(
        "at position {position} {what} is not the same on all nodes, and it is not known yet who is right: no majority of those who vote says \
         that it had one thing there. This node goes on, releases no segments, and gives its log to nobody meanwhile. Start what is down, \
         and keep the data folder of every node: see cluster.md"
    )
}

/// That others had something else than this node and a majority, in a line of the log.
fn tell_who_differs(doubt: &SealedUnlike, differ: &BTreeSet<NodeId>) {
    let position = doubt.own.position.0;
    if differ.is_empty() {
        tracing::warn!(
            position,
            "another node, which does not answer now, had something else there than a majority of those who vote, this node among them"
        );
    } else {
        tracing::error!(
            position,
            nodes = named(differ),
            "these nodes had something else there than a majority of those who vote, this node among them; such a node closes by itself, \
             and its log says what to do"
        );
    }
}

fn named(nodes: &BTreeSet<NodeId>) -> String {
    let ids: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    format!("{} {}", if ids.len() == 1 { "node" } else { "nodes" }, ids.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_doubt_is_said_with_what_to_do_and_nobody_is_told_to_empty_a_folder() {
        let own = SealedAt { position: RecordPosition(70), since: 10, part: Some(1), state: 7 };
        let what = "what is known of topics, groups and transactions";
        let said = told(&SealedUnlike { own, other: SealedAt { state: 9, ..own }, what });
        assert!(said.contains("at position 70 what is known of topics, groups and transactions"), "{said}");
        assert!(said.contains("keep the data folder of every node") && !said.contains("empty"), "{said}");
        assert_eq!(named(&[NodeId(2), NodeId(3)].into()), "nodes 2, 3");
        assert_eq!(named(&[NodeId(2)].into()), "node 2");
    }
}
