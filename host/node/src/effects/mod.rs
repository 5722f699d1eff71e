//! What components stage with their answers (ruling 8): what they read, which messages they may publish, and the record in
//! which all of it happens, or nothing.

mod draft;
mod locks;
mod reach;
mod runs;

use std::sync::Arc;

use vouch_broker::record::{
    KeptAccess, KeyExpiry, KeyWrite, MessagePlace, Outbox, Settled, SettledHead, encode_message,
};
use vouch_broker::state::{Applied, BindingEntry};
use vouch_broker::{Millis, NotDone, ResourceName, State, check::CheckOverrides};
use vouch_leader::Leader;
use vouch_plugin::{CallReach, Staged, StateExpiry, StateWrite};
use vouch_protocol::BINDING_CLIENT_PREFIX;
use vouch_shard::Shard;
use vouch_shard::clock::Clock;

use crate::routes::Routes;
use draft::message;
use locks::{HeldKeys, KeyLocks};
use reach::{BoundReach, MessageIds};
pub(crate) use runs::CallRuns;

/// The client id of a binding: of the leases that it has, and of what it publishes.
pub(crate) fn client_id_of(binding: &str) -> String {
    format!("{BINDING_CLIENT_PREFIX}{binding}")
}

/// Who answers: what of a binding its record needs.
#[derive(Clone, Debug)]
pub(crate) struct Settler {
    /// Name of the binding.
    pub(crate) binding: String,
    /// Position of the record that created it.
    pub(crate) created: u64,
    /// Where it may keep something.
    pub(crate) namespace: Option<String>,
}

impl Settler {
    /// This binding.
    pub(crate) fn of(name: &str, entry: &BindingEntry) -> Self {
        let namespace = entry.keeps.as_ref().map(|keeps| keeps.namespace.clone());
        Self { binding: name.to_owned(), created: entry.created, namespace }
    }
}

/// What components read and stage. There is one for a node.
pub(crate) struct Effects {
    /// Has the state, and takes the records.
    pub(crate) shard: Arc<Shard>,
    /// The log's time: what is staged expires by it.
    pub(crate) clock: Arc<Clock>,
    /// Topics that are published to.
    pub(crate) routes: Arc<Routes>,
    /// Part of every message id, so that no other cluster makes the same one.
    pub(crate) cluster_id: [u8; 16],
    /// Which keys of what is kept somebody has for himself.
    locks: Arc<KeyLocks>,
}

impl Effects {
    /// None is staged yet.
    pub(crate) fn new(shard: Arc<Shard>, clock: Arc<Clock>, routes: Arc<Routes>, cluster_id: [u8; 16]) -> Self {
        Self { shard, clock, routes, cluster_id, locks: Arc::default() }
    }

    /// What one call of a binding may read, and what its messages are called. `call` names it: the same whenever it is run again.
    pub(crate) fn reach(self: &Arc<Self>, of: &Settler, call: &str) -> Arc<dyn CallReach> {
        let ids = MessageIds::new(self.cluster_id, of.created, call);
        Arc::new(BoundReach { effects: self.clone(), namespace: of.namespace.clone(), ids })
    }

    /// Waits for the turn of a call's next run. One that runs alone has its keys until it leaves, or waits for the next turn: nobody
    /// else's record writes them, so it is not stale, unless it touches others than before.
    pub(crate) async fn enter(&self, of: &Settler, runs: &mut CallRuns) {
        runs.leave();
        let Some(namespace) = &of.namespace else { return };
        let turn = self.locks.take(namespace, runs.claim()).await;
        if runs.is_alone() {
            runs.held = turn;
        }
    }

    /// Proposes the record of an answer to a delivery. It is stale, too, and nothing is proposed, where somebody who runs alone has a
    /// key that it writes; `runs` are those of the call, and note it.
    pub(crate) async fn propose(&self, settled: &Settled, runs: &mut CallRuns) -> Result<Applied, NotDone> {
        runs.record_len = 0;
        let Some(_may_change) = self.may_change(settled, runs) else { return Ok(Applied::Stale) };
        let mut records = Vec::new();
        settled.encode(&mut records);
        runs.record_len = records.len();
        // What only acknowledges finds the room that is kept for that; all else can wait where there is none.
        let proposed = if grows_the_log(settled) {
            self.shard.propose_if_room(records).await?
        } else {
            self.shard.propose(records).await?
        };
        let first = proposed.into_iter().next();
        let applied = first.ok_or_else(|| NotDone::Unknown("a proposal without records".to_owned()))??;
        if applied == Applied::Stale {
            runs.was_stale(settled.kept.as_ref());
        }
        Ok(applied)
    }

    /// The same of an answer to a check, if this holds when it is its turn; `None`: it did not.
    pub(crate) async fn propose_if(
        &self,
        condition: impl FnOnce(&State, &Leader) -> bool + Send + 'static,
        settled: &Settled,
        runs: &mut CallRuns,
    ) -> Result<Option<Applied>, NotDone> {
        let Some(_may_change) = self.may_change(settled, runs) else { return Ok(Some(Applied::Stale)) };
        let applied = if grows_the_log(settled) {
            self.shard.propose_one_if_room(condition, |out| settled.encode(out)).await?
        } else {
            self.shard.propose_one_if(condition, |out| settled.encode(out)).await?
        };
        if applied == Some(Applied::Stale) {
            runs.was_stale(settled.kept.as_ref());
        }
        Ok(applied)
    }

    /// What a record needs of the keys that it writes, until it is applied; `None` where somebody else stands against it, which is noted.
    fn may_change(&self, settled: &Settled, runs: &mut CallRuns) -> Option<HeldKeys> {
        let Some(kept) = &settled.kept else { return Some(HeldKeys::default()) };
        let mut others = kept.writes.keys().filter(|key| !runs.held.owns(key)).cloned().peekable();
        if others.peek().is_none() {
            return Some(HeldKeys::default());
        }
        let may_change = self.locks.try_to_change(&kept.namespace, others, &runs.held);
        if may_change.is_none() {
            runs.was_kept_out(settled.kept.as_ref());
        }
        may_change
    }

    /// The record of an answer with what was staged.
    ///
    /// # Errors
    /// A topic that is to be published to went meanwhile.
    pub(crate) async fn settled(&self, of: &Settler, head: SettledHead, staged: Staged) -> Result<Settled, NotDone> {
        let now = self.clock.now();
        let mut records = Vec::new();
        for (id, draft) in staged.drafts {
            let topic = ResourceName::parse(&draft.topic);
            let route = self.routes.route(&topic).await?;
            let place = MessagePlace { topic: route.info.id, queue: route.next_queue(), stored_at: now };
            let message = message(id, &draft, now);
            encode_message(&mut records, place, &client_id_of(&of.binding), &message, CheckOverrides::default());
        }
        let outbox = Outbox::new(records).map_err(|defect| NotDone::internal(defect.to_string()))?;
        let writes = staged.writes.into_iter().map(|(key, write)| (key, key_write(write)));
        let kept = of.namespace.clone().map(|namespace| KeptAccess {
            namespace,
            reads: staged.reads,
            writes: writes.collect(),
        });
        let kept = kept.filter(|kept| !kept.reads.is_empty() || !kept.writes.is_empty());
        Ok(Settled { outbox, head, binding: of.binding.clone(), created: of.created, kept })
    }
}

/// Whether there is anything that must happen with the answer, or must still be so.
pub(crate) fn is_nothing(staged: &Staged) -> bool {
    staged.reads.is_empty() && staged.writes.is_empty() && staged.drafts.is_empty()
}

/// Whether a record is larger than an answer alone by more than what was read.
fn grows_the_log(settled: &Settled) -> bool {
    !settled.outbox.is_empty() || settled.kept.as_ref().is_some_and(|kept| !kept.writes.is_empty())
}

/// A write as its record has it.
fn key_write(write: StateWrite) -> KeyWrite {
    let expires = match write.expires {
        StateExpiry::Never => KeyExpiry::Never,
        StateExpiry::AfterMs(ms) => KeyExpiry::AfterMs(ms),
        StateExpiry::AtMs(at) => KeyExpiry::At(Millis(at)),
    };
    KeyWrite { value: write.value, expires }
}
