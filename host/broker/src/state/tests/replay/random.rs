//! Random records, most of which make sense in the state that they meet.

use std::collections::BTreeSet;
use std::time::Duration;

use vouch_cluster::{MembersChange, NodeAddresses, NodeId};

use crate::check::CheckOverrides;
use crate::record::*;
use crate::state::PIN_MS;
use crate::testing::{RecordLog, head};
use crate::{
    CheckPolicy, Generation, GroupConfig, GroupId, HalfPosition, MessageKind, Millis, NewMessage, QueueOffset,
    RecordPosition, ResourceName, StartPosition, TagFilter, TagHash, TopicConfig, TopicId, TransactionOutcome,
    Unconsumed,
};

/// Numbers from which a record is made, small so that records meet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) what: u8,
    pub(super) a: u16,
    pub(super) b: u16,
    pub(super) c: u16,
}

impl Step {
    fn topic(&self) -> TopicId {
        TopicId([1, 1, 1, 2, 2, 3, 4, 5][usize::from(self.a) % 8])
    }

    fn group(&self) -> GroupId {
        GroupId([1, 1, 1, 2, 2, 3, 4, 5][usize::from(self.b) % 8])
    }

    fn name(&self, prefix: &str, of: u16) -> ResourceName {
        ResourceName::plain(format!("{prefix}{}", of % 2))
    }

    fn revision(&self, current: u64) -> Option<u64> {
        match self.c % 4 {
            0 => Some(current),
            1 => Some(77),
            _ => None,
        }
    }

    fn by(&self) -> EndedBy {
        EndedBy::Operator { name: format!("op{}", self.c % 3) }
    }
}

/// A log with topics and groups that receive from them, so that most steps meet something.
pub(super) fn beginning() -> Vec<Record> {
    let topic = |name: &str| {
        let config = TopicConfig { queues: 2, ..TopicConfig::default() };
        Record::TopicPut(TopicPut { name: ResourceName::plain(name), config, expected_revision: None })
    };
    let group = |name: &str| {
        let (name, config) = (ResourceName::plain(name), GroupConfig::default());
        Record::GroupPut(GroupPut { name, config, expected_revision: None })
    };
    let mut records = vec![topic("t0"), topic("t1"), group("g0"), group("g1")];
    for (group, topic) in [(1, 1), (1, 2), (2, 1)] {
        records.push(Record::Join(Join { group: GroupId(group), topic: TopicId(topic) }));
    }
    records
}

/// The record for this step; `None` if it only lets time pass. It draws of every kind: a new one gets an arm with the next
/// number, and the numbers that there are become one more.
pub(super) fn interpret(log: &mut RecordLog, step: Step) -> Option<Record> {
    Some(match step.what % 59 {
        0 | 1 => {
            let long = [600_001, 86_400_001, PIN_MS + 1];
            let pauses = [1, 1_000, 5_000, 30_000, 61_000, 10, 2, long[usize::from(step.b) % 3]];
            log.pass_ms(pauses[usize::from(step.a) % 8]);
            return None;
        }
        2 => topic_put(log, step),
        3 if step.c.is_multiple_of(12) => {
            let (name, by, reason) = (step.name("t", step.a), "op".to_owned(), String::new());
            Record::TopicForced(TopicForced { name, by, reason })
        }
        3 if step.c.is_multiple_of(3) => {
            Record::TopicDelete(TopicDelete { name: step.name("t", step.a), force: !step.b.is_multiple_of(3) })
        }
        4 => group_put(log, step),
        5 if step.b.is_multiple_of(4) => Record::GroupDelete(GroupDelete { name: step.name("g", step.a) }),
        3 | 5..=7 => Record::Join(Join { group: step.group(), topic: step.topic() }),
        8..=14 => Record::Message(message(step)),
        15..=17 => Record::Half(message(step)),
        18..=20 => end(log, step),
        21 => check_answered(log, step),
        22 if step.c.is_multiple_of(2) => component_failed(log, step),
        22 => Record::Park(Park { transaction: transaction(log, step), reason: "no answer".to_owned() }),
        23 => {
            let (transaction, by) = (transaction(log, step), "op".to_owned());
            Record::Resume(Resume { transaction, by, reason: String::new() })
        }
        24..=26 => lease(log, step),
        27..=32 => about_a_lease(log, step),
        33 => Record::NodeStarted(NodeStarted { version: format!("0.{}.0", step.a % 3) }),
        34 => Record::ClusterInit(crate::testing::cluster_init()),
        40..=42 => expire(log, step),
        43 => Record::Seen(Seen { groups: vec![step.group()] }),
        44 | 45 => carried(log, step),
        46 | 47 => {
            let (group, topic) = joined(log, step);
            Record::FilterNoted(FilterNoted { group, topic, filter: filter(step.c) })
        }
        48 => {
            let (group, topic) = joined(log, step);
            let filters: BTreeSet<_> = [filter(step.c), filter(step.c >> 4)].into();
            Record::FiltersGone(FiltersGone { group, topic, filters: filters.into_iter().collect() })
        }
        49 => Record::GroupMade(GroupMade { name: step.name("g", step.a), config: GroupConfig::default() }),
        50 => Record::GroupsUnused(GroupsUnused { groups: (1..=8).map(GroupId).collect() }),
        51 | 52 => {
            let back = u64::from(step.c) * 100;
            Record::Leapt(Leapt { from: Millis(log.now.0.saturating_sub(back)), doubted: step.a.is_multiple_of(2) })
        }
        54 => Record::MembersChanged(MembersChanged { change: members_change(step) }),
        55 => Record::NodeInvited(NodeInvited {
            token: [1; 32],
            until: log.now.plus_ms(step.a.into()),
            votes_at_once: step.b > 9,
        }),
        56 => Record::NodeJoined(NodeJoined {
            node: node(step),
            token: [(step.c % 4 / 3) as u8 + 1; 32],
            addresses: addresses(step),
        }),
        57 => Record::NodeMoved(NodeMoved { node: node(step), addresses: addresses(step) }),
        58 => Record::NodeLeaves(NodeLeaves { node: node(step), by: "op".to_owned(), reason: String::new() }),
        53 => Record::LeapsBelieved(LeapsBelieved { to: log.now }),
        _ => plugin(log, step),
    })
}

/// A group and a topic that it joined, now and then others.
fn joined(log: &RecordLog, step: Step) -> (GroupId, TopicId) {
    let all: Vec<_> = log.state.groups().progress_after(None).map(|(group, topic, _)| (group.id, topic)).collect();
    if all.is_empty() || step.a.is_multiple_of(8) {
        return (step.group(), step.topic());
    }
    all[usize::from(step.b) % all.len()]
}

fn filter(of: u16) -> TagFilter {
    match of % 4 {
        0 => TagFilter::All,
        1 => TagFilter::tags(["a"]),
        2 => TagFilter::tags(["b", "c"]),
        _ => TagFilter::tags(["a", "b"]),
    }
}

fn node(step: Step) -> NodeId {
    NodeId(1 + u64::from(step.b % 5))
}

fn addresses(step: Step) -> NodeAddresses {
    NodeAddresses { peer: format!("n{}:{}", step.c, step.a % 3), grpc: String::new() }
}

/// Of few nodes, so that some steps need two.
fn members_change(step: Step) -> MembersChange {
    let nodes = |number: u16| (1..=4).map(NodeId).filter(|node| number >> node.0 & 1 == 1).collect();
    match step.a % 3 {
        0 => MembersChange::Finish,
        _ => MembersChange::To { voters: nodes(step.b), learners: nodes(step.c & !step.b) },
    }
}

fn topic_put(log: &RecordLog, step: Step) -> Record {
    let name = step.name("t", step.a);
    let max_checks = [0, 1, 2, 15][usize::from(step.b >> 4) % 4];
    let schedule = if step.b & 8 == 0 { vec![] } else { vec![Duration::from_secs(1), Duration::from_secs(2)] };
    let transaction = CheckPolicy { max_checks, schedule, ..CheckPolicy::default() };
    let unconsumed = if step.c & 16 == 0 { Unconsumed::Keep } else { Unconsumed::Expire };
    let config = TopicConfig { queues: u32::from(step.b % 3) + 1, transaction, unconsumed, ..TopicConfig::default() };
    let expected_revision = step.revision(log.state.topics().named(&name).map_or(0, |topic| topic.revision));
    Record::TopicPut(TopicPut { name, config, expected_revision })
}

fn group_put(log: &RecordLog, step: Step) -> Record {
    let name = step.name("g", step.a);
    let start = if step.b.is_multiple_of(2) { StartPosition::Beginning } else { StartPosition::End };
    // Not one of the topics above: a dead letter there would count as a second commit.
    let dead_letter_topic = step.b.is_multiple_of(3).then(|| "graves".to_owned());
    let config = GroupConfig { start, dead_letter_topic, ..GroupConfig::default() };
    let expected_revision = step.revision(log.state.groups().named(&name).map_or(0, |group| group.revision));
    Record::GroupPut(GroupPut { name, config, expected_revision })
}

/// Lets some queues begin a little later than they do.
fn expire(log: &RecordLog, step: Step) -> Record {
    let topic = step.topic();
    let start = |queue| log.state.topics().get(topic).map_or(QueueOffset::FIRST, |topic| topic.start(queue));
    let starts = [(0, step.b % 4), (1, step.c % 4), (2, 1)].into_iter().skip(usize::from(step.c >> 4) % 3);
    Record::Expire(Expire {
        topic,
        starts: starts.map(|(queue, more)| (queue, start(queue).plus(more.into()))).collect(),
    })
}

/// Carries a message, a half, or a piece of a component, that may be needed or not.
fn carried(log: &RecordLog, step: Step) -> Record {
    let mut record = Vec::new();
    let kind = if step.c.is_multiple_of(3) { MessageKind::Transaction } else { MessageKind::Normal };
    let place = MessagePlace { topic: step.topic(), queue: 0, stored_at: log.now };
    let message = NewMessage { kind, ..crate::testing::message("h") };
    match step.c % 4 {
        0 | 1 => {
            let (queue, offset) = (u32::from(step.b % 3), u64::from(step.b >> 2) % 6);
            let entry = log.state.topics().get(step.topic()).and_then(|topic| topic.entry(queue, QueueOffset(offset)));
            let first = |position| log.carried_from(position).unwrap_or(position);
            encode_message(&mut record, place, "client", &message, CheckOverrides::default());
            let queued = Some(Queued { topic: step.topic(), queue, offset: QueueOffset(offset) });
            Record::Carried(Carried {
                from: entry.map_or(RecordPosition(77), |entry| first(entry.position)),
                queued,
                record,
            })
        }
        2 => {
            let half = NewMessage { kind: MessageKind::Transaction, ..message };
            encode_message(&mut record, place, "client", &half, CheckOverrides::default());
            Record::Carried(Carried { from: transaction(log, step).first_place(), queued: None, record })
        }
        _ => {
            let digest = [(step.a % 3) as u8 + 1; 32];
            let chunks = log.state.plugins().artifact(&digest).map_or(&[][..], |artifact| &artifact.chunks);
            let (from, offset) = chunks.get(usize::from(step.b) % 2).copied().unwrap_or((RecordPosition(77), 0));
            PluginChunk { digest, offset, total: 8, data: vec![1; 4] }.encode(&mut record);
            Record::Carried(Carried { from, queued: None, record })
        }
    }
}

fn message(step: Step) -> MessageHead {
    let tag = [None, Some("a"), Some("b")][usize::from(step.c) % 3];
    let max = [None, None, Some(0), Some(1), Some(2)][usize::from(step.c >> 4) % 5];
    let checks = CheckOverrides { first_ms: None, interval_ms: (step.c & 8 == 0).then_some(5), max };
    let head = head(step.topic(), u32::from(step.b % 4), &format!("id{}", step.b >> 2 & 7), u64::from(step.c >> 8) % 2);
    MessageHead { tag: TagHash::of(tag), checks, ..head }
}

/// A transaction that is or was there, or none.
fn transaction(log: &RecordLog, step: Step) -> HalfPosition {
    let halves = log.records.iter().filter(|(_, record)| matches!(record, Record::Half(_)));
    let mut all: Vec<HalfPosition> = halves.map(|(at, _)| HalfPosition::of(at.position)).collect();
    all.push(HalfPosition(u64::from(step.a) * 100));
    all[usize::from(step.a) % all.len()]
}

fn end(log: &RecordLog, step: Step) -> Record {
    let outcome = if step.b.is_multiple_of(3) { TransactionOutcome::RolledBack } else { TransactionOutcome::Committed };
    let (transaction, queue) = (transaction(log, step), u32::from(step.c % 5));
    Record::End(End { transaction, outcome, queue, by: step.by(), reason: String::new() })
}

fn check_answered(log: &RecordLog, step: Step) -> Record {
    let transaction = transaction(log, step);
    let next = log.state.open_transactions().get(transaction).map_or(1, |open| open.checks + 1);
    let check_number = if step.b.is_multiple_of(4) { u32::from(step.c % 4) } else { next };
    let retry_after_ms = step.b.is_multiple_of(3).then_some(u64::from(step.c));
    let (asked_at, reason) = (log.now, "wait".to_owned());
    Record::CheckAnswered(CheckAnswered { transaction, check_number, asked_at, retry_after_ms, by: step.by(), reason })
}

fn component_failed(log: &RecordLog, step: Step) -> Record {
    let transaction = transaction(log, step);
    let open = log.state.open_transactions().get(transaction);
    let check_number = open.map_or(1, |open| open.checks + 1) + u32::from(step.b.is_multiple_of(8));
    let topic = open.and_then(|open| log.state.topics().name_of(open.topic).cloned());
    let binding = log.state.plugins().binding_of_topic(&topic.unwrap_or_else(|| ResourceName::plain("t0")));
    Record::ComponentFailed(ComponentFailed {
        transaction,
        check_number,
        binding_revision: binding.map_or(7, |(_, binding)| binding.revision),
        failures: 10,
        by: step.by(),
        error: "trap".to_owned(),
        trace: "0: f".to_owned(),
    })
}

fn lease(log: &RecordLog, step: Step) -> Record {
    let (group, topic) = joined(log, step);
    let progress = log.state.groups().get(group).and_then(|group| group.progress(topic));
    let queue = u32::from(step.c % 3);
    // Mostly from the cursor, now and then below it or with a gap.
    let next = progress.map_or(0, |progress| progress.next(queue).0);
    let from = [next, next, next, next.saturating_sub(2), next + 1][usize::from(step.c >> 2) % 5];
    let to = from + u64::from(step.c >> 5) % 6;
    let (from, to) = (QueueOffset(from), QueueOffset(to));
    let fate = |offset: QueueOffset| (offset.0 + u64::from(step.c >> 8)) % 3;
    let of = |wanted| QueueOffset::each(from..to).filter(|offset| fate(*offset) == wanted).collect();
    let fresh = if to > from { vec![LeasedRange { queue, from, to, leased: of(0), left: of(1) }] } else { vec![] };
    let decide = [Again::Leased, Again::Done, Again::Left];
    let left = progress.into_iter().flat_map(|p| p.left_tags().flat_map(|tag| p.left(tag)));
    let due = progress.into_iter().flat_map(|p| p.due()).map(|(_, queue, offset)| (queue, offset));
    let again = due.chain(left).take(usize::from(step.c >> 10) % 4).zip(decide);
    let again = again.map(|((queue, offset), becomes)| LeasedAgain { queue, offset, becomes }).collect();
    let renewed_for = step.c.is_multiple_of(2).then(|| "client".to_owned());
    let (generation, deadline) = (log.last_position().0, log.now.plus_ms(60_000));
    Record::Lease(Lease { group, topic, generation: Generation(generation), deadline, renewed_for, fresh, again })
}

/// About a lease that is there, or about none.
fn about_a_lease(log: &RecordLog, step: Step) -> Record {
    let (group, topic) = joined(log, step);
    let progress = log.state.groups().get(group).and_then(|group| group.progress(topic));
    let mut places: Vec<(u32, QueueOffset)> =
        progress.into_iter().flat_map(|p| p.due()).map(|(_, q, o)| (q, o)).collect();
    places.push((u32::from(step.c % 7), QueueOffset((step.c % 11).into())));
    let (queue, offset) = places[usize::from(step.c) % places.len()];
    let current = progress.and_then(|p| p.exception(queue, offset)).map_or(1, |exception| exception.generation.0);
    let generation = if step.c.is_multiple_of(5) { current + 1 } else { current };
    let deadline = log.now.plus_ms(u64::from(step.c >> 8) * 1_000);
    match step.what % 6 {
        0 => Record::Renew(Renew {
            group,
            topic,
            deadline,
            leases: vec![(queue, offset, Generation(generation)), (queue, QueueOffset(0), Generation(1))],
        }),
        1 => {
            let (new_generation, uncounted) = (log.last_position().0, step.c.is_multiple_of(2));
            Record::ChangeInvisible(ChangeInvisible {
                group,
                topic,
                queue,
                offset,
                generation: Generation(generation),
                new_generation: Generation(new_generation),
                deadline,
                uncounted,
            })
        }
        2 => {
            let reason = "too often".to_owned();
            let letter = DeadLetter { group, topic, queue, offset, generation: Generation(generation), reason };
            if step.a.is_multiple_of(4) {
                return Record::DeadLetter(letter);
            }
            Record::DeadLetterSized(DeadLetterSized { letter, record_len: u32::from(step.c) })
        }
        _ => Record::Ack(Ack { group, topic, queue, offset, generation: Generation(generation) }),
    }
}

fn plugin(log: &RecordLog, step: Step) -> Record {
    let digest = [(step.a % 3) as u8 + 1; 32];
    let name = format!("p{}", step.b % 2);
    let tag = (step.b >> 2 & 1).to_string();
    match step.c % 12 {
        0..=3 => {
            let (offset, len) = [(0, 4), (0, 4), (4, 4), (0, 8)][usize::from(step.c >> 4) % 4];
            Record::PluginChunk(PluginChunk { digest, offset, total: 8, data: vec![1; len] })
        }
        4..=6 => {
            let current = log.state.plugins().tag(&name, &tag).map(|tag| tag.digest);
            let expected = if step.c & 16 == 0 { current } else { Some([9; 32]) };
            Record::PluginPublish(PluginPublish { name, tag, digest, expected, verdict: "{}".to_owned() })
        }
        7 => Record::TagDelete(TagDelete { name, tag }),
        8 => Record::PluginDelete(PluginDelete { name }),
        9 | 10 => {
            let spec = format!(r#"{{"plugin":"{name}:{tag}","topics":["t{}"]}}"#, step.c >> 5 & 1);
            let binding = format!("b{}", step.c >> 6 & 1);
            let current = log.state.plugins().binding(&binding).map_or(0, |binding| binding.revision);
            Record::BindingPut(BindingPut { name: binding, digest, spec, expected_revision: step.revision(current) })
        }
        _ => Record::BindingDelete(BindingDelete { name: format!("b{}", step.a % 2) }),
    }
}
