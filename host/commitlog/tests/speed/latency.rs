//! How long an append takes at half of what the device can do.

use std::time::Duration;

use super::log::{Log, SYNCS_IN_FLIGHT};
use super::raw::Raw;
use super::{ROUNDS, folder, median, p99};

/// The two take turns that are this short, because what else happens to the disk changes from second to second.
const TURN: Duration = Duration::from_millis(500);
const TURNS: usize = 10;

#[test]
#[ignore = "a measurement"]
fn an_append_at_half_load_beside_a_bare_write() {
    let folder = folder();
    let (raw, mut log) = (Raw::new(folder.path()), Log::in_used_files(folder.path()));
    for group in [1 << 10, 16 << 10, 64 << 10] {
        let full = raw.closed_loop(group, SYNCS_IN_FLIGHT, Duration::from_secs(2), u64::MAX);
        let every = Duration::from_secs_f64(2.0 / full.groups_per_second());
        let count = (TURN.as_secs_f64() / every.as_secs_f64()) as u32;
        let pairs: Vec<_> = (0..ROUNDS)
            .map(|_| {
                let (mut ours, mut bare) = (Vec::new(), Vec::new());
                for _ in 0..TURNS {
                    log.release();
                    ours.extend(log.open_loop(group - 64, every, count));
                    bare.extend(raw.open_loop(group, SYNCS_IN_FLIGHT, every, count));
                }
                (p99(&mut ours).as_secs_f64() * 1e3, p99(&mut bare).as_secs_f64() * 1e3)
            })
            .collect();
        println!(
            "groups of {:2} KiB, {:.0} a second: p99 {:.2} of the bare writer's; {:.2} ms and {:.2} ms; rounds {:.1?}",
            group >> 10,
            1.0 / every.as_secs_f64(),
            median(&pairs, |(ours, bare)| ours / bare),
            median(&pairs, |(ours, _)| *ours),
            median(&pairs, |(_, bare)| *bare),
            pairs,
        );
    }
}
