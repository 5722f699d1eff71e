//! What is played with three nodes besides: they become one broker, and the one that leads is killed.

use std::time::Instant;

use anyhow::bail;
use serde_json::{Value, json};

use super::database;
use super::event::DemoMoment;
use super::nodes::{DemoLeader, knows_of};
use super::screen::Style;
use super::service::Hold;
use super::stage::{DemoStage, STEP_WITHIN};

/// The order whose half message outlives the node that took it.
const HALF_DONE: &str = "A-1006";
/// One that comes while a node is dead.
const MEANWHILE: &str = "A-1007";

/// The first node, which serves already, gets others.
pub(super) fn become_one(stage: &mut DemoStage, nodes: u64) -> anyhow::Result<()> {
    stage.chapter(
        "Three nodes become one broker",
        "Node 1 serves alone, and has data. Others are let in while it does, each with a token that is good once. The second one gets the log and does not vote yet: of two voters neither may be lost.",
    )?;
    for number in 2..=nodes {
        let token = format!("node-{number}.token");
        stage.command("operator", &["cluster", "add", "--token-file", &token])?;
        let token = stage.path(&token);
        let joined = stage.nodes.join(&token)?;
        let at = format!("joins with it, has the log: gRPC {}, HTTP {}", joined.grpc_address, joined.http_address);
        let name = joined.name.clone();
        stage.screen.step(&name, &at)?;
    }
    let voters = json!(stage.nodes.all().iter().map(|node| node.id).collect::<Vec<_>>());
    stage.until_seen("all nodes to vote", |_| {
        let all_vote = |standing: Value| standing["voters"] == voters;
        Ok(stage.nodes.all().iter().all(|node| node.standing().is_some_and(all_vote)).then_some(()))
    })?;
    let leader = stage.until_led()?;
    let who = &stage.nodes.node(leader.at).name;
    let text = format!("{who} leads in term {}; all three vote, and two must be there", leader.term);
    Ok(stage.screen.strong_step("cluster", &text, Style::Good)?)
}

/// The node that leads is killed between half message and commit, and comes back later.
pub(super) fn leader_killed(stage: &mut DemoStage) -> anyhow::Result<()> {
    stage.chapter(
        "The node that leads is killed between half message and commit",
        "The row is written, and the service is busy with something else. Before it says commit, the node that took the half message is gone. The half message is on the disks of the others: another node leads, and the component there asks. The commit, when it comes, comes by another node, and is no news.",
    )?;
    stage.order(HALF_DONE, "a shelf", database::PAID, Hold::AfterRow)?;
    stage.until(HALF_DONE, DemoMoment::RowWritten)?;
    let killed = stage.kill_leader(Some(HALF_DONE), "leads, and is killed (kill -9)")?;
    stage.until_served(killed)?;
    stage.until(HALF_DONE, DemoMoment::Received)?;
    stage.go_on()?;
    stage.until(HALF_DONE, DemoMoment::Told)?;
    stage.order(MEANWHILE, "a mirror", database::PAID, Hold::Never)?;
    stage.until(MEANWHILE, DemoMoment::Received)?;
    stage.make_whole(killed)
}

impl DemoStage {
    /// Finds out which node leads and kills it like a crash would. Returns what it said of itself before.
    ///
    /// # Errors
    /// No node leads; or the transaction of `open` has ended already, so that the story would tell something else.
    pub(super) fn kill_leader(&mut self, open: Option<&str>, why: &str) -> anyhow::Result<DemoLeader> {
        let leader = self.until_led()?;
        if let Some(order) = open
            && !self.is_open(order)?
        {
            bail!(
                "the broker had asked about {order} and settled it before its node could be killed: this machine is too busy just now; try again without --fast"
            );
        }
        self.nodes.kill(leader.at)?;
        let who = self.nodes.node(leader.at).name.clone();
        self.screen.strong_step(&who, why, Style::Bad)?;
        Ok(leader)
    }

    /// After a node was killed: until the broker serves again. A node alone is started again; of several another one leads.
    pub(super) fn until_served(&mut self, killed: DemoLeader) -> anyhow::Result<()> {
        if !self.nodes.are_several() {
            self.nodes.restart(killed.at)?;
            self.turn_to(killed.at)?;
            return Ok(self.screen.strong_step("broker", "starts again on the same folder", Style::Good)?);
        }
        let leader = self.until_led_since(killed.term + 1)?;
        let who = self.nodes.node(leader.at).name.clone();
        let text = format!("leads in term {}, as the others elected it", leader.term);
        Ok(self.screen.strong_step(&who, &text, Style::Good)?)
    }

    /// Starts a node that is dead still, and waits until it has all of the log.
    pub(super) fn make_whole(&mut self, killed: DemoLeader) -> anyhow::Result<()> {
        let Some(dead) = self.nodes.dead() else { return Ok(()) };
        let (who, id) = (self.nodes.node(dead).name.clone(), self.nodes.node(dead).id);
        let missed = self.until_led()?.log_end.saturating_sub(killed.log_end);
        self.nodes.restart(dead)?;
        let text = format!("starts again on the same folder; the log went on by {missed} bytes");
        self.screen.step(&who, &text)?;
        self.until_seen("the node that was dead to have all of the log", |_| {
            let Some(leader) = self.nodes.leader() else { return Ok(None) };
            let standing = self.nodes.node(leader.at).standing().unwrap_or_default();
            let known = knows_of(&standing, id);
            Ok(known.is_some_and(|known| known["lag_bytes"] == 0 && known["heard"] == true).then_some(()))
        })?;
        Ok(self.screen.strong_step(&who, "has all of the log: its lag is 0 bytes", Style::Good)?)
    }

    /// Waits until a node leads, and turns to it.
    pub(super) fn until_led(&mut self) -> anyhow::Result<DemoLeader> {
        self.until_led_since(0)
    }

    /// The same, of a node that was elected in this term or later.
    fn until_led_since(&mut self, term: u64) -> anyhow::Result<DemoLeader> {
        let give_up_at = Instant::now() + STEP_WITHIN;
        loop {
            if let Some(leader) = self.nodes.leader().filter(|leader| leader.term >= term) {
                self.turn_to(leader.at)?;
                return Ok(leader);
            }
            if Instant::now() > give_up_at {
                return self.give_up("a node that leads");
            }
            // Nothing is decided until then: of transactions there is nothing to see.
            self.hear_who_moved()?;
        }
    }
}
