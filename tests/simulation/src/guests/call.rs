//! One call of a guest: what it is about, what it read, what it wants to happen.

use vouch_broker::check::CheckOverrides;
use vouch_broker::record::{
    Ack, CheckAnswered, DeadLetter, DeadLetterSized, End, EndedBy, KeptAccess, KeyExpiry, KeyWrite, MessagePlace,
    Outbox, Settled, SettledHead, encode_message,
};
use vouch_broker::testing::message;
use vouch_broker::{Generation, HalfPosition, Millis, QueueOffset, TopicId, TransactionOutcome};
use vouch_commitlog::simulated::Rng;

use super::names::{BINDING, COUNTER, GROUP, GuestView, IN, NAMESPACE, OF_CALL, OUT, TEMPORARY, WITHDRAWN};
use crate::bugs::{Slip, slips};

/// What a guest is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A message that is leased to it.
    Delivery(Delivery),
    /// A transaction, for the so-manieth time.
    Check(HalfPosition, u32),
}

/// A message, by the lease that the guest has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) queue: u32,
    pub(super) offset: QueueOffset,
    pub(super) generation: Generation,
}

/// What it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The message is done, the transaction is committed.
    Yes,
    /// The message is a dead letter, the transaction is rolled back.
    No,
    /// The message comes again, the transaction is asked about again.
    Later,
}

/// What it stages: the namespace that it looks into and changes, and messages.
#[derive(Clone, Debug, Default)]
struct Stage {
    kept: Option<KeptAccess>,
    outbox: Vec<u8>,
}

/// A call that runs, or whose answer is on its way.
pub(super) struct GuestCall {
    pub(super) asked: Asked,
    pub(super) verdict: Verdict,
    /// Position of the record that created the binding for which it runs.
    created: u64,
    /// When it answers.
    pub(super) answers_at: u64,
    /// How often it ran.
    pub(super) runs: u32,
    asked_at: Millis,
    /// By what its effects are known: another one each time it runs.
    pub(super) mark: u64,
    stage: Stage,
}

impl GuestCall {
    /// It begins to run, for as long as the seed says. It must decide where nothing goes wrong any more.
    pub(super) fn begin(asked: Asked, created: u64, view: &GuestView<'_>, rng: &mut Rng, decides: bool) -> Self {
        let verdict = match rng.below(10) {
            0 if !decides => Verdict::Later,
            1 | 2 if !decides && matches!(asked, Asked::Check(..)) => Verdict::Later,
            3 => Verdict::No,
            _ => Verdict::Yes,
        };
        let (runs, asked_at) = (0, view.time);
        let mut call =
            Self { asked, verdict, created, answers_at: 0, runs, asked_at, mark: 0, stage: Stage::default() };
        call.run(view, rng);
        call
    }

    /// It runs, or runs again: it reads what is kept as it is now on the node where it runs.
    pub(super) fn run(&mut self, view: &GuestView<'_>, rng: &mut Rng) {
        // Most are short; some are longer than their leases.
        self.answers_at = view.now + if rng.chance(6) { rng.below(1_500) } else { rng.below(120) };
        (self.mark, self.runs) = (rng.next(), self.runs + 1);
        let mark = self.mark.to_le_bytes().to_vec();
        let mut stage = Stage::default();
        let keeps = !rng.chance(8);
        if keeps {
            let mut kept = KeptAccess { namespace: NAMESPACE.to_owned(), ..KeptAccess::default() };
            // Nobody looks at what is written by each call under a key of its own.
            write(&mut kept, format!("{OF_CALL}{}", self.name()), Some(mark.clone()), KeyExpiry::Never);
            if rng.chance(2) {
                let key = format!("{COUNTER}{}", rng.below(3));
                let number = read(&mut kept, &key, view).map_or(0, |value| number(&value));
                write(&mut kept, key, Some((number + 1).to_le_bytes().to_vec()), KeyExpiry::Never);
            }
            if rng.chance(3) {
                let key = format!("{TEMPORARY}{}", rng.below(2));
                read(&mut kept, &key, view);
                let value = (!rng.chance(4)).then(|| vec![7; 1 << rng.below(9)]);
                let expires = match rng.below(3) {
                    0 => KeyExpiry::At(view.time.plus_ms(rng.below(800))),
                    _ => KeyExpiry::AfterMs(100 + rng.below(900) as u32),
                };
                write(&mut kept, key, value, expires);
            }
            stage.kept = Some(kept);
        }
        // What keeps nothing publishes something: by one of them its mark is found.
        let messages = rng.below(3).max(u64::from(!keeps));
        for number in 0..messages {
            let topic = if rng.chance(20) { WITHDRAWN } else { OUT };
            self.publish(&mut stage, topic, number, view);
        }
        self.stage = stage;
    }

    /// What a call is called: the same whenever it is run again, and no other.
    fn name(&self) -> String {
        let created = self.created;
        match self.asked {
            Asked::Delivery(Delivery { queue, offset, .. }) => format!("{created}/message {queue} {}", offset.0),
            Asked::Check(transaction, _) if slips(Slip::CallsNamedByTransaction) => {
                format!("{created}/transaction {}", transaction.0)
            }
            Asked::Check(transaction, number) => format!("{created}/transaction {} {number}", transaction.0),
        }
    }

    fn publish(&self, stage: &mut Stage, topic: TopicId, number: u64, view: &GuestView<'_>) {
        let mut new = message(&format!("{}/{number}", self.name()));
        new.keys = vec![format!("{}/{number}", self.name())];
        new.body = self.mark.to_le_bytes().to_vec().into();
        let place = MessagePlace { topic, queue: 0, stored_at: view.time };
        encode_message(&mut stage.outbox, place, "vouch-binding/b", &new, CheckOverrides::default());
    }

    fn by() -> EndedBy {
        EndedBy::Component { binding: BINDING.to_owned(), digest: String::new() }
    }

    /// What it decides; `None` if nothing is decided.
    fn head(&self) -> Option<SettledHead> {
        Some(match (self.asked, self.verdict) {
            (Asked::Delivery(delivery), Verdict::Yes) => {
                let Delivery { queue, offset, generation } = delivery;
                SettledHead::Ack(Ack { group: GROUP, topic: IN, queue, offset, generation })
            }
            (Asked::Delivery(delivery), Verdict::No) => {
                let Delivery { queue, offset, generation } = delivery;
                let reason = "the guest wants none of it".to_owned();
                let letter = DeadLetter { group: GROUP, topic: IN, queue, offset, generation, reason };
                SettledHead::DeadLetter(DeadLetterSized { letter, record_len: 100 })
            }
            (Asked::Delivery(_), Verdict::Later) => return None,
            (Asked::Check(transaction, _), Verdict::Yes) => Self::end(transaction, TransactionOutcome::Committed),
            (Asked::Check(transaction, _), Verdict::No) => Self::end(transaction, TransactionOutcome::RolledBack),
            (Asked::Check(transaction, check_number), Verdict::Later) => {
                let (asked_at, by, reason) = (self.asked_at, Self::by(), String::new());
                let retry_after_ms = None;
                SettledHead::CheckAnswered(CheckAnswered {
                    transaction,
                    check_number,
                    asked_at,
                    retry_after_ms,
                    by,
                    reason,
                })
            }
        })
    }

    fn end(transaction: HalfPosition, outcome: TransactionOutcome) -> SettledHead {
        let (queue, by, reason) = ((transaction.0 / 8 % 2) as u32, Self::by(), String::new());
        SettledHead::End(End { transaction, outcome, queue, by, reason })
    }

    /// Its answer as a record, and whether that says what it staged; `None` if nothing is decided.
    pub(super) fn answer(&self, alone: bool) -> Option<(Vec<u8>, bool)> {
        let head = self.head()?;
        let mut records = Vec::new();
        if alone {
            head.record().encode(&mut records);
            return Some((records, false));
        }
        let Stage { kept, outbox } = self.stage.clone();
        let outbox = Outbox::new(outbox).expect("messages for queues");
        Settled { outbox, head, binding: BINDING.to_owned(), created: self.created, kept }.encode(&mut records);
        Some((records, true))
    }
}

/// What a number is that is kept.
pub(crate) fn number(value: &[u8]) -> u64 {
    value.try_into().map_or(0, u64::from_le_bytes)
}

/// Reads a key: it is on record which version that was.
fn read(kept: &mut KeptAccess, key: &str, view: &GuestView<'_>) -> Option<Vec<u8>> {
    let found = view.state.kept().namespace(NAMESPACE).and_then(|namespace| namespace.get(key, view.time));
    kept.reads.insert(key.to_owned(), found.map_or(0, |found| found.version));
    found.map(|found| found.value.clone())
}

fn write(kept: &mut KeptAccess, key: String, value: Option<Vec<u8>>, expires: KeyExpiry) {
    kept.writes.insert(key, KeyWrite { value, expires });
}
