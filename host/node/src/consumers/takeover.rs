//! Leases that an earlier leader, or this node before it began anew, had given to bindings: nobody works on them any more.

use std::collections::BTreeSet;

use vouch_broker::record::ChangeInvisible;
use vouch_broker::{Generation, NotDone, ResourceName, State};

use super::{Consumers, Wanted};
use crate::effects::client_id_of;

/// Leases that are taken over in one proposal.
const TAKEN_AT_ONCE: usize = 1024;

impl Consumers {
    /// Takes over what was leased to these bindings by whoever led before: it is due now, under the attempt that it had unless that is
    /// `counted`. What still comes of it from there is late, by its generation. What waited for the end of a pause is due as well:
    /// whoever leads now knows of no pause. Returns whether all of it is taken over.
    pub(super) async fn take_over(&self, wanted: &[Wanted], counted: bool) -> bool {
        let of: Vec<(String, BTreeSet<ResourceName>)> = wanted
            .iter()
            .map(|Wanted { name, entry }| {
                (client_id_of(name), entry.groups.iter().map(|group| ResourceName::parse(group)).collect())
            })
            .collect();
        loop {
            match self.take_some_over(of.clone(), counted).await {
                Ok(0) => return true,
                Ok(leases) => tracing::info!(leases, counted, "leases that bindings had are over"),
                Err(_) => return false,
            }
        }
    }

    /// The same of some, so that the shard's thread has others to serve between. Returns how many.
    async fn take_some_over(&self, of: Vec<(String, BTreeSet<ResourceName>)>, counted: bool) -> Result<usize, NotDone> {
        let clock = self.clock.clone();
        let now = clock.now();
        let generation = clock.generation(now);
        let find = move |state: &State| {
            let each = of.iter().flat_map(|(client, groups)| groups.iter().map(move |group| (client, group)));
            let mut changes = Vec::new();
            for (client, group) in each {
                let Ok(group) = state.groups().named(group) else { continue };
                for (topic, progress) in group.topics() {
                    let theirs = progress.due_from(now.plus_ms(1)).filter_map(|(_, queue, offset)| {
                        let lease = progress.exception(queue, offset)?;
                        let leased = lease.renewed_for.as_deref() == Some(client);
                        let of_this = leased || lease.suspended;
                        of_this.then_some((queue, offset, lease.generation, leased))
                    });
                    changes.extend(theirs.map(|(queue, offset, held, leased)| {
                        let over = taken_over((group.id, topic), (queue, offset), held, (generation, now));
                        // What is suspended stays so: it would count again.
                        ChangeInvisible { uncounted: !(counted && leased), ..over }
                    }));
                    if changes.len() >= TAKEN_AT_ONCE {
                        return changes;
                    }
                }
            }
            changes
        };
        let changes = self.shard.read(find).await?;
        let mut records = Vec::new();
        changes.iter().for_each(|change| _ = change.encode(&mut records));
        if !changes.is_empty() {
            self.shard.propose(records).await?;
        }
        Ok(changes.len())
    }
}

/// The record that lets a lease end now.
fn taken_over(
    (group, topic): (vouch_broker::GroupId, vouch_broker::TopicId),
    (queue, offset): (u32, vouch_broker::QueueOffset),
    generation: Generation,
    (new_generation, deadline): (Generation, vouch_broker::Millis),
) -> ChangeInvisible {
    ChangeInvisible { group, topic, queue, offset, generation, new_generation, deadline, uncounted: true }
}
