//! A node whose snapshot thread seals and whose live state adopts, restarts and forgets in random order is the node that
//! replays the whole log.

use proptest::prelude::*;

use super::{Step, run, steps};
use crate::delivery::{Demand, Picks, Reservations, pick};
use crate::record::Record;
use crate::state::RecordAt;
use crate::testing::{StoredParts, replay};
use crate::{Generation, GroupId, Millis, QueueOffset, RecordPosition, State, TagFilter, TopicId};

/// What a node has on its disk, and its live state.
#[derive(Default)]
struct Node {
    live: State,
    parts: StoredParts,
    /// The latest snapshot: how many records it covers, and its bytes.
    snapshot: Option<(usize, Vec<u8>)>,
    /// Parts that were stored and that the live state has not adopted.
    waiting: Vec<u64>,
    /// Such a part was lost: those after it need not fit.
    lost: bool,
    last_part: u64,
    /// How often each thing happened.
    sealed: usize,
    adopted: usize,
    refused: usize,
}

impl Node {
    /// The state of the latest snapshot, brought to the end of these records.
    fn recover(&self, records: &[(RecordAt, Record)]) -> State {
        let Some((covered, bytes)) = &self.snapshot else { return replay(State::default(), records) };
        let (position, state) = self.parts.read(bytes).unwrap();
        assert_eq!(position, RecordPosition(*covered as u64));
        replay(state, &records[*covered..])
    }

    /// Seals a state and stores it.
    fn store(&mut self, state: &mut State, records: usize) {
        self.last_part += 1;
        if let Some(bytes) = state.seal(self.last_part) {
            self.parts.0.insert(self.last_part, bytes);
            self.waiting.push(self.last_part);
            self.sealed += 1;
        }
        assert!(state.seal(self.last_part + 1).is_none(), "sealed twice");
        self.snapshot = Some((records, state.snapshot(RecordPosition(records as u64))));
        // What the snapshot does not name is deleted; a live state that reads from it keeps its bytes.
        let needed = state.parts();
        assert!(needed.is_sorted());
        self.parts.0.retain(|part, _| needed.contains(part) || self.waiting.contains(part));
    }

    fn act(&mut self, what: u8, records: &[(RecordAt, Record)]) {
        match what % 8 {
            // The snapshot thread.
            0..=2 => {
                let mut own = self.recover(records);
                self.store(&mut own, records.len());
            }
            3 | 4 => self.adopt(),
            5 => {
                self.live = self.recover(records);
                self.waiting.clear();
                self.lost = false;
            }
            6 => {
                let mut live = std::mem::take(&mut self.live);
                self.store(&mut live, records.len());
                self.live = live;
                self.waiting.clear();
            }
            _ => self.lost |= self.waiting.pop().is_some(),
        }
    }

    fn adopt(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let part = self.waiting.remove(0);
        let before = self.live.snapshot(RecordPosition(0));
        match self.live.adopt(part, self.parts.0[&part].clone()) {
            Ok(()) => self.adopted += 1,
            Err(why) => {
                assert!(self.lost, "{why}");
                assert!(self.live.snapshot(RecordPosition(0)) == before, "a part that was refused changed the state");
                self.refused += 1;
            }
        }
    }
}

/// The state with everything in memory again, after it was written and read.
pub(in crate::state::tests) fn canonical(state: &State, parts: &StoredParts) -> Vec<u8> {
    let (_, mut state) = parts.read(&state.snapshot(RecordPosition(7))).unwrap();
    state.unseal();
    state.snapshot(RecordPosition(7))
}

fn picks(state: &State, now: Millis) -> Vec<Picks> {
    let ids = (1..=5).flat_map(|group| (1..=8).map(move |topic| (GroupId(group), TopicId(topic))));
    ids.map(|(group, topic)| {
        let filter = &TagFilter::All;
        let (generation, deadline) = (1_000_000, now.plus_ms(1));
        let wanted = Demand {
            group,
            topic,
            filter,
            max: 32,
            now,
            generation: Generation(generation),
            deadline,
            renewed_for: None,
        };
        pick(state, &mut Reservations::default(), &wanted)
    })
    .collect()
}

fn same(node: &Node, plain: &State, now: Millis) {
    let live = &node.live;
    for (topic, same) in live.topics().iter().zip(plain.topics().iter()) {
        assert_eq!((topic.id, topic.queue_count()), (same.id, same.queue_count()));
        for queue in 0..topic.queue_count() {
            for offset in QueueOffset::each(QueueOffset::FIRST..topic.end(queue).next()) {
                assert_eq!(topic.entry(queue, offset), same.entry(queue, offset));
                let lowest = topic.lowest_position_from(queue, offset);
                assert_eq!(lowest, same.lowest_position_from(queue, offset));
            }
        }
    }
    assert!(live.outcomes().iter().eq(plain.outcomes().iter()));
    assert_eq!(picks(live, now), picks(plain, now));
    let mut parts = node.parts.clone();
    // What the live state reads from may be deleted already where a later snapshot needs it no more; it must not be what
    // the live state needs.
    parts.0.retain(|part, _| live.parts().contains(part));
    assert!(canonical(live, &parts) == plain.snapshot(RecordPosition(7)));
}

/// Runs records and actions; what the node did is in it.
fn drive(steps: &[Step], actions: &[(prop::sample::Index, u8)]) -> Node {
    let (log, outcomes) = run(steps);
    let (mut node, mut plain) = (Node::default(), State::default());
    let mut actions: Vec<_> = actions.iter().map(|(at, what)| (at.index(log.records.len()), *what)).collect();
    actions.sort_unstable();
    let mut actions = actions.into_iter().peekable();
    let (mut effects, mut expected) = (Vec::new(), Vec::new());
    for (n, (at, record)) in log.records.iter().enumerate() {
        effects.clear();
        expected.clear();
        let outcome = node.live.apply(*at, record, &mut effects);
        assert_eq!(outcome, plain.apply(*at, record, &mut expected));
        assert_eq!(effects, expected);
        if n > 0 {
            assert_eq!(format!("{outcome:?} {effects:?}"), outcomes[n]);
        }
        while let Some((_, what)) = actions.next_if(|(at, _)| *at == n) {
            node.act(what, &log.records[..=n]);
            same(&node, &plain, at.time);
        }
    }
    same(&node, &plain, log.now);
    assert!(plain.snapshot(RecordPosition(7)) == log.state.snapshot(RecordPosition(7)));
    node
}

fn actions() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_node_that_seals_adopts_and_restarts_at_any_time_equals_the_whole_log(
        steps in steps(),
        actions in actions(),
    ) {
        drive(&steps, &actions);
    }
}

/// The generator reaches what it is meant to reach.
#[test]
fn the_random_actions_do_a_bit_of_everything() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let (mut sealed, mut adopted, mut refused, mut several) = (0, 0, 0, 0);
    for _ in 0..300 {
        let steps = steps().new_tree(&mut runner).unwrap().current();
        let node = drive(&steps, &actions().new_tree(&mut runner).unwrap().current());
        sealed += node.sealed;
        adopted += node.adopted;
        refused += node.refused;
        several += usize::from(node.live.parts().len() > 2);
    }
    assert!(sealed > 100 && adopted > 30 && refused > 3 && several > 10, "{sealed} {adopted} {refused} {several}");
}
