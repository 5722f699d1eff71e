//! Of transactions.

use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::Sampled;
use super::step::Step;
use super::values::{millis, text};
use crate::record::{CheckAnswered, ComponentFailed, End, EndedBy, Park, Resume};
use crate::testing::RecordLog;
use crate::{HalfPosition, Millis, ResourceName, TransactionOutcome};

/// The transaction of all samples.
const TRANSACTION: HalfPosition = HalfPosition(0x1122);

impl Sampled for End {
    const GOLDEN: &str = "1e000000 c7bf0dff 2000 01 00 2211000000000000 01 02000000 01016301 00";
    const OFTEN: u16 = 42;

    fn sample() -> Self {
        Self {
            transaction: TRANSACTION,
            outcome: TransactionOutcome::Committed,
            queue: 2,
            by: EndedBy::Client { client_id: "c".to_owned(), from_check: true },
            reason: String::new(),
        }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        let outcomes = vec![TransactionOutcome::Committed, TransactionOutcome::RolledBack];
        (transaction(), select(outcomes), any::<u32>(), ended_by(), text())
            .prop_map(|(transaction, outcome, queue, by, reason)| Self { transaction, outcome, queue, by, reason })
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let rolled_back = step.b.is_multiple_of(3);
        let outcome = if rolled_back { TransactionOutcome::RolledBack } else { TransactionOutcome::Committed };
        let (transaction, queue) = (step.transaction(log), u32::from(step.c % 5));
        Self { transaction, outcome, queue, by: drawn_by(step), reason: String::new() }
    }
}

impl Sampled for CheckAnswered {
    const GOLDEN: &str = "32000000 f9eed699 2100 01 00 2211000000000000 03000000 0807000000000000 01e803000000000000 \
         0201620164 03776879";

    fn sample() -> Self {
        Self {
            transaction: TRANSACTION,
            check_number: 3,
            asked_at: Millis(0x0708),
            retry_after_ms: Some(1000),
            by: by_component(),
            reason: "why".to_owned(),
        }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (transaction(), any::<u32>(), millis(), option::of(any::<u64>()), ended_by(), text()).prop_map(
            |(transaction, check_number, asked_at, retry_after_ms, by, reason)| Self {
                transaction,
                check_number,
                asked_at,
                retry_after_ms,
                by,
                reason,
            },
        )
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let transaction = step.transaction(log);
        let next = log.state.open_transactions().get(transaction).map_or(1, |open| open.checks + 1);
        let check_number = if step.b.is_multiple_of(4) { u32::from(step.c % 4) } else { next };
        let retry_after_ms = step.b.is_multiple_of(3).then_some(u64::from(step.c));
        let (asked_at, reason) = (log.now, "wait".to_owned());
        Self { transaction, check_number, asked_at, retry_after_ms, by: drawn_by(step), reason }
    }
}

impl Sampled for Park {
    const GOLDEN: &str = "18000000 59236d15 2200 01 00 2211000000000000 03776879";
    const OFTEN: u16 = 6;

    fn sample() -> Self {
        Self { transaction: TRANSACTION, reason: "why".to_owned() }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (transaction(), text()).prop_map(|(transaction, reason)| Self { transaction, reason })
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        Self { transaction: step.transaction(log), reason: "no answer".to_owned() }
    }
}

impl Sampled for Resume {
    const GOLDEN: &str = "1a000000 6bbbef07 2300 01 00 2211000000000000 016f 03776879";

    fn sample() -> Self {
        Self { transaction: TRANSACTION, by: "o".to_owned(), reason: "why".to_owned() }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (transaction(), text(), text()).prop_map(|(transaction, by, reason)| Self { transaction, by, reason })
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        Self { transaction: step.transaction(log), by: "op".to_owned(), reason: String::new() }
    }
}

impl Sampled for ComponentFailed {
    const GOLDEN: &str = "2d000000 77ab1d2c 2400 01 00 2211000000000000 03000000 0605000000000000 0a000000 \
         020162016401650174";
    const OFTEN: u16 = 6;

    fn sample() -> Self {
        Self {
            transaction: TRANSACTION,
            check_number: 3,
            binding_revision: 0x0506,
            failures: 10,
            by: by_component(),
            error: "e".to_owned(),
            trace: "t".to_owned(),
        }
    }

    fn strategy() -> impl Strategy<Value = Self> + 'static {
        (transaction(), any::<u32>(), any::<u64>(), any::<u32>(), ended_by(), text(), text()).prop_map(
            |(transaction, check_number, binding_revision, failures, by, error, trace)| Self {
                transaction,
                check_number,
                binding_revision,
                failures,
                by,
                error,
                trace,
            },
        )
    }

    fn drawn(log: &RecordLog, step: Step) -> Self {
        let transaction = step.transaction(log);
        let open = log.state.open_transactions().get(transaction);
        let check_number = open.map_or(1, |open| open.checks + 1) + u32::from(step.b.is_multiple_of(8));
        let topic = open.and_then(|open| log.state.topics().name_of(open.topic).cloned());
        let binding = log.state.plugins().binding_of_topic(&topic.unwrap_or_else(|| ResourceName::plain("t0")));
        Self {
            transaction,
            check_number,
            binding_revision: binding.map_or(7, |(_, binding)| binding.revision),
            failures: 10,
            by: drawn_by(step),
            error: "trap".to_owned(),
            trace: "0: f".to_owned(),
        }
    }
}

fn by_component() -> EndedBy {
    EndedBy::Component { binding: "b".to_owned(), digest: "d".to_owned() }
}

fn transaction() -> impl Strategy<Value = HalfPosition> {
    any::<u64>().prop_map(HalfPosition)
}

fn ended_by() -> impl Strategy<Value = EndedBy> {
    prop_oneof![
        (text(), any::<bool>()).prop_map(|(client_id, from_check)| EndedBy::Client { client_id, from_check }),
        (text(), text()).prop_map(|(binding, digest)| EndedBy::Component { binding, digest }),
        text().prop_map(|name| EndedBy::Operator { name }),
        text().prop_map(|client_id| EndedBy::Silence { client_id }),
    ]
}

fn drawn_by(step: Step) -> EndedBy {
    EndedBy::Operator { name: format!("op{}", step.c % 3) }
}
