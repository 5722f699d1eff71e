//! How much of the raw device the log gives to its writers.

use std::time::Duration;

use super::log::{Log, SYNCS_IN_FLIGHT};
use super::raw::{Raw, Turns};
use super::{ROUNDS, folder, median};

/// Log and bare writer take turns that are this short, because what else happens to the disk changes from second to second.
const TURN: Duration = Duration::from_millis(150);
const TURNS: usize = 10;
/// Less than two segments, so that there are used files for all of it.
const BYTES: u64 = 256 << 20;

/// By turns: the log, then the bare writer with groups of the size that formed in the log, as many of them in flight.
fn pair(log: &mut Log, raw: &Raw, writers: usize, record: usize) -> (Turns, Turns) {
    let (mut ours, mut bare) = (Turns::default(), Turns::default());
    for _ in 0..TURNS {
        log.release();
        let turn = log.closed_loop(writers, record, TURN, BYTES);
        let group = (turn.bytes / turn.groups).next_multiple_of(8);
        let outstanding = (writers * record) as f64 / group as f64;
        let in_flight = (outstanding.round() as usize).clamp(1, SYNCS_IN_FLIGHT);
        bare.add(raw.closed_loop(group as usize, in_flight, TURN, BYTES));
        ours.add(turn);
    }
    (ours, bare)
}

#[test]
#[ignore = "a measurement"]
fn records_of_some_writers_beside_a_bare_writer() {
    let folder = folder();
    let (raw, mut log) = (Raw::new(folder.path()), Log::in_used_files(folder.path()));
    for record in [128, 1 << 10, 16 << 10, 1 << 20] {
        for writers in [1, 4, 16, 64] {
            let pairs: Vec<_> = (0..ROUNDS).map(|_| pair(&mut log, &raw, writers, record)).collect();
            let kib = |bytes: f64| bytes / 1024.0;
            println!(
                "{record:7} B x {writers:2} writers: {:.2} of the bare writer's bytes a second, CPU a group {:.2} of \
                 it; {:.0} groups/s of {:.1} KiB, {:.1} MB/s",
                median(&pairs, |(log, raw)| log.bytes_per_second() / raw.bytes_per_second()),
                median(&pairs, |(log, raw)| log.cpu_us_per_group() / raw.cpu_us_per_group()),
                median(&pairs, |(log, _)| log.groups_per_second()),
                kib(median(&pairs, |(log, _)| log.bytes_per_group())),
                median(&pairs, |(log, _)| log.bytes_per_second()) / 1e6,
            );
        }
    }
}
