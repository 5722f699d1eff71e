//! What a replica keeps of its log for nodes that take it from its disk.

use std::ops::Range;
use std::time::Duration;

use vouch_commitlog::LogPosition;
use vouch_consensus::NodeId;

use super::bench::Bench;
use crate::core::{HeldLog, Request};

/// Word of a node that takes this stretch, and is waited for as long as is said.
fn holds(bench: &mut Bench, by: u64, taken: Range<LogPosition>, within_secs: u64) {
    let until = bench.now().at + Duration::from_secs(within_secs);
    bench.turn(vec![Request::Hold(HeldLog { by: NodeId(by), taken, until })]);
}

fn needed_from(bench: &Bench) -> Option<u64> {
    bench.core.group_standing().unwrap().needed_from.map(|position| position.0)
}

fn stretch(from: u64, to: u64) -> Range<LogPosition> {
    LogPosition(from)..LogPosition(to)
}

#[test]
fn the_log_is_kept_for_one_that_starts_with_what_it_took_while_the_next_one_takes() {
    let mut bench = Bench::new();
    holds(&mut bench, 2, stretch(100, 500), 120);
    // It has all, and starts.
    holds(&mut bench, 2, stretch(500, 500), 300);
    holds(&mut bench, 3, stretch(700, 900), 120);
    assert_eq!(needed_from(&bench), Some(500));
    // The next one goes without; that says nothing of the first.
    holds(&mut bench, 3, LogPosition::BEYOND..LogPosition::BEYOND, 0);
    assert_eq!(needed_from(&bench), Some(500));
    bench.pass(299_000);
    assert_eq!(needed_from(&bench), Some(500));
    bench.pass(1_000);
    assert_eq!(needed_from(&bench), None, "it did not come");
}

#[test]
fn the_latest_word_of_a_node_takes_the_place_of_its_earlier_ones() {
    let mut bench = Bench::new();
    holds(&mut bench, 2, LogPosition::START..LogPosition::BEYOND, 120);
    assert_eq!(needed_from(&bench), Some(LogPosition::START.0));
    holds(&mut bench, 2, stretch(100, 500), 120);
    assert_eq!(needed_from(&bench), Some(100));
}
