//! The state is a function of the log: a snapshot at any record and the rest give what the whole log gives (ruling 19),
//! and the invariants hold after every record.

mod random;
mod sealing;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::invariants::Watch;
use crate::record::tests::samples::{DRAWN, Drawn, Step};
use crate::record::{FEATURE_LEVEL, Record};
use crate::state::seal::sections;
use crate::state::snapshot::check_level;
use crate::testing::{RecordLog, read_snapshot, replay};
use crate::{RecordPosition, State};

use random::{beginning, interpret};
pub(super) use sealing::canonical;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step =
        (any::<u16>(), any::<u16>(), any::<u16>(), any::<u16>()).prop_map(|(what, a, b, c)| Step { what, a, b, c });
    proptest::collection::vec(step, 1..250)
}

/// Applies random records and asserts the invariants after each; the outcomes are kept.
fn run(steps: &[Step]) -> (RecordLog, Vec<String>) {
    run_where(FEATURE_LEVEL, steps, |_| true)
}

/// The same in a log of this feature level, with those of the records that `wanted` lets through. As a leader does it leaves out
/// what belongs to a later level than the log has.
fn run_where(feature_level: u32, steps: &[Step], wanted: impl Fn(&Record) -> bool) -> (RecordLog, Vec<String>) {
    let mut log = RecordLog::at_level(feature_level);
    let mut watch = Watch::default();
    let mut outcomes = vec![String::new()];
    let mut apply = |log: &mut RecordLog, record| {
        let outcome = log.apply(record);
        let (at, record) = log.records.last().unwrap();
        watch.check(&log.state, *at, record, &outcome);
        outcomes.push(format!("{outcome:?} {:?}", log.effects));
    };
    for record in beginning() {
        apply(&mut log, record);
    }
    for step in steps {
        let level = log.state.cluster().level().unwrap();
        if let Some(record) = interpret(&mut log, *step).filter(|record| record.level() <= level && wanted(record)) {
            apply(&mut log, record);
        }
    }
    (log, outcomes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_snapshot_and_the_rest_of_the_log_equal_the_whole_log(
        steps in steps(),
        at in proptest::collection::vec(any::<proptest::sample::Index>(), 6),
    ) {
        let (log, outcomes) = run(&steps);
        let whole = log.state.snapshot(RecordPosition(7));
        prop_assert!(log.replay().snapshot(RecordPosition(7)) == whole, "a replay gives another state");
        for at in at {
            let k = at.index(log.records.len() + 1);
            let bytes = replay(State::default(), &log.records[..k]).snapshot(RecordPosition(k as u64));
            let (position, mut state) = read_snapshot(&bytes).unwrap();
            prop_assert_eq!(position, RecordPosition(k as u64));
            prop_assert!(state.snapshot(RecordPosition(k as u64)) == bytes, "read and written again after {}", k);
            let mut effects = Vec::new();
            for ((at, record), expected) in log.records[k..].iter().zip(&outcomes[k..]) {
                effects.clear();
                let outcome = state.apply(*at, record, &mut effects);
                let said = if at.position == log.records[0].0.position { String::new() } else {
                    format!("{outcome:?} {effects:?}")
                };
                prop_assert_eq!(&said, expected, "after a snapshot at {}: {:?}", k, record);
            }
            prop_assert!(state.snapshot(RecordPosition(7)) == whole, "a snapshot at {} gives another state", k);
        }
    }

    /// While an upgrade is under way the snapshots of a node of the new version are for one of the version before, too.
    #[test]
    fn a_log_of_a_level_makes_snapshots_that_a_version_of_that_level_reads(
        level in 1..=FEATURE_LEVEL,
        steps in steps(),
    ) {
        let (log, _) = run_where(level, &steps, |record| !matches!(record, Record::LevelRaised(_)));
        let bytes = log.state.snapshot(RecordPosition(7));
        prop_assert_eq!(check_level(&bytes, level, sections()), Ok(()));
    }
}

/// The generator reaches what it is meant to reach: a property over records that are all refused would say nothing, and one
/// without a kind nothing of what that kind keeps.
#[test]
fn the_random_records_do_a_bit_of_everything() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let (mut seen, mut forgotten) = (BTreeSet::new(), 0);
    let missing = |seen: &BTreeSet<String>| {
        let fates = DRAWN.iter().flat_map(|Drawn { name, refused, .. }| {
            let fates = [Some("ok"), refused.then_some("refused")];
            fates.into_iter().flatten().map(move |fate| format!("{name} {fate}"))
        });
        let refusals =
            ["OutcomeConflict", "AlreadyEnded", "InvalidHandle", "PreconditionFailed", "Conflict", "NotFound"];
        fates.chain(refusals.map(str::to_owned)).find(|fate| !seen.contains(fate))
    };
    // Some are rare, and each new kind has others drawn: it is the first of these that counts, and not how many it takes.
    for round in 0..20_000 {
        if round % 500 == 499 && missing(&seen).is_none() && forgotten > 0 {
            break;
        }
        let (log, outcomes) = run(&steps().new_tree(&mut runner).unwrap().current());
        for ((_, record), outcome) in log.records.iter().zip(outcomes) {
            let kind = format!("{record:?}");
            let kind = kind.split('(').next().unwrap();
            forgotten += u64::from(outcome.starts_with("Ok(Forgotten") && !outcome.contains("groups: 0"));
            // The one that the log begins with was applied before.
            let fate = if outcome.is_empty() || outcome.starts_with("Ok") { "ok" } else { "refused" };
            seen.insert(format!("{kind} {fate}"));
            let refusal = outcome.strip_prefix("Err(").and_then(|why| why.split(['(', ' ', ')']).next());
            seen.extend(refusal.map(str::to_owned));
        }
    }
    if let Some(missing) = missing(&seen) {
        panic!("there was no \"{missing}\": `drawn` of its sample is to make some");
    }
    assert!(forgotten > 0, "no group was forgotten");
}

/// Whoever replays a log is to begin where the snapshot ends: applied twice, each message would be in its queue twice.
#[test]
#[should_panic(expected = "is applied after that at")]
fn a_record_is_applied_once() {
    let mut log = RecordLog::new();
    let (at, record) = log.records[0].clone();
    let _ = log.state.apply(at, &record, &mut Vec::new());
}
