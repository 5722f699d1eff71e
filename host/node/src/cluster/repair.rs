//! When a member that serves is to take from others what it lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use vouch_commitlog::LogPosition;
use vouch_consensus::Role;
use vouch_shard::{GroupStanding, MetDamage};
use vouch_storage::ScrubReport;

use super::Nodes;
use crate::peers::{Lacking, Speaking};

/// Between two looks at what was found.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So long it is believed that one of the others has what is damaged here, and so long that none has: each reads a segment to say so.
const HAS_FOR: Duration = Duration::from_secs(600);
const HAS_NOT_FOR: Duration = Duration::from_secs(60);

/// What cannot be read here any more.
#[derive(Clone, PartialEq, Eq)]
struct Damaged {
    /// Where segments of the log begin that are damaged.
    segments: BTreeSet<LogPosition>,
    /// Parts of the index of which no copy is whole.
    parts: BTreeSet<u64>,
    /// This replica takes part in nothing any more, since its state lacks some of these parts.
    is_closed: bool,
}

/// Whether one of the others has what was damaged here when they were asked: when, and what they said.
#[derive(Default)]
struct Others(Option<(Instant, Damaged, Result<(), String>)>);

impl Others {
    /// What they said, if that was not too long ago, and of the same.
    fn said(&self, damaged: &Damaged, now: Instant) -> Option<Result<(), String>> {
        let (at, of, said) = self.0.as_ref()?;
        let for_long = if said.is_ok() { HAS_FOR } else { HAS_NOT_FOR };
        (of == damaged && now < *at + for_long).then(|| said.clone())
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
    /// them has it, and where it is alone: what is read of the damage meanwhile is refused, and told. Where its state lacks a part it
    /// serves nobody any more.
    async fn is_damaged(&self) -> Lacking {
        let Some((speaking, scrub)) = self.speaking.as_ref().zip(self.scrub.as_ref()) else { return pending().await };
        let (mut told, mut others) = (String::new(), Others::default());
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let damaged = self.damaged(scrub);
            let Damaged { segments, parts, is_closed } = damaged.clone();
            let may_ask = is_closed || self.mends_from.is_none_or(|from| Instant::now() >= from);
            if segments.is_empty() && parts.is_empty() || !may_ask {
                continue;
            }
            let counts = (segments.len(), parts.len());
            match self.may_stop(speaking, &damaged, &mut others).await {
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

    /// Whether this node stops now, to take what is damaged from the others. It may be unable to start again with what it has, so it
    /// does that only where one of them has it, and where they can do without it meanwhile. Who leads itself hands over first, to one
    /// that does not ask for the same. One that is closed is not counted on by anybody, and asks nobody: it knows of none who leads.
    async fn may_stop(&self, speaking: &Speaking, damaged: &Damaged, others: &mut Others) -> Result<(), String> {
        let group = self.one_of_several().await?;
        if damaged.is_closed {
            return Ok(());
        }
        match others.said(damaged, Instant::now()) {
            Some(said) => said?,
            None => {
                let mut met = self.met_damage.clone();
                let said = tokio::select! {
                    said = self.somebody_has(speaking, &group, damaged) => said,
                    Ok(_) = met.wait_for(|met| met.is_closed) => return Err("it serves nobody any more".to_owned()),
                };
                others.0 = Some((Instant::now(), damaged.clone(), said.clone()));
                said?;
            }
        }
        // To ask may have taken a while.
        let group = self.one_of_several().await?;
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

    /// The group, if what it has may be taken in place of what is here.
    async fn one_of_several(&self) -> Result<GroupStanding, String> {
        if self.snapshots.comparison().doubt().is_some() {
            return Err("it is in doubt whether this node knows what the others know, and what it had may decide that"
                .to_owned());
        }
        let group = self.shard.group().await.map_err(|why| why.to_string())?;
        match group.members.is_only(group.node) {
            true => Err("no other node has what it had".to_owned()),
            false => Ok(group),
        }
    }

    /// Whether any of the others has all segments that are damaged here, as far as this one needs them.
    async fn somebody_has(&self, speaking: &Speaking, group: &GroupStanding, damaged: &Damaged) -> Result<(), String> {
        let needed = group.committed_to.unwrap_or_else(|| self.log.end());
        let stretch = |from: &LogPosition| *from..LogPosition(from.0 + self.segment_size).min(needed).max(*from);
        // Of parts alone: whoever gives anything has them.
        let stretches: Vec<_> = damaged.segments.iter().map(stretch).filter(|stretch| !stretch.is_empty()).collect();
        let mut asked = JoinSet::new();
        for node in group.members.all().into_iter().filter(|node| *node != group.node) {
            let has = speaking.has(node, stretches.clone());
            asked.spawn(async move { has.await.map_err(|why| (node, why)) });
        }
        let mut refusals = BTreeMap::new();
        while let Some(answered) = asked.join_next().await {
            match answered {
                Ok(Ok(())) => return Ok(()),
                Ok(Err((node, why))) => _ = refusals.insert(node, why),
                Err(panicked) => return Err(panicked.to_string()),
            }
        }
        let refusals: Vec<_> = refusals.iter().map(|(node, why)| format!("node {node}: {why}")).collect();
        Err(format!("none of the others has what is damaged here; {}", refusals.join("; ")))
    }
}
