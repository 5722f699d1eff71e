//! When a member that serves is to take from others what it lacks.

use std::collections::BTreeSet;
use std::future::pending;
use std::time::{Duration, Instant};

use vouch_commitlog::LogPosition;
use vouch_consensus::Role;
use vouch_shard::{GroupStanding, MetDamage};
use vouch_storage::ScrubReport;

use super::Nodes;
use crate::peers::{Lacking, Speaking};

/// Between two looks at what was found.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So long it is believed that another node has what is damaged here, and so long that none has.
const GIVEN_FOR: Duration = Duration::from_secs(600);
const NOT_GIVEN_FOR: Duration = Duration::from_secs(60);

/// What cannot be read here any more.
struct Damaged {
    /// Where segments of the log begin that are damaged.
    segments: BTreeSet<LogPosition>,
    /// Parts of the index of which no copy is whole.
    parts: BTreeSet<u64>,
    /// This replica takes part in nothing any more, since its state lacks some of these parts.
    is_closed: bool,
}

/// Whether another node has what is damaged here, as was last heard.
#[derive(Default)]
struct Givers(Option<(Instant, Result<(), String>)>);

impl Givers {
    /// What was heard, unless that is too long ago.
    fn heard(&self, now: Instant) -> Option<Result<(), String>> {
        let (at, heard) = self.0.as_ref()?;
        let for_long = if heard.is_ok() { GIVEN_FOR } else { NOT_GIVEN_FOR };
        (now < *at + for_long).then(|| heard.clone())
    }
}

impl Nodes {
    /// Resolves when this node is further behind than the log goes back at the one that leads, or when segments of its log or parts of its
    /// index are found to be damaged which others have. It is to be stopped, and started with this as [`crate::NodeConfig::lacking`].
    pub async fn lacks(&self) -> Lacking {
        tokio::select! {
            behind = self.is_behind() => behind,
            damaged = self.is_damaged() => damaged,
        }
    }

    async fn is_behind(&self) -> Lacking {
        let mut behind = self.behind.clone();
        match &self.speaking {
            // It says so once, and not when the shard ends.
            Some(speaking) if behind.wait_for(|is_behind| *is_behind).await.is_ok() => speaking.lacking(),
            _ => pending().await,
        }
    }

    /// What is damaged here lies with the others as well. It serves on while they are too few to do without this node, while none of
    /// them would give it, and where it is alone: what is read of the damage meanwhile is refused, and told. Where its state lacks a part it serves nobody any more.
    async fn is_damaged(&self) -> Lacking {
        let Some((speaking, scrub)) = self.speaking.as_ref().zip(self.scrub.as_ref()) else { return pending().await };
        let (mut told, mut givers) = (String::new(), Givers::default());
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let Damaged { segments, parts, is_closed } = self.damaged(scrub);
            let may_ask = is_closed || self.mends_from.is_none_or(|from| Instant::now() >= from);
            if segments.is_empty() && parts.is_empty() || !may_ask {
                continue;
            }
            let counts = (segments.len(), parts.len());
            match self.may_be_spared(speaking, is_closed, &mut givers).await {
                Ok(()) => {
                    tracing::error!(
                        segments = counts.0,
                        parts = counts.1,
                        "the log of this node is damaged; it takes what is lost from the others, and serves again"
                    );
                    let damaged = segments.into_iter().collect();
                    return Lacking { damaged, parts, can_do_without: true, ..speaking.lacking() };
                }
                Err(why) if why != told => {
                    tracing::warn!(
                        segments = counts.0,
                        parts = counts.1,
                        why,
                        "the log of this node is damaged, and it stays as it is until the others can do without it, to take what is lost \
                         from them"
                    );
                    told = why;
                }
                Err(_) => {}
            }
        }
    }

    /// What the scrubber found, and what was met by whoever read.
    fn damaged(&self, scrub: &ScrubReport) -> Damaged {
        let MetDamage { entries, mut parts, is_closed } = self.met_damage.borrow().clone();
        parts.extend(scrub.lost().iter().filter_map(|lost| lost.part));
        // What was released since is nobody's any more.
        let start = self.log.start();
        let met = entries.iter().filter(|at| **at >= start).map(|at| LogPosition(at.0 - at.0 % self.segment_size));
        let found = scrub.found();
        let found = found.iter().map(|range| LogPosition(range.from.0 - range.offset));
        Damaged { segments: found.chain(met).collect(), parts, is_closed }
    }

    /// Whether the others can do without this node for a while, as whoever leads knows. Who leads itself hands over first, to one that
    /// does not ask for the same. One that is closed is not counted on by anybody, and asks nobody: it knows of none who leads.
    async fn may_be_spared(&self, speaking: &Speaking, is_closed: bool, givers: &mut Givers) -> Result<(), String> {
        if self.snapshots.comparison().doubt().is_some() {
            return Err("it is in doubt whether this node knows what the others know, and what it had may decide that"
                .to_owned());
        }
        let group = self.shard.group().await.map_err(|why| why.to_string())?;
        if group.members.is_only(group.node) {
            return Err("no other node has what it had".to_owned());
        }
        if is_closed {
            return Ok(());
        }
        // It may be unable to start again with what it has, so it stops only where it gets what it lacks.
        match givers.heard(Instant::now()) {
            Some(heard) => heard?,
            None => {
                let heard = self.somebody_gives(speaking, &group).await;
                givers.0 = Some((Instant::now(), heard.clone()));
                heard?;
            }
        }
        match group.role {
            Role::Leads { .. } => {
                speaking.spared.may_hand_over(&group, Instant::now())?;
                let to = self.successor().await.map_err(|why| why.to_string())?;
                self.shard.hand_over(to).await.map_err(|why| why.to_string())?;
                Err(format!("it leads, and hands over to node {to} first"))
            }
            Role::Follows { leader: Some(leader) } => speaking.may_be_spared(leader).await,
            Role::Follows { leader: None } => Err("nobody leads".to_owned()),
        }
    }

    /// Whether any of the others would give its log to this one: for what none of them has this one would stop in vain.
    async fn somebody_gives(&self, speaking: &Speaking, group: &GroupStanding) -> Result<(), String> {
        let mut refusals = Vec::new();
        for node in group.members.all().into_iter().filter(|node| *node != group.node) {
            match speaking.would_give(node, group.term).await {
                Ok(()) => return Ok(()),
                Err(why) => refusals.push(format!("node {node}: {why}")),
            }
        }
        Err(format!("none of the others gives what is damaged here; {}", refusals.join("; ")))
    }
}
