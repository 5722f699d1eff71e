//! Looking at the log of a running node, and reading a damaged one, on real files.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use vouch_commitlog::{
    Checkpoint, CommitLog, DumpError, LogConfig, LogFolder, LogPosition, OpenError, ReadError, SurveyProgress,
};

use common::{CLUSTER, Open, body, close, config, first_segment, open, records, three_segments, wait_durable};

/// Name, content, and time of change of every file.
fn contents(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let changed = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    files.into_iter().map(|path| (path.clone(), fs::read(&path).unwrap(), changed(&path))).collect()
}

#[test]
fn a_damaged_log_can_be_read_and_is_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let files = three_segments(folder.path());
    let all = open(config(folder.path())).unwrap().entries;
    // A payload, a whole file, and the header of another.
    let damaged = all[2].payload_position.0;
    fs::OpenOptions::new().write(true).open(&files[0]).unwrap().write_all_at(&[0xEE], damaged).unwrap();
    fs::remove_file(&files[1]).unwrap();
    fs::OpenOptions::new().write(true).open(&files[2]).unwrap().write_all_at(&[0xEE], 17).unwrap();
    assert!(matches!(open(config(folder.path())), Err(OpenError::SegmentMissing { .. })));
    let before = contents(folder.path());

    let mut seen = Vec::new();
    let log = CommitLog::open_read_only(&config(folder.path()), LogPosition(0), &mut |progress| seen.push(progress));
    let log = log.unwrap();
    assert_eq!(log.verification.damage.len(), 3, "{:#?}", log.verification.damage);
    assert!(matches!(seen.last(), Some(SurveyProgress { done_bytes, total_bytes }) if done_bytes >= total_bytes));
    for entry in &all {
        let read = log.reader.entry_at(entry.position);
        match (entry.position.0 >> 22, entry.position == all[2].position) {
            (1, _) | (_, true) => assert!(matches!(read, Err(ReadError::Damaged { .. })), "{read:?}"),
            _ => assert_eq!(read.unwrap(), *entry),
        }
    }
    let error = log.reader.entry_at(all[2].position).unwrap_err();
    assert_eq!(error, ReadError::Damaged { position: all[2].position, resume: all[3].position });

    // The tools say the same, and know the identity from the files.
    let tools = LogFolder::open(folder.path()).unwrap();
    assert_eq!((tools.identity().cluster_id, tools.identity().segment_size), (CLUSTER, 4 << 20));
    assert_eq!(tools.verify(LogPosition(0), &mut |_| ()).unwrap(), log.verification);
    let dumped: Vec<_> = tools.entries(LogPosition(0), LogPosition(u64::MAX)).unwrap().collect();
    let damage = dumped.iter().filter(|item| matches!(item, Err(DumpError::Damaged(_)))).count();
    assert_eq!(damage, 2, "a header without its file's entries is nothing to dump");
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn a_folder_without_a_log_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = LogFolder::open(folder.path()).err().unwrap();
    assert!(matches!(&error, OpenError::NoLog { directory } if directory == folder.path()), "{error}");
    let error = LogFolder::open(&folder.path().join("missing")).err().unwrap();
    assert!(matches!(error, OpenError::Io { .. }) && !folder.path().join("missing").exists());
    fs::write(first_segment(folder.path()), vec![1; 5000]).unwrap();
    assert!(matches!(LogFolder::open(folder.path()), Err(OpenError::NoLog { .. })));
    three_segments(&folder.path().join("log"));
    let other = LogConfig { cluster_id: [9; 16], ..config(&folder.path().join("log")) };
    let error = CommitLog::open_read_only(&other, LogPosition(0), &mut |_| ()).err().unwrap();
    assert!(matches!(error, OpenError::WrongCluster { .. }), "{error}");
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A node appends, syncs, rolls, scrubs, releases and uses files again while tools look at its folder.
#[test]
fn the_log_of_a_running_node_is_never_called_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let Open { mut appender, durable, .. } = open(config(folder.path())).unwrap();
    let first = appender.append(records(1), &[&body(1, 100)]).unwrap();
    wait_durable(&durable, first.end);
    let stop = &AtomicBool::new(false);
    let ended = std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let (mut index, mut kept, mut last) = (1, 0, first.checkpoint);
            let housekeeping = appender.housekeeping();
            let (mut scrubber, mut rounds) = (housekeeping.scrubber(LogPosition(0)), 0);
            while !stop.load(Ordering::Relaxed) {
                index += 1;
                let len = 100 + (index * 7919 % 60_000) as usize;
                let appended = appender.append(records(index), &[&body(index, len)]).unwrap();
                // About three segments stay.
                if index.is_multiple_of(50) {
                    let before = LogPosition(appended.position.0.saturating_sub(10 << 20));
                    kept += housekeeping.release_before(before).unwrap().kept;
                }
                last = appended.checkpoint;
                let scrubbed = scrubber.step(100_000).unwrap();
                assert!(scrubbed.damage.is_empty(), "{:#?}", scrubbed.damage);
                rounds += u64::from(scrubbed.round_ended && scrubbed.entries > 0);
            }
            assert!(rounds > 0, "sealed segments were scrubbed");
            wait_durable(&durable, last.end);
            (last, kept, appender)
        });
        // A failed look must not leave the writer running.
        let stopping = StopAtEnd(stop);
        let (mut looks, mut start) = (0, LogPosition(0));
        while looks < 12 || start < LogPosition(100 << 20) {
            let tools = match LogFolder::open(folder.path()) {
                Ok(tools) => tools,
                Err(error) => panic!("{error}"),
            };
            let verification = tools.verify(LogPosition(0), &mut |_| ()).unwrap();
            assert!(verification.is_sound(), "{:#?}", verification.damage);
            assert!(!tools.segments().unwrap().is_empty());
            let mut next = None;
            for entry in tools.entries(verification.start, verification.end).unwrap() {
                let entry = entry.unwrap();
                // What was released while it was read is left out; what is there follows.
                assert!(next.is_none_or(|next| entry.index >= next), "{next:?}, {}", entry.index);
                assert_eq!(
                    entry.payload.len(),
                    if entry.index == 1 { 100 } else { 100 + (entry.index * 7919 % 60_000) as usize }
                );
                next = Some(entry.index + 1);
            }
            (looks, start) = (looks + 1, verification.start);
        }
        drop(stopping);
        writer.join().unwrap()
    });
    let (last, kept, appender): (Checkpoint, u64, _) = ended;
    assert!(kept > 0, "files were used again meanwhile");
    close(appender, last.index);
    let verification = LogFolder::open(folder.path()).unwrap().verify(last.end, &mut |_| ()).unwrap();
    assert!(verification.is_sound() && verification.end > last.end && verification.tail.is_none());
}
