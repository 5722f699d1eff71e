//! What applying does wrong when a test wants it to ([`crate::bugs`]).

use super::{Applied, Effect, Outcome, RecordAt};
use crate::bugs::{Blunder, injected};
use crate::record::{Ack, KeptAccess, Settled, SettledHead};
use crate::state::kept::KeptChange;
use crate::state::{IndexEntry, State};

/// Lets some of what was staged happen though nothing was to, where a mistake is switched on.
pub(super) fn settled(of: &Settled, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) -> Option<Outcome> {
    let blunder = injected()?;
    let outcome = of.settle(state, at, effects);
    match (blunder, &outcome) {
        (Blunder::VersionNotCompared, Ok(Applied::Stale)) => {
            let mut unread = of.clone();
            unread.kept.iter_mut().for_each(|kept: &mut KeptAccess| kept.reads.clear());
            return Some(unread.settle(state, at, effects));
        }
        (Blunder::MessagesOfRefused, Ok(Applied::Late | Applied::Stale) | Err(_)) => publish(of, state, at, effects),
        (_, Ok(Applied::Late)) if is_late_as(blunder, of, state, at) => {
            if let Some(kept) = &of.kept {
                let change = KeptChange { namespace: &kept.namespace, quota: u64::MAX, writes: &kept.writes };
                state.kept.write(&change, at.position.0, at.time);
            }
            publish(of, state, at, effects);
        }
        _ => {}
    }
    Some(outcome)
}

/// Whether an answer is late in the way that this mistake is about.
fn is_late_as(blunder: Blunder, of: &Settled, state: &State, at: RecordAt) -> bool {
    let lease = |ack: &Ack| {
        let progress = state.groups.get(ack.group)?.progress(ack.topic)?;
        Some(progress.exception(ack.queue, ack.offset).cloned())
    };
    match (blunder, &of.head) {
        (Blunder::EffectsOfRepeatedEnd, SettledHead::End(_)) => true,
        (Blunder::EffectsOfStaleCheck, SettledHead::CheckAnswered(answered)) => {
            state.transactions.open.get(answered.transaction).is_some()
        }
        (Blunder::EffectsOfAckedLease, SettledHead::Ack(ack)) => lease(ack) == Some(None),
        (Blunder::EffectsBeyondLease, SettledHead::Ack(ack)) => {
            lease(ack).flatten().is_some_and(|lease| lease.generation == ack.generation && lease.visible_at <= at.time)
        }
        _ => false,
    }
}

/// Puts the messages into their queues.
fn publish(of: &Settled, state: &mut State, at: RecordAt, effects: &mut Vec<Effect>) {
    for (position, head) in of.messages(at.position) {
        if let Ok(topic) = state.topics.get_mut(head.topic) {
            topic.append(head.queue, IndexEntry { position, tag: head.tag });
            effects.push(Effect::Arrived(head.topic, head.tag));
        }
    }
}
