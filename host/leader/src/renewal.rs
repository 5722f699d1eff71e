//! Which leases the broker extends for consumers that live, and which it gives up for those that died (protocol paper
//! §4.6.4).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vouch_broker::record::{ChangeInvisible, Renew};
use vouch_broker::state::Exception;
use vouch_broker::{Millis, ResourceName, State};

use crate::Dead;

/// A lease is extended this long before it ends.
const RENEW_AHEAD_MS: u64 = 10_000;
/// By this much, in milliseconds. A lease that is renewed begins with it, too.
pub const RENEWED_LEASE_MS: u64 = 60_000;
/// A lease lives at most this long, however alive its consumer is.
const RENEW_FOR_AT_MOST_MS: u64 = 3 * 60 * 60 * 1000;
/// Leases that are given up in one turn of the shard; the others in the next ones, a second apart.
const GIVEN_UP_AT_ONCE: usize = 10_000;

/// The renewals that are due at `now`.
pub(crate) fn due(
    state: &State,
    now: Millis,
    is_alive: impl Fn(&str) -> bool,
    may_be_lost: impl Fn(&Exception) -> bool,
) -> Vec<Renew> {
    let mut renewals = Vec::new();
    for group in state.groups().iter() {
        for (topic, progress) in group.topics() {
            let ending = progress
                .due_from(now.plus_ms(1))
                .take_while(|(visible_at, _, _)| *visible_at <= now.plus_ms(RENEW_AHEAD_MS));
            let leases: Vec<_> = ending
                .filter_map(|(_, queue, offset)| {
                    let lease = progress.exception(queue, offset)?;
                    let client = lease.renewed_for.as_deref()?;
                    let young = now.ms_since(lease.leased_at) < RENEW_FOR_AT_MOST_MS;
                    (young && is_alive(client) && !may_be_lost(lease)).then_some((queue, offset, lease.generation))
                })
                .collect();
            if !leases.is_empty() {
                let deadline = now.plus_ms(RENEWED_LEASE_MS);
                renewals.push(Renew { group: group.id, topic, deadline, leases });
            }
        }
    }
    renewals
}

/// Consumers that died, by group, as long as leases are left that were renewed for them.
#[derive(Debug)]
pub(crate) struct Orphans {
    dead: BTreeMap<ResourceName, BTreeSet<Arc<str>>>,
    at_once: usize,
}

impl Default for Orphans {
    fn default() -> Self {
        Self { dead: BTreeMap::new(), at_once: GIVEN_UP_AT_ONCE }
    }
}

impl Orphans {
    pub(crate) fn add(&mut self, dead: Vec<Dead>) {
        for Dead { client_id, group } in dead {
            self.dead.entry(group).or_default().insert(client_id);
        }
    }

    /// What gives up their leases, unless they came back: the messages are visible at once, and the delivery counts. One
    /// look at a group serves all who died in it.
    pub(crate) fn take(&mut self, state: &State, now: Millis, is_alive: impl Fn(&str) -> bool) -> Vec<ChangeInvisible> {
        let mut changes = Vec::new();
        while let Some(mut of_group) = self.dead.first_entry() {
            of_group.get_mut().retain(|client| !is_alive(client));
            let (name, dead) = (of_group.key(), of_group.get());
            if let Ok(group) = state.groups().named(name) {
                for (topic, progress) in group.topics() {
                    let leases = progress.due_from(now.plus_ms(1)).filter_map(|(_, queue, offset)| {
                        let lease = progress.exception(queue, offset)?;
                        let generation = lease.generation;
                        dead.contains(lease.renewed_for.as_deref()?).then_some(ChangeInvisible {
                            group: group.id,
                            topic,
                            queue,
                            offset,
                            generation,
                            new_generation: generation,
                            deadline: now,
                            uncounted: false,
                        })
                    });
                    let room = self.at_once - changes.len();
                    changes.extend(leases.take(room));
                    if changes.len() == self.at_once {
                        return changes;
                    }
                }
            }
            of_group.remove();
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vouch_broker::check::CheckOverrides;
    use vouch_broker::record::{
        Frame, GroupPut, Join, Lease, LeasedRange, MessagePlace, Record, TopicPut, encode_message,
    };
    use vouch_broker::state::RecordAt;
    use vouch_broker::{
        BodyEncoding, Generation, GroupConfig, GroupId, MessageKind, NewMessage, QueueOffset, TopicConfig, TopicId,
    };

    use super::*;
    use vouch_broker::RecordPosition;

    const NOW: Millis = Millis(1_000_000);

    struct Bench {
        state: State,
        position: RecordPosition,
    }

    impl Bench {
        /// A group of one topic with one queue of `messages`.
        fn new(messages: u64) -> (Self, GroupId, TopicId) {
            let mut bench = Self { state: State::default(), position: RecordPosition(0) };
            let (topic, group) = (ResourceName::plain("orders"), ResourceName::plain("g"));
            let config = TopicConfig { queues: 1, ..TopicConfig::default() };
            bench.apply(&Record::TopicPut(TopicPut { name: topic.clone(), config, expected_revision: None }));
            let config = GroupConfig::default();
            bench.apply(&Record::GroupPut(GroupPut { name: group.clone(), config, expected_revision: None }));
            let topic = bench.state.topics().named(&topic).unwrap().id;
            let group = bench.state.groups().named(&group).unwrap().id;
            bench.apply(&Record::Join(Join { group, topic, at_end: false }));
            for number in 0..messages {
                let message = NewMessage {
                    message_id: number.to_string(),
                    tag: None,
                    keys: vec![],
                    properties: vec![],
                    kind: MessageKind::Normal,
                    encoding: BodyEncoding::Identity,
                    born_at: NOW,
                    born_host: "h".to_owned(),
                    trace_context: None,
                    message_group: None,
                    deliver_at: None,
                    recovery_ms: None,
                    body: Bytes::from_static(b"x"),
                };
                let mut bytes = Vec::new();
                let place = MessagePlace { topic, queue: 0, stored_at: NOW };
                encode_message(&mut bytes, place, "producer", &message, CheckOverrides::default());
                bench.apply(&Record::decode(&Frame::split(&bytes).unwrap().0).unwrap());
            }
            (bench, group, topic)
        }

        fn apply(&mut self, record: &Record) {
            self.position = self.position.plus(64);
            let at = RecordAt { position: self.position, time: NOW };
            self.state.apply(at, record, &mut Vec::new()).unwrap();
        }

        fn in_flight(&self, group: GroupId, topic: TopicId) -> u64 {
            self.state.groups().get(group).unwrap().progress(topic).unwrap().in_flight(NOW)
        }
    }

    #[test]
    fn leases_of_the_dead_are_given_up_so_many_at_once_and_nobody_elses() {
        let (mut bench, group, topic) = Bench::new(12);
        for (from, client) in
            [(0, Some("dead")), (4, Some("back")), (6, None), (8, Some("dead too")), (11, Some("lives"))]
        {
            let to = [4, 6, 8, 11, 12].into_iter().find(|to| *to > from).unwrap();
            let leased = (from..to).map(QueueOffset).collect();
            let fresh =
                vec![LeasedRange { queue: 0, from: QueueOffset(from), to: QueueOffset(to), leased, left: vec![] }];
            let renewed_for = client.map(str::to_owned);
            let deadline = NOW.plus_ms(RENEWED_LEASE_MS);
            bench.apply(&Record::Lease(Lease {
                group,
                topic,
                generation: Generation(from + 1),
                deadline,
                renewed_for,
                fresh,
                again: vec![],
            }));
        }
        let mut orphans = Orphans { at_once: 5, ..Orphans::default() };
        let dead = |client: &str| Dead { client_id: client.into(), group: ResourceName::plain("g") };
        orphans.add(vec![dead("dead"), dead("dead too"), dead("back"), dead("never leased")]);
        for (given_up, left) in [(5, 7), (2, 5), (0, 5)] {
            let changes = orphans.take(&bench.state, NOW, |client| client == "back");
            assert_eq!(changes.len(), given_up);
            for change in changes {
                bench.apply(&Record::ChangeInvisible(change));
            }
            assert_eq!(bench.in_flight(group, topic), left);
        }
        let progress = bench.state.groups().get(group).unwrap().progress(topic).unwrap();
        assert!(
            progress.exception(0, QueueOffset(0)).is_some_and(|given_up| given_up.attempts == 1),
            "the delivery counts"
        );
        assert!(orphans.dead.is_empty());
    }
}
