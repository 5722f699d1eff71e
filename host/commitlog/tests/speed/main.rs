//! Figures, not checks: the log beside bare writers on the same disk in the same run, and the time a start takes.
//! `cargo test --release -p vouch-commitlog --test speed -- --ignored --nocapture --test-threads 1`
//!
//! Files are made in the folder that `VOUCH_BENCH_FOLDER` names, or else in the current one. The log goes on in used
//! files, as one does that has run for a while, except where new ones are asked for.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod beside;
mod device;
mod latency;
mod log;
mod raw;
mod reading;
mod start;
mod throughput;

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

/// Times that each comparison is made; the median of their ratios is printed.
const ROUNDS: usize = 3;

fn folder() -> TempDir {
    tempfile::tempdir_in(std::env::var("VOUCH_BENCH_FOLDER").unwrap_or(".".into())).unwrap()
}

/// Processor time of this process.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The middle one of a few figures of all rounds.
fn median<T>(rounds: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut all: Vec<f64> = rounds.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Lower quartile, median and upper quartile of what was compared by turns, for people.
fn quartiles<T>(turns: &[T], of: impl Fn(&T) -> f64) -> String {
    let mut all: Vec<f64> = turns.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    let [low, middle, high] = [1, 2, 3].map(|quarter| all[all.len() * quarter / 4]);
    format!("{middle:.2} ({low:.2} - {high:.2})")
}

/// The 99th percentile.
fn p99(latencies: &mut [Duration]) -> Duration {
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100]
}
