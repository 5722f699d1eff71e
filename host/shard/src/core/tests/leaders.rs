//! Leaders come and go in the middle of everything; what was promised stays (the crate `leader`, "To ensure correctness").

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use vouch_broker::record::{CheckAnswered, EndedBy};
use vouch_broker::state::Applied;
use vouch_broker::{Generation, GroupId, HalfPosition, QueueOffset, TopicId};
use vouch_leader::checks::Due;
use vouch_leader::testing::ReceiveCaller;

use super::bench::Bench;
use super::runs::{half, take_due, topic_and_group};
use crate::core::Claim;

/// Leases of this run last so long.
const LEASE_MS: u64 = 5_000;

#[derive(Clone, Debug)]
enum Step {
    Send,
    Half,
    Receive(usize),
    /// Acknowledge one of the messages that are held.
    Ack(prop::sample::Index),
    Pass(u64),
    /// Ask about what is due.
    Ask,
    /// A producer that was asked does not know.
    Unknown(prop::sample::Index),
    AnotherLeader,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Send),
        1 => Just(Step::Half),
        4 => (1_usize..6).prop_map(Step::Receive),
        3 => any::<prop::sample::Index>().prop_map(Step::Ack),
        2 => (1_u64..4_000).prop_map(Step::Pass),
        2 => Just(Step::Ask),
        2 => any::<prop::sample::Index>().prop_map(Step::Unknown),
        2 => Just(Step::AnotherLeader),
    ]
}

/// What was promised, kept beside the core.
struct Promises {
    bench: Bench,
    topic: TopicId,
    group: GroupId,
    sent: u64,
    /// Handed out last with this generation, and how often in all.
    handed_out: BTreeMap<QueueOffset, (Generation, u32)>,
    acked: BTreeSet<QueueOffset>,
    waiting: Vec<ReceiveCaller>,
    /// Asks whose answer is not in the log.
    asked: Vec<Due>,
    /// How many checks of each transaction are in the log.
    checks: BTreeMap<HalfPosition, u32>,
}

impl Promises {
    fn new() -> Self {
        let mut bench = Bench::new();
        let (topic, group) = topic_and_group(&mut bench);
        Self {
            bench,
            topic,
            group,
            sent: 0,
            handed_out: BTreeMap::new(),
            acked: BTreeSet::new(),
            waiting: Vec::new(),
            asked: Vec::new(),
            checks: BTreeMap::new(),
        }
    }

    fn send(&mut self, is_half: bool, n: u64) {
        let message = if is_half { half(n) } else { Bench::plain(n) };
        let (send, mut outcomes) = Bench::send(self.topic, &message, self.bench.now().time, Claim::Room);
        self.bench.turn(vec![send]);
        self.bench.sync();
        let stored = outcomes.try_recv().unwrap().unwrap().remove(0).unwrap();
        self.sent += u64::from(matches!(stored, Applied::Stored { .. }));
    }

    fn receive(&mut self, max: usize) {
        let (receive, caller) = self.bench.receive(max, 500, LEASE_MS);
        self.bench.turn(vec![receive]);
        self.waiting.push(caller);
    }

    /// Takes what was handed out: nothing that was acknowledged, and each with the number that comes next.
    fn hear(&mut self) -> Result<(), TestCaseError> {
        let answers: Vec<_> = self.waiting.iter().filter_map(ReceiveCaller::heard).collect();
        for batch in answers.into_iter().filter_map(Result::ok).flatten() {
            for message in &batch.messages {
                prop_assert!(!self.acked.contains(&message.offset), "{} was acknowledged", message.offset);
                let (generation, before) = self.handed_out.get(&message.offset).copied().unwrap_or_default();
                prop_assert!(batch.generation > generation);
                prop_assert_eq!(message.attempt, before + 1, "of {}", message.offset);
                self.handed_out.insert(message.offset, (batch.generation, message.attempt));
            }
        }
        Ok(())
    }

    fn ack(&mut self, which: prop::sample::Index) {
        let held: Vec<_> = self.handed_out.iter().filter(|(offset, _)| !self.acked.contains(offset)).collect();
        if held.is_empty() {
            return;
        }
        let (offset, (generation, _)) = held[which.index(held.len())];
        let (offset, generation) = (*offset, *generation);
        // Its lease may be over, and then it may come again.
        if self.bench.ack(self.topic, self.group, offset, generation) {
            self.acked.insert(offset);
        }
    }

    fn ask(&mut self) -> Result<(), TestCaseError> {
        for due in take_due(&mut self.bench) {
            let open = self.bench.core.state().open_transactions().get(due.transaction).cloned();
            let open = open.expect("only what is open is asked about");
            prop_assert!(open.next_due <= self.bench.now().time, "asked before its time");
            let recorded = self.checks.get(&due.transaction).copied().unwrap_or(0);
            prop_assert_eq!((due.number, open.checks), (recorded + 1, recorded), "a check is counted once");
            let twice = self.asked.iter().any(|other| other.transaction == due.transaction);
            prop_assert!(!twice, "one leader asks about a transaction once at a time");
            self.asked.push(due);
        }
        Ok(())
    }

    fn unknown(&mut self, which: prop::sample::Index) {
        if self.asked.is_empty() {
            return;
        }
        let due = self.asked.swap_remove(which.index(self.asked.len()));
        let by = EndedBy::Client { client_id: "producer".to_owned(), from_check: true };
        let answer = CheckAnswered {
            transaction: due.transaction,
            check_number: due.number,
            asked_at: due.asked_at,
            retry_after_ms: None,
            by,
            reason: String::new(),
        };
        if let Ok(Applied::Counted { .. }) = self.bench.happen(|out| _ = answer.encode(out)) {
            *self.checks.entry(due.transaction).or_default() += 1;
        }
    }

    fn another_leader(&mut self) {
        self.bench.sync();
        self.bench.another_leader();
        // Its asks are nobody's any more; what they would have said is asked again.
        self.asked.clear();
    }

    /// Everything that nobody acknowledged comes once more when its lease is over, and nothing else does.
    fn all_comes(&mut self) -> Result<(), TestCaseError> {
        self.hear()?;
        for _ in 0..40 {
            self.bench.pass(LEASE_MS + 1);
            self.receive(32);
            self.bench.sync();
            self.hear()?;
            for (offset, (generation, _)) in self.handed_out.clone() {
                if !self.acked.contains(&offset) && self.bench.ack(self.topic, self.group, offset, generation) {
                    self.acked.insert(offset);
                }
            }
        }
        let expected: BTreeSet<_> = (0..self.sent).map(QueueOffset).collect();
        prop_assert_eq!(&self.acked, &expected, "nothing is lost");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn leaders_that_come_and_go_lose_nothing_bring_nothing_back_and_ask_nothing_out_of_turn(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        let mut run = Promises::new();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Send => run.send(false, n as u64),
                Step::Half => run.send(true, n as u64),
                Step::Receive(max) => run.receive(max),
                Step::Ack(which) => run.ack(which),
                Step::Pass(ms) => run.bench.pass(ms),
                Step::Ask => run.ask()?,
                Step::Unknown(which) => run.unknown(which),
                Step::AnotherLeader => run.another_leader(),
            }
            run.bench.sync();
            run.hear()?;
        }
        run.another_leader();
        run.all_comes()?;
    }
}
