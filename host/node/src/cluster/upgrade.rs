//! The end of an upgrade: all nodes run a version that knows more than the log was to say so far.

use std::collections::BTreeSet;

use vouch_broker::NotDone;
use vouch_broker::record::LevelRaised;
use vouch_cluster::NodeId;
use vouch_storage::VERSION;

use super::{ClusterView, Nodes, refused};

/// What an upgrade led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpgradeFinished {
    /// The feature level before.
    pub from: u32,
    /// And from now on.
    pub to: u32,
}

impl ClusterView {
    /// Nodes that have come and are not gone: each gets the log.
    fn all_with_the_log(&self) -> BTreeSet<NodeId> {
        let came = self.nodes.nodes.iter().filter(|(_, known)| known.invitation.is_none());
        came.map(|(id, _)| *id).chain(self.group.members.all()).collect()
    }

    /// The newest feature level that each of them knows.
    ///
    /// # Errors
    /// A sentence that names the first node of which that is not known now.
    fn known_to_all(&self) -> Result<u32, String> {
        let mut level = self.program.feature_level;
        for node in self.all_with_the_log().into_iter().filter(|node| *node != self.group.node) {
            let program = self.programs.get(&node).ok_or_else(|| {
                if self.links.get(&node).is_some_and(vouch_transport::LinkState::is_up) {
                    format!("node {node} does not say which version it runs: it runs one that knows feature level 1, or was started a moment ago")
                } else {
                    format!("node {node} is not connected, and so nobody knows which version it runs: start it, or remove it")
                }
            })?;
            if program.feature_level <= self.feature_level {
                let (version, knows) = (&program.version, program.feature_level);
                return Err(format!(
                    "node {node} runs Vouch {version}, which knows feature level {knows}: upgrade it first"
                ));
            }
            level = level.min(program.feature_level);
        }
        Ok(level)
    }
}

impl Nodes {
    /// Lets the cluster use all that its nodes know, which is when an operator says that no node goes back to the version before: none
    /// could read the log any more.
    ///
    /// # Errors
    /// A node is not there, or runs a version that knows no more than the cluster's level; there is nothing that all know and the
    /// cluster does not; [`vouch_broker::NothingStored::NotLeading`] where another node leads.
    pub async fn finish_upgrade(&self, by: &str) -> Result<UpgradeFinished, NotDone> {
        self.writable.check()?;
        self.must_lead().await?;
        let view = self.status().await?;
        let from = view.feature_level;
        if view.program.feature_level <= from {
            return Err(refused(&format!(
                "the cluster is at feature level {from}, the newest that this node's version knows ({VERSION}): there is no upgrade to finish"
            )));
        }
        let to = view.known_to_all().map_err(|why| refused(&why))?;
        let raised = LevelRaised { level: to, by: by.to_owned(), written_by: VERSION.to_owned() };
        // Whoever came meanwhile was not asked.
        let checked = view.all_with_the_log();
        let same = move |state: &vouch_broker::State, _: &vouch_leader::Leader| {
            let came = state.nodes().nodes.iter().filter(|(_, known)| known.invitation.is_none());
            came.map(|(id, _)| *id).chain(state.members().all()).all(|node| checked.contains(&node))
        };
        match self.shard.propose_one_if(same, |out| raised.encode(out)).await? {
            Some(_) => Ok(UpgradeFinished { from, to }),
            None => Err(refused("a node came to the cluster a moment ago; ask again")),
        }
    }
}
