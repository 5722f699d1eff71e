//! Plain background reads and writes, as many bytes a second as the node's background work has.

use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::fs::Advice;

use super::super::group_commit_file::create_zero_filled;
use crate::child::ChildDiskUse;

/// Size of the file; reads take its first half, writes its second, round and round.
const FILE_BYTES: u64 = 512 << 20;
/// Where writes begin.
const HALF: u64 = FILE_BYTES / 2;
/// Reads and writes in a second; every so many-th write is followed by a sync.
const STEPS_PER_SECOND: u32 = 20;
/// So many writes are synced at once.
const STEPS_PER_SYNC: u64 = 5;
/// Most bytes of a step.
const STEP_MAX_BYTES: usize = 64 << 20;
/// Steps are whole pages of the page cache.
const PAGE: usize = 4096;

/// Bytes a second of background work.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct PerSecond {
    pub(super) read: f64,
    pub(super) written: f64,
}

impl PerSecond {
    /// What was used in a time, by the second.
    pub(super) fn of(used: ChildDiskUse, time: Duration) -> Self {
        let per_second = |bytes: u64| bytes as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE);
        Self { read: per_second(used.read_bytes), written: per_second(used.written_bytes) }
    }
}

/// The file that is read and written.
pub(super) struct PlainFile {
    file: File,
}

impl PlainFile {
    /// Makes the file, with blocks on disk throughout.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let file =
            create_zero_filled(path, FILE_BYTES).context("cannot create the file of the plain background work")?;
        // No more is read than is asked for.
        rustix::fs::fadvise(&file, 0, None::<NonZeroU64>, Advice::Random).context("cannot advise on reads")?;
        Ok(Self { file })
    }

    /// Reads what is not in memory, and writes and syncs, until told to stop.
    pub(super) fn read_and_write(&self, rates: PerSecond, stop: &AtomicBool) -> anyhow::Result<()> {
        let mut steps = Steps::new(rates);
        paced(STEPS_PER_SECOND, stop, || steps.take(&self.file))
    }
}

/// Where reads and writes go on.
struct Steps {
    read_at: u64,
    write_at: u64,
    taken: u64,
    into: Vec<u8>,
    from: Vec<u8>,
}

impl Steps {
    /// Steps of a size that makes these rates.
    fn new(rates: PerSecond) -> Self {
        let (into, from) = (vec![0; step_bytes(rates.read)], vec![7; step_bytes(rates.written)]);
        Self { read_at: 0, write_at: HALF, taken: 0, into, from }
    }

    /// One read and one write.
    fn take(&mut self, file: &File) -> anyhow::Result<()> {
        let (read, write) = (self.into.len() as u64, self.from.len() as u64);
        if self.read_at + read > HALF {
            self.read_at = 0;
        }
        if self.write_at + write > FILE_BYTES {
            self.write_at = HALF;
        }
        if let Some(len) = NonZeroU64::new(read) {
            rustix::fs::fadvise(file, self.read_at, Some(len), Advice::DontNeed)?;
            file.read_exact_at(&mut self.into, self.read_at)?;
        }
        file.write_all_at(&self.from, self.write_at)?;
        self.read_at += read;
        self.write_at += write;
        self.taken += 1;
        if write > 0 && self.taken.is_multiple_of(STEPS_PER_SYNC) {
            file.sync_data()?;
        }
        Ok(())
    }
}

/// Whole pages of one step.
fn step_bytes(per_second: f64) -> usize {
    let bytes = per_second / f64::from(STEPS_PER_SECOND);
    ((bytes / PAGE as f64).round() as usize * PAGE).min(STEP_MAX_BYTES)
}

/// Does `step` at a fixed rate until told to stop, or until it fails.
pub(super) fn paced(
    per_second: u32,
    stop: &AtomicBool,
    mut step: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        step()?;
        // What could not be kept up with is not made up for.
        due = (due + Duration::from_secs(1) / per_second).max(Instant::now());
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_bytes_by_seconds() {
        let used = ChildDiskUse { read_bytes: 80, written_bytes: 300 };
        assert_eq!(PerSecond::of(used, Duration::from_secs(2)), PerSecond { read: 40.0, written: 150.0 });
    }

    #[test]
    fn a_step_is_whole_pages_of_its_share_of_a_second() {
        assert_eq!(step_bytes(0.0), 0);
        assert_eq!(step_bytes(20.0 * 3.0 * 4096.0), 3 * 4096);
        assert_eq!(step_bytes(1e15), STEP_MAX_BYTES);
    }

    #[test]
    fn steps_read_the_first_half_and_write_the_second_round_and_round() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        File::create(&path).unwrap().set_len(FILE_BYTES).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        file.write_all_at(&[5], PAGE as u64).unwrap();
        let page_a_step = f64::from(STEPS_PER_SECOND) * PAGE as f64;
        let mut steps = Steps::new(PerSecond { read: page_a_step, written: 2.0 * page_a_step });
        steps.take(&file).unwrap();
        steps.take(&file).unwrap();
        assert_eq!(steps.into[0], 5, "the second page was read");
        let byte_at = |at: u64| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            byte[0]
        };
        assert_eq!([HALF - 1, HALF, HALF + 4 * PAGE as u64 - 1, HALF + 4 * PAGE as u64].map(byte_at), [0, 7, 7, 0]);
        (steps.read_at, steps.write_at) = (HALF, FILE_BYTES - PAGE as u64);
        steps.take(&file).unwrap();
        assert_eq!((steps.read_at, steps.write_at), (PAGE as u64, HALF + 2 * PAGE as u64), "both began anew");
    }
}
