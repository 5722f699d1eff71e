//! Leases that an earlier leader, or this node before it began anew, had given to bindings: nobody works on them any more.

use std::collections::BTreeSet;

use vouch_broker::record::ChangeInvisible;
use vouch_broker::{Generation, Millis, NotDone, ResourceName, State};

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
        let find = move |state: &State| leases_of(state, &of, counted, (generation, now));
        let changes = self.shard.read(find).await?;
        let mut records = Vec::new();
        changes.iter().for_each(|change| _ = change.encode(&mut records));
        if !changes.is_empty() {
            self.shard.propose(records).await?;
        }
        Ok(changes.len())
    }
}

/// The records that let leases of these clients in their groups end now, some at a time. Those end that wait for their time, leased or
/// suspended.
fn leases_of(
    state: &State,
    of: &[(String, BTreeSet<ResourceName>)],
    counted: bool,
    (generation, now): (Generation, Millis),
) -> Vec<ChangeInvisible> {
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
}

/// The record that lets a lease end now.
fn taken_over(
    (group, topic): (vouch_broker::GroupId, vouch_broker::TopicId),
    (queue, offset): (u32, vouch_broker::QueueOffset),
    generation: Generation,
    (new_generation, deadline): (Generation, Millis),
) -> ChangeInvisible {
    ChangeInvisible { group, topic, queue, offset, generation, new_generation, deadline, uncounted: true }
}

#[cfg(test)]
mod tests {
    use vouch_broker::record::{Lease, Record};
    use vouch_broker::testing::{RecordLog, whole};
    use vouch_broker::{GroupConfig, QueueOffset, TopicId};

    use super::*;

    const BINDING: &str = "binding";

    /// Three messages: one that the binding has, one that it had when it began to wait, and one that a client has.
    struct Leased {
        log: RecordLog,
        group: vouch_broker::GroupId,
        topic: TopicId,
    }

    impl Leased {
        fn new() -> Self {
            let mut log = RecordLog::new();
            let topic = log.topic("t", 1);
            let group = log.member("g", topic, GroupConfig::default());
            log.send_all(topic, &[None; 3]);
            for (at, client) in [Some(BINDING), Some(BINDING), None].into_iter().enumerate() {
                let at = at as u64;
                let (generation, deadline) = (Generation(10 + at), log.now.plus_ms(60_000));
                let (renewed_for, fresh) = (client.map(str::to_owned), vec![whole(0, at, at + 1)]);
                let lease = Lease { group, topic, generation, deadline, renewed_for, fresh, again: Vec::new() };
                log.apply(Record::Lease(lease)).unwrap();
            }
            let place = ((group, topic), (0, QueueOffset(1)));
            let waits = taken_over(place.0, place.1, Generation(11), (Generation(20), log.now.plus_ms(60_000)));
            log.apply(Record::ChangeInvisible(waits)).unwrap();
            Self { log, group, topic }
        }

        /// Takes over what the binding had, until nothing is left of it.
        fn take_over(&mut self, counted: bool) {
            let of = [(BINDING.to_owned(), [ResourceName::plain("g")].into())];
            let found = leases_of(&self.log.state, &of, counted, (Generation(30), self.log.now));
            assert_eq!(
                found.iter().map(|change| change.offset.0).collect::<Vec<_>>(),
                [0, 1],
                "a client's is not theirs"
            );
            found.into_iter().for_each(|change| _ = self.log.apply(Record::ChangeInvisible(change)).unwrap());
            assert_eq!(leases_of(&self.log.state, &of, counted, (Generation(31), self.log.now)), []);
        }

        /// Deliveries of a message that count so far, and when it is due.
        fn counts(&self, offset: u64) -> (u32, bool) {
            let lease = self.log.progress(self.group, self.topic).exception(0, QueueOffset(offset)).unwrap();
            (lease.attempts, lease.visible_at <= self.log.now)
        }
    }

    #[test]
    fn what_another_one_had_does_not_count_and_is_due_now() {
        let mut leased = Leased::new();
        assert_eq!([0, 1, 2].map(|at| leased.counts(at)), [(1, false), (0, false), (1, false)]);
        leased.take_over(false);
        assert_eq!([0, 1, 2].map(|at| leased.counts(at)), [(0, true), (0, true), (1, false)]);
    }

    #[test]
    fn what_this_node_died_with_counts_and_what_only_waited_does_not() {
        let mut leased = Leased::new();
        leased.take_over(true);
        assert_eq!([0, 1, 2].map(|at| leased.counts(at)), [(1, true), (0, true), (1, false)]);
    }
}
