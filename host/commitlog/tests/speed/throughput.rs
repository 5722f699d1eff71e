//! How much of the raw device the log gives to its writers.

use std::time::Duration;

use super::log::Log;
use super::raw::{Figure, Raw};
use super::{folder, median, quartiles};

/// Log and bare writer take turns that are this short, because what else happens to the disk changes from second to second:
/// each turn is compared with the one right behind it.
const TURN: Duration = Duration::from_millis(150);
const TURNS: usize = 31;
/// Less than two segments, so that there are used files for all of it.
const BYTES: u64 = 256 << 20;

/// The log, then the bare writer with groups of the size that formed in the log, as many of them in flight.
fn turn(log: &mut Log, raw: &Raw, writers: usize, record: usize) -> (Figure, Figure) {
    log.release();
    let ours = log.closed_loop(writers, record, TURN, BYTES);
    let group = (ours.bytes / ours.groups).next_multiple_of(8);
    let bare = raw.closed_loop_in_the_mean(group as usize, ours.in_flight, TURN, BYTES);
    (ours, bare)
}

#[test]
#[ignore = "a measurement"]
fn records_of_some_writers_beside_a_bare_writer() {
    let folder = folder();
    let (raw, mut log) = (Raw::new(folder.path()), Log::in_used_files(folder.path()));
    for record in [128, 1 << 10, 16 << 10, 1 << 20] {
        for writers in [1, 4, 16, 64] {
            let turns: Vec<_> = (0..TURNS).map(|_| turn(&mut log, &raw, writers, record)).collect();
            println!(
                "{record:7} B x {writers:2} writers: {} of the bare writer's bytes a second, {} of its CPU a group; \
                 {:.0} groups/s of {:.1} KiB, {:.1} in flight, {:.1} MB/s",
                quartiles(&turns, |(log, raw)| log.bytes_per_second() / raw.bytes_per_second()),
                quartiles(&turns, |(log, raw)| log.cpu_us_per_group() / raw.cpu_us_per_group()),
                median(&turns, |(log, _)| log.groups_per_second()),
                median(&turns, |(log, _)| log.bytes as f64 / log.groups as f64) / 1024.0,
                median(&turns, |(log, _)| log.in_flight),
                median(&turns, |(log, _)| log.bytes_per_second()) / 1e6,
            );
        }
    }
}
