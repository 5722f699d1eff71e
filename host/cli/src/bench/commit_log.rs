//! `vouch bench log`: the commit log against the raw device.
//!
//! Both write groups of the same size with the same number of syncs in flight, into files whose blocks were written
//! with zeros before. The raw side is as little as that can be: per sync in flight one thread that does `pwrite` and
//! `fdatasync` on a file description of its own. The log adds checksums, headers, order and reports.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use vouch_commitlog::{
    Appender, CommitLog, Durable, EntryHeader, EntryKind, LogConfig, LogPosition, MAX_SYNCS_IN_FLIGHT,
};

use super::group_commit_file::create_zero_filled;
use super::scratch::Scratch;
use super::stats::{Latencies, Measured, median, ratio, short};
use crate::output;

/// Segment of the log and size of the raw file: what one turn may write at most, with room for headers.
const FILE_BYTES: u64 = 256 << 20;
/// The log's zero-filler is done when this process wrote nothing for so long.
const QUIET_FOR: Duration = Duration::from_millis(300);
/// And this is how long it may take.
const QUIET_WITHIN: Duration = Duration::from_secs(120);

/// How large the groups are, how many are in flight, and for how long.
#[derive(Clone, Debug, Args)]
pub(crate) struct LogArgs {
    /// Bytes of a group: what is written and synced at once.
    #[arg(long, value_name = "BYTES", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(512..=4_194_304))]
    group: u32,
    /// Syncs in flight.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=MAX_SYNCS_IN_FLIGHT as i64))]
    syncs: u32,
    /// Seconds of one turn, at most; a turn also ends after 128 MiB.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Rounds; log and raw device take turns in each.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Folder on the disk to be measured; without it a temporary one.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs `vouch bench log`.
pub(crate) fn run(args: &LogArgs) -> anyhow::Result<()> {
    let scratch = Scratch::create(args.dir.as_deref())?;
    let work = Work::new(args);
    if !args.json {
        output::line(heading(args, &scratch))?;
    }
    let mut rounds = Vec::new();
    for number in 0..args.rounds {
        let folder = scratch.path().join(format!("round-{number}"));
        std::fs::create_dir(&folder).context("cannot create a folder")?;
        let pair = measure_both(&folder, &work, number % 2 == 0)?;
        std::fs::remove_dir_all(&folder).context("cannot remove a folder")?;
        if !args.json {
            output::line(render(number + 1, &pair, &work))?;
        }
        rounds.push(pair);
    }
    let ratios: Vec<f64> = rounds.iter().filter_map(|pair| ratio(pair.log.rate(), pair.raw.rate())).collect();
    if args.json {
        return Ok(output::json(&document(args, &rounds, &ratios))?);
    }
    let each = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join("  ");
    let middle = median(&ratios).context("nothing was measured")?;
    Ok(output::line(format_args!("\nlog / raw device: groups/s median {middle:.2}   rounds {each}"))?)
}

/// What both sides do in one turn.
struct Work {
    /// What is written each time; it does not compress.
    group: Vec<u8>,
    /// Groups in flight.
    syncs: usize,
    /// When a turn ends at the latest.
    seconds: Duration,
    /// Segment of the log, size of the raw file.
    file_bytes: u64,
    /// Half of a file: both sides stay inside what was zero-filled before the clock started.
    groups_max: u64,
}

/// One round.
struct Pair {
    log: Measured,
    raw: Measured,
}

impl Work {
    /// The same work for every turn.
    fn new(args: &LogArgs) -> Self {
        let mut group = vec![0; args.group as usize];
        rand::fill(group.as_mut_slice());
        Self {
            group,
            syncs: args.syncs as usize,
            seconds: Duration::from_secs(u64::from(args.seconds)),
            file_bytes: FILE_BYTES,
            groups_max: FILE_BYTES / 2 / u64::from(args.group),
        }
    }
}

/// One turn of each, in files of their own.
fn measure_both(folder: &Path, work: &Work, log_first: bool) -> anyhow::Result<Pair> {
    if log_first {
        let log = measure_log(&folder.join("log"), work)?;
        Ok(Pair { log, raw: measure_raw(&folder.join("raw"), work)? })
    } else {
        let raw = measure_raw(&folder.join("raw"), work)?;
        Ok(Pair { log: measure_log(&folder.join("log"), work)?, raw })
    }
}

/// What the log reported: how far, when, and how often.
struct Reported {
    to: u64,
    at: Instant,
    poisoned: Option<String>,
}

/// What the log says, shared between its thread and the one that appends.
#[derive(Clone)]
struct Reports(Arc<(Mutex<Reported>, Condvar)>);

impl Reports {
    /// Nothing is durable yet.
    fn new() -> Self {
        Self(Arc::new((Mutex::new(Reported { to: 0, at: Instant::now(), poisoned: None }), Condvar::new())))
    }

    /// Notes a report of the log.
    fn take(&self, durable: Durable) {
        let (lock, changed) = &*self.0;
        let mut reported = lock.lock().unwrap_or_else(PoisonError::into_inner);
        match durable {
            Durable::Up { to } => (reported.to, reported.at) = (to.0, Instant::now()),
            Durable::Poisoned(report) => reported.poisoned = Some(report.to_string()),
        }
        changed.notify_one();
    }

    /// Waits until everything before `end` is durable; says how far it is and since when.
    fn wait_for(&self, end: LogPosition) -> anyhow::Result<(u64, Instant)> {
        let (lock, changed) = &*self.0;
        let mut reported = lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(why) = &reported.poisoned {
                bail!("the log takes no more writes: {why}");
            }
            if reported.to >= end.0 {
                return Ok((reported.to, reported.at));
            }
            reported = changed.wait(reported).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Groups that were appended and are not known durable.
struct Outstanding {
    groups: VecDeque<(LogPosition, Instant)>,
    reports: Reports,
    durable: u64,
    latencies: Latencies,
}

impl Outstanding {
    /// Waits until fewer than `limit` groups are outstanding.
    fn settle(&mut self, limit: usize) -> anyhow::Result<()> {
        while self.groups.len() >= limit.max(1) {
            let Some((end, _)) = self.groups.front().copied() else { break };
            let (to, at) = self.reports.wait_for(end)?;
            while let Some((end, appended)) = self.groups.front().copied()
                && end.0 <= to
            {
                self.groups.pop_front();
                self.durable += 1;
                self.latencies.record(at.saturating_duration_since(appended));
            }
        }
        Ok(())
    }
}

/// The log's turn.
fn measure_log(folder: &Path, work: &Work) -> anyhow::Result<Measured> {
    let mut config = LogConfig::new(folder, *b"vouch-bench-log!", 0);
    config.segment_size = work.file_bytes;
    config.zero_ahead = work.file_bytes;
    config.syncs_in_flight = work.syncs;
    let reports = Reports::new();
    let told = reports.clone();
    let on_durable = Box::new(move |durable| told.take(durable));
    let (mut appender, _reader, _) =
        CommitLog::open(config, on_durable, &mut |_| Ok::<_, Infallible>(())).context("cannot open the commit log")?;
    wait_until_written()?;
    let began = Instant::now();
    let mut outstanding = Outstanding { groups: VecDeque::new(), reports, durable: 0, latencies: Latencies::new() };
    for index in 1..=work.groups_max {
        outstanding.settle(work.syncs)?;
        if began.elapsed() >= work.seconds {
            break;
        }
        let now = Instant::now();
        let end = append(&mut appender, index, &work.group)?;
        outstanding.groups.push_back((end, now));
    }
    outstanding.settle(1)?;
    let elapsed = began.elapsed();
    appender.close().context("cannot close the commit log")?;
    Ok(measured(outstanding.durable, elapsed, outstanding.latencies))
}

/// One group as an entry; gives its end.
fn append(appender: &mut Appender, index: u64, group: &[u8]) -> anyhow::Result<LogPosition> {
    let header = EntryHeader { term: 1, index, leader_time_ms: index, kind: EntryKind::Records };
    Ok(appender.append(header, &[group]).context("cannot append")?.end)
}

/// The log fills its space with zeros from a thread of its own; what it still writes would be measured too.
fn wait_until_written() -> anyhow::Result<()> {
    let written = || -> anyhow::Result<u64> {
        let text = std::fs::read_to_string("/proc/self/io").context("cannot see what this process writes")?;
        let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).context("/proc/self/io has no wchar")?;
        Ok(line.trim().parse()?)
    };
    let give_up_at = Instant::now() + QUIET_WITHIN;
    let mut before = written()?;
    loop {
        std::thread::sleep(QUIET_FOR);
        let now = written()?;
        if now == before {
            return Ok(());
        }
        if Instant::now() > give_up_at {
            bail!("the log still fills its files with zeros after {QUIET_WITHIN:?}; is the disk that slow?");
        }
        before = now;
    }
}

/// The turn of the raw file.
fn measure_raw(path: &Path, work: &Work) -> anyhow::Result<Measured> {
    drop(create_zero_filled(path, work.file_bytes).context("cannot fill the raw file")?);
    let next = AtomicU64::new(0);
    let files: Vec<File> = (0..work.syncs)
        .map(|_| OpenOptions::new().write(true).open(path).context("cannot open the raw file"))
        .collect::<anyhow::Result<_>>()?;
    let began = Instant::now();
    let seen: Vec<anyhow::Result<(u64, Latencies)>> = std::thread::scope(|scope| {
        let writers: Vec<_> = files.iter().map(|file| scope.spawn(|| write_raw(file, &next, work, began))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap_or_else(|_| bail!("a writer panicked"))).collect()
    });
    let elapsed = began.elapsed();
    let (mut groups, mut latencies) = (0, Latencies::new());
    for writer in seen {
        let (written, times) = writer?;
        groups += written;
        latencies.merge(&times);
    }
    Ok(measured(groups, elapsed, latencies))
}

/// One writer of as many as there may be syncs in flight. They take groups by turns from one counter.
fn write_raw(file: &File, next: &AtomicU64, work: &Work, began: Instant) -> anyhow::Result<(u64, Latencies)> {
    let (mut groups, mut latencies) = (0, Latencies::new());
    loop {
        let group = next.fetch_add(1, Ordering::Relaxed);
        if group >= work.groups_max || began.elapsed() >= work.seconds {
            return Ok((groups, latencies));
        }
        let now = Instant::now();
        file.write_all_at(&work.group, group * work.group.len() as u64)?;
        file.sync_data()?;
        latencies.record(now.elapsed());
        groups += 1;
    }
}

/// A turn in numbers.
fn measured(groups: u64, elapsed: Duration, latencies: Latencies) -> Measured {
    Measured { messages: groups, failures: 0, first_failure: None, elapsed, latencies, server_cpu: None }
}

/// What is measured, and the headings of the rounds.
fn heading(args: &LogArgs, scratch: &Scratch) -> String {
    format!(
        "commit log and raw device: groups of {} bytes, {} syncs in flight, both files\n\
         zero-filled; {} rounds of at most {} s each, files in {}\n\n\
         {:>5}  {:<6} {:>10}  {:>8}  {:>8}  {:>8}  {:>8}",
        args.group,
        args.syncs,
        args.rounds,
        args.seconds,
        scratch.describe(),
        "round",
        "what",
        "groups/s",
        "MiB/s",
        "p50",
        "p99",
        "p99.9"
    )
}

/// A line for each side.
fn render(number: u32, pair: &Pair, work: &Work) -> String {
    let line = |name: &str, seen: &Measured| {
        let percentile = |percent| short(seen.latencies.percentile(percent));
        format!(
            "{number:>5}  {name:<6} {:>10.0}  {:>8.1}  {:>8}  {:>8}  {:>8}",
            seen.rate(),
            seen.rate() * work.group.len() as f64 / f64::from(1 << 20),
            percentile(50.0),
            percentile(99.0),
            percentile(99.9)
        )
    };
    format!("{}\n{}", line("log", &pair.log), line("raw", &pair.raw))
}

/// Everything, for `--json`; times are microseconds.
fn document(args: &LogArgs, rounds: &[Pair], ratios: &[f64]) -> Value {
    let side = |seen: &Measured| {
        json!({
            "groups": seen.messages,
            "groups_per_second": seen.rate(),
            "p50_us": seen.latencies.percentile(50.0).as_micros() as u64,
            "p99_us": seen.latencies.percentile(99.0).as_micros() as u64,
            "p999_us": seen.latencies.percentile(99.9).as_micros() as u64,
        })
    };
    let rounds: Vec<Value> =
        rounds.iter().map(|pair| json!({"log": side(&pair.log), "raw": side(&pair.raw)})).collect();
    json!({
        "group_bytes": args.group,
        "syncs_in_flight": args.syncs,
        "rounds": rounds,
        "ratio": {"rounds": ratios, "median": median(ratios)},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_write_what_they_are_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let work = Work {
            group: vec![7; 4096],
            syncs: 2,
            seconds: Duration::from_secs(60),
            file_bytes: 4 << 20,
            groups_max: 50,
        };
        for log_first in [true, false] {
            let folder = folder.path().join(log_first.to_string());
            std::fs::create_dir(&folder).unwrap();
            let pair = measure_both(&folder, &work, log_first).unwrap();
            assert_eq!((pair.log.messages, pair.raw.messages), (50, 50));
            assert!(pair.log.latencies.percentile(50.0) > Duration::ZERO);
        }
    }
}
