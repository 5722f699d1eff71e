//! Sends, receives, checks and a log that fails, in one run that a seed repeats.

use vouch_broker::record::{CheckAnswered, End, EndedBy, GroupPut, Join, TopicPut};
use vouch_broker::state::Applied;
use vouch_broker::{
    CheckPolicy, GroupConfig, MessageKind, NewMessage, NotDone, NothingStored, ResourceName, TopicConfig, TopicType,
    TransactionOutcome,
};
use vouch_leader::Batch;
use vouch_leader::checks::{Checker, Due};
use vouch_leader::testing::ReceiveCaller;

use super::bench::{Bench, Outcomes};
use crate::core::Claim;

/// Steps of a run.
const STEPS: u64 = 400;

/// Numbers that a seed gives (splitmix64).
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// A topic `t` of one queue for all kinds of messages, and a group `g` on it.
pub(super) fn topic_and_group(bench: &mut Bench) -> (vouch_broker::TopicId, vouch_broker::GroupId) {
    let step = std::time::Duration::from_secs(3);
    let transaction = CheckPolicy { immunity: step, interval: step, max_checks: 5, ..CheckPolicy::default() };
    let config = TopicConfig { queues: 1, topic_type: TopicType::Mixed, transaction, ..TopicConfig::default() };
    let put = TopicPut { name: ResourceName::plain("t"), config, expected_revision: None };
    bench.happen(|out| _ = put.encode(out)).unwrap();
    let put = GroupPut { name: ResourceName::plain("g"), config: GroupConfig::default(), expected_revision: None };
    bench.happen(|out| _ = put.encode(out)).unwrap();
    let topic = bench.core.state().topics().named(&ResourceName::plain("t")).unwrap().id;
    let group = bench.core.state().groups().named(&ResourceName::plain("g")).unwrap().id;
    bench.happen(|out| _ = Join { group, topic, at_end: false }.encode(out)).unwrap();
    (topic, group)
}

pub(super) fn half(id: u64) -> NewMessage {
    NewMessage { kind: MessageKind::Transaction, ..Bench::plain(id) }
}

/// Asks that are due; a live producer answers them.
pub(super) fn take_due(bench: &mut Bench) -> Vec<Due> {
    let now = bench.now().time;
    bench.lead(move |state, leader| leader.schedule.take(state, now, |_| Some(Checker::Producer)).0)
}

/// What a run has to show.
struct Run {
    bench: Bench,
    dice: Dice,
    sends: Vec<(u64, Outcomes)>,
    receives: Vec<ReceiveCaller>,
    batches: Vec<Batch>,
    asks: Vec<Due>,
    stored: u64,
    ended: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let (bench, dice) = (Bench::new(), Dice(seed));
        Self { bench, dice, sends: vec![], receives: vec![], batches: vec![], asks: vec![], stored: 0, ended: 0 }
    }

    fn step(&mut self, n: u64) {
        let (topic, group) = (vouch_broker::TopicId(1), vouch_broker::GroupId(1));
        match self.dice.throw(12) {
            0..=2 => {
                let message = if self.dice.throw(3) == 0 { half(n) } else { Bench::plain(n) };
                let (send, outcomes) = Bench::send(topic, &message, self.bench.now().time, Claim::Room);
                self.sends.push((n, outcomes));
                self.bench.turn(vec![send]);
            }
            3 | 4 => {
                let (receive, caller) =
                    self.bench.receive(self.dice.throw(4) as usize + 1, 50 * self.dice.throw(9), 2000);
                // Some go away before they hear anything.
                if self.dice.throw(5) > 0 {
                    self.receives.push(caller);
                }
                self.bench.turn(vec![receive]);
            }
            5 => {
                if let Some(batch) = self.batches.pop() {
                    for message in &batch.messages {
                        self.bench.ack(topic, group, message.offset, batch.generation);
                    }
                }
            }
            6 => self.asks.extend(take_due(&mut self.bench)),
            7 => {
                if let Some(due) = self.asks.pop() {
                    self.answer(&due);
                }
            }
            8 => self.bench.fill(self.dice.throw(4) == 0),
            9 => self.bench.pass(self.dice.throw(1500)),
            _ => self.bench.sync(),
        }
        self.hear();
    }

    /// The producer says what became of a transaction, or that it does not know.
    fn answer(&mut self, due: &Due) {
        let by = EndedBy::Client { client_id: "producer".to_owned(), from_check: true };
        let ended = if self.dice.throw(2) == 0 {
            let outcome = TransactionOutcome::Committed;
            let end = End { transaction: due.transaction, outcome, queue: 0, by, reason: String::new() };
            self.bench.happen(|out| _ = end.encode(out))
        } else {
            let answer = CheckAnswered {
                transaction: due.transaction,
                check_number: due.number,
                asked_at: due.asked_at,
                retry_after_ms: None,
                by,
                reason: String::new(),
            };
            self.bench.happen(|out| _ = answer.encode(out))
        };
        self.ended += u64::from(matches!(ended, Ok(Applied::Ended { .. })));
    }

    fn hear(&mut self) {
        let (applied, closed) = (self.bench.applied, self.bench.closed.is_some());
        let mut left = Vec::new();
        for (n, mut outcomes) in std::mem::take(&mut self.sends) {
            match outcomes.try_recv() {
                Err(_) => left.push((n, outcomes)),
                Ok(Ok(stored)) => {
                    assert!(applied > 0, "what is acknowledged is applied");
                    self.stored += stored.iter().filter(|outcome| outcome.is_ok()).count() as u64;
                }
                Ok(Err(NotDone::NothingStored(NothingStored::StorageFull(_)))) => {}
                Ok(Err(other)) => assert!(closed, "{other}"),
            }
        }
        self.sends = left;
        let batches = self.receives.iter().filter_map(|caller| caller.heard()?.ok()?);
        self.batches.extend(batches.filter(|batch| !batch.messages.is_empty()));
    }
}

fn run(seed: u64) -> Run {
    let mut run = Run::new(seed);
    topic_and_group(&mut run.bench);
    for n in 0..STEPS {
        run.step(n);
    }
    run.bench.fill(false);
    run.bench.sync();
    run.hear();
    run
}

#[test]
fn a_seed_repeats_a_run_of_sends_receives_checks_and_a_log_that_fails_to_the_bit() {
    let (mut stored, mut ended, mut handed_out) = (0, 0, 0);
    for seed in 0..50 {
        let [first, second] = [run(seed), run(seed)].map(|mut run| {
            let waits = run.bench.receive(32, 60_000, 2000);
            run.bench.turn(vec![waits.0]);
            let (send, mut outcomes) =
                Bench::send(vouch_broker::TopicId(1), &Bench::plain(STEPS), run.bench.now().time, Claim::Room);
            run.bench.turn(vec![send]);
            let before = run.bench.applied;
            run.bench.fail();
            // Nobody is told of something that may be lost, and everybody is told.
            assert!(matches!(outcomes.try_recv(), Ok(Err(NotDone::Unknown(_)))), "seed {seed}");
            let closed = run.bench.closed.clone();
            assert!(matches!(closed, Some(NothingStored::Poisoned(_))), "seed {seed}");
            assert_eq!(run.bench.applied, before);
            let (late, mut refused) =
                Bench::send(vouch_broker::TopicId(1), &Bench::plain(STEPS + 1), run.bench.now().time, Claim::Room);
            let (receive, caller) = run.bench.receive(1, 60_000, 2000);
            run.bench.turn(vec![late, receive]);
            assert!(matches!(refused.try_recv(), Ok(Err(NotDone::NothingStored(_)))), "seed {seed}");
            assert!(matches!(caller.heard(), Some(Err(_))), "seed {seed}");
            run.hear();
            assert!(run.sends.is_empty(), "seed {seed}: {} senders heard nothing", run.sends.len());
            run
        });
        assert_eq!(first.bench.trace, second.bench.trace, "seed {seed}");
        stored += first.stored;
        ended += first.ended;
        handed_out += first.bench.trace.iter().filter(|told| told.contains("answer a receive Ok(Some(")).count();
    }
    assert!(
        stored > 1000 && ended > 100 && handed_out > 500,
        "{stored} stored, {ended} ended, {handed_out} handed out"
    );
}

#[test]
fn what_was_handed_out_before_its_caller_was_there_to_take_it_comes_again_uncounted() {
    let mut bench = Bench::new();
    let (topic, _) = topic_and_group(&mut bench);
    let (receive, gone) = bench.receive(1, 60_000, 60_000);
    bench.turn(vec![receive]);
    let (send, _outcomes) = Bench::send(topic, &Bench::plain(1), bench.now().time, Claim::Room);
    bench.turn(vec![send]);
    // The lease is decided when the message is applied, and its batch is on its way when the caller goes.
    bench.durable_untold();
    drop(gone);
    bench.go_on();
    bench.sync();
    let (receive, caller) = bench.receive(1, 0, 60_000);
    bench.turn(vec![receive]);
    let batch = caller.heard().unwrap().unwrap().expect("it is visible at once");
    assert_eq!(batch.messages[0].attempt, 1, "it was delivered to nobody");
}

#[test]
fn a_batch_whose_lease_the_log_refuses_is_handed_to_nobody_and_comes_when_it_takes_one() {
    let mut bench = Bench::new();
    let (topic, _) = topic_and_group(&mut bench);
    let send = Bench::send(topic, &Bench::plain(1), bench.now().time, Claim::Room);
    bench.turn(vec![send.0]);
    bench.sync();
    bench.fill(true);
    let (receive, caller) = bench.receive(1, 0, 60_000);
    bench.turn(vec![receive]);
    assert!(matches!(caller.heard(), Some(Err(NotDone::NothingStored(NothingStored::StorageFull(_))))));
    bench.fill(false);
    let (receive, caller) = bench.receive(1, 0, 60_000);
    bench.turn(vec![receive]);
    assert_eq!(caller.heard().unwrap().unwrap().unwrap().messages[0].attempt, 1);
}
