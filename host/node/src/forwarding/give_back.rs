//! Leases whose messages never came to their consumer, since the leader that wrote them was lost before it answered.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use vouch_broker::record::ChangeInvisible;
use vouch_broker::{Generation, Millis, NotDone, State};
use vouch_leader::{RENEWED_LEASE_MS, SHORTLY_MS};
use vouch_shard::Shard;
use vouch_shard::clock::Clock;

use super::lost::LostReceive;
use crate::sessions::Sessions;

/// What a node remembers came a moment after it was leased, and what it tells of that is on its way for a moment.
const UNCERTAIN_MS: u64 = 500;

/// Gives back what a leader before this one leased to the client of a receive, and what that did not get. Where this node led
/// already when it was asked, there is nothing of the kind.
///
/// # Errors
/// This node does not lead, or does not know since when.
pub(super) async fn give_back_lost(
    shard: &Shard,
    sessions: &Sessions,
    clock: &Clock,
    mut lost: LostReceive,
) -> Result<(), NotDone> {
    let asked_ago = Duration::from_millis(lost.asked_ms_ago);
    // The reporter has not noted yet that this node leads.
    let since = sessions.leads_since().ok_or_else(|| NotDone::internal("it does not lead for long enough"))?;
    if Instant::now().saturating_duration_since(since) > asked_ago {
        return Ok(());
    }
    sessions.came(std::mem::take(&mut lost.came), Instant::now());
    // What came by another node must not be taken away: until all have told that, it is asked again. What came by one that is lost
    // nobody knows, and then the lease ends by itself.
    let Some((came, remembered)) = sessions.all_that_came(Instant::now()) else {
        return Err(NotDone::internal("not all nodes have told yet what came to their consumers"));
    };
    let since = remembered_since(clock.now(), remembered);
    let changes = shard.lead(move |state, leader| lost_leases(state, leader.began_at, &lost, (&came, since))).await?;
    for change in changes {
        match shard.propose_one(|out| change.encode(out)).await {
            Err(refused @ NotDone::Refused(_)) => tracing::debug!(%refused, "a lease that nobody got is over already"),
            done => done.map(drop)?,
        }
    }
    Ok(())
}

/// From when on by the log's time all nodes remember what came. That time may go at nine tenths of the pace of clocks (ruling 20).
fn remembered_since(now: Millis, remembered: Duration) -> Millis {
    let ms = u64::try_from(remembered.as_millis()).unwrap_or(u64::MAX);
    Millis(now.0.saturating_sub(ms - ms / 10).saturating_add(UNCERTAIN_MS))
}

/// What gives back those leases of before this time that nobody got, among those that were leased since all remember what came. The
/// messages are visible at once, and the deliveries do not count.
fn lost_leases(
    state: &State,
    began_at: Millis,
    lost: &LostReceive,
    (came, since): (&HashSet<Generation>, Millis),
) -> Vec<ChangeInvisible> {
    let (Ok(group), Ok(topic)) = (state.groups().named(&lost.group), state.topics().named(&lost.topic)) else {
        return Vec::new();
    };
    let Some(progress) = group.progress(topic.id) else { return Vec::new() };
    // None of these was extended yet, so they end within this time: no others are looked at.
    let (last, first) = (began_at.plus_ms(RENEWED_LEASE_MS), began_at.plus_ms(RENEWED_LEASE_MS - SHORTLY_MS));
    let ending = progress.due_from(first).take_while(|(visible_at, ..)| *visible_at <= last);
    let leases = ending.filter_map(|(_, queue, offset)| {
        let lease = progress.exception(queue, offset)?;
        let is_his = lease.renewed_for.as_deref() == Some(&*lost.client_id);
        // A node that was started anew since may have handed them to a consumer that has them.
        let is_remembered = lease.leased_at >= since;
        let in_time = lease.leased_at <= began_at && began_at.ms_since(lease.leased_at) <= SHORTLY_MS;
        let generation = lease.generation;
        (is_his && in_time && is_remembered && !came.contains(&generation)).then_some(ChangeInvisible {
            group: group.id,
            topic: topic.id,
            queue,
            offset,
            generation,
            new_generation: generation,
            deadline: began_at,
            uncounted: true,
        })
    });
    leases.collect()
}

#[cfg(test)]
#[path = "give_back_tests.rs"]
mod tests;
