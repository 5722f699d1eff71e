//! The log on a real folder, with its threads.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use vouch_commitlog::{
    AppendError, CommitLog, ConfigError, Durable, Entry, EntryHeader, EntryKind, LogConfig, LogPosition, MARK_AFTER,
    OpenError, ReadError,
};

use common::{
    CLUSTER, Open, PATIENCE, body, close, config, first_segment, open, records, three_segments, two_groups,
    wait_durable,
};

#[test]
fn entries_survive_a_clean_stop_over_several_segments() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(config(folder.path())).unwrap();
    assert!(log.entries.is_empty() && log.recovery.clean && log.recovery.cut.is_none());
    let mut placed = Vec::new();
    for index in 1..=40 {
        let payload = body(index, 300_000 + index as usize);
        let (head, rest) = payload.split_at(1000);
        let expected = log.appender.next_payload_position(payload.len());
        let appended = log.appender.append(records(index), &[head, rest]).unwrap();
        assert_eq!(appended.payload_position, expected);
        assert_eq!(log.reader.read(appended.payload_position, payload.len()).unwrap(), payload);
        placed.push(appended);
    }
    wait_durable(&log.durable, placed[39].end);
    assert!(log.appender.appended() > LogPosition(2 * (4 << 20)));
    close(log.appender, 40);

    let log = open(config(folder.path())).unwrap();
    assert!(log.recovery.clean, "{:?}", log.recovery);
    assert_eq!(log.recovery.entries, 41);
    assert_eq!((log.recovery.last_index, log.recovery.last_term), (41, 1));
    assert_eq!((log.entries[40].kind, log.entries[40].index), (EntryKind::Mark, 41));
    for (entry, (index, placed)) in log.entries.iter().zip((1..).zip(&placed)) {
        assert_eq!(
            (entry.position, entry.payload_position, entry.end),
            (placed.position, placed.payload_position, placed.end)
        );
        assert_eq!(entry.index, index);
        assert_eq!(entry.payload, body(index, 300_000 + index as usize));
    }
    let read: Vec<Entry> = log.reader.entries_from(LogPosition(0)).map(Result::unwrap).collect();
    assert_eq!(read, log.entries);
}

/// Sizes around every padding, and the largest payload of the segment.
#[test]
fn payloads_of_every_padding_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(config(folder.path())).unwrap();
    let max = log.appender.max_payload() as usize;
    let lens: Vec<usize> = (0..=17).chain([4095, 4096, 4097, max, max - 1, 5]).collect();
    for (index, len) in (1..).zip(&lens) {
        log.appender.append(records(index), &[&body(index, *len)]).unwrap();
    }
    for (entry, (index, len)) in log.reader.entries_from(LogPosition(0)).zip((1..).zip(&lens)) {
        assert_eq!(entry.unwrap().payload, body(index, *len));
    }
    let error = log.appender.append(records(99), &[&vec![1; max + 1]]).unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { len, max: most } if len == max as u64 + 1 && most == max as u64));
    let mark = EntryHeader { kind: EntryKind::Mark, ..records(99) };
    assert!(matches!(log.appender.append(mark, &[b"x"]), Err(AppendError::MarkWithPayload { len: 1 })));
    let end = log.appender.append(records(99), &[b"the log goes on"]).unwrap().end;
    wait_durable(&log.durable, end);
}

#[test]
fn a_dropped_log_keeps_what_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(config(folder.path())).unwrap();
    let mut end = LogPosition(0);
    for index in 1..=1000 {
        end = log.appender.append(records(index), &[&body(index, 500)]).unwrap().end;
    }
    wait_durable(&log.durable, end);
    let Open { appender, reader, .. } = log;
    drop(appender);
    let first = reader.entry_at(LogPosition(4096)).unwrap();
    let log = open(config(folder.path())).unwrap();
    assert_eq!((log.entries.len(), log.recovery.end), (1000, end));
    assert!(!log.recovery.clean && log.recovery.cut.is_none(), "{:?}", log.recovery);
    assert_eq!(log.entries[0], first, "a reader outlives the appender");
}

/// Whoever starts at the path meanwhile finds nothing of a log of another identity there.
#[test]
fn a_log_whose_folder_is_moved_away_goes_on_in_it_and_touches_nothing_in_the_place_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let (place, away) = (folder.path().join("log"), folder.path().join("away"));
    let mut log = open(config(&place)).unwrap();
    let names = |folder: &Path| -> BTreeSet<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    fs::rename(&place, &away).unwrap();
    fs::create_dir(&place).unwrap();
    // The names that are used again and removed where a segment is released, of somebody else.
    let others: BTreeSet<String> = names(&away);
    for name in &others {
        fs::write(place.join(name), "of somebody else").unwrap();
    }
    let mut placed = Vec::new();
    for index in 1..=40 {
        placed.push(log.appender.append(records(index), &[&body(index, 500_000)]).unwrap());
    }
    wait_durable(&log.durable, placed[39].end);
    log.appender.housekeeping().release_before(placed[20].position).unwrap();
    let rest: Vec<Entry> = log.reader.entries_from(placed[30].position).map(Result::unwrap).collect();
    assert_eq!(rest.first().map(|entry| entry.index), Some(31));
    close(log.appender, 40);
    assert_eq!(names(&place), others);
    for name in &others {
        assert_eq!(fs::read(place.join(name)).unwrap(), b"of somebody else", "{name}");
    }
    let log = open(config(&away)).unwrap();
    assert!(log.recovery.clean && log.recovery.last_index == 41, "{:?}", log.recovery);
}

#[test]
fn reports_of_durability_only_grow_while_others_read() {
    let folder = tempfile::tempdir().unwrap();
    for syncs_in_flight in 1..=4 {
        let config = LogConfig { syncs_in_flight, ..config(&folder.path().join(syncs_in_flight.to_string())) };
        let Open { mut appender, reader, durable, .. } = open(config).unwrap();
        let verifier = std::thread::spawn(move || {
            let mut entries = reader.entries_from(LogPosition(0));
            let mut next = 1;
            while next <= 3000 {
                let Some(entry) = entries.next() else { continue };
                let entry = entry.unwrap();
                assert_eq!((entry.index, entry.payload.len()), (next, next as usize * 3));
                next += 1;
            }
        });
        let mut last = LogPosition(0);
        for index in 1..=3000 {
            last = appender.append(records(index), &[&body(index, index as usize * 3)]).unwrap().end;
        }
        verifier.join().unwrap();
        let mut reached = LogPosition(0);
        while reached < last {
            let Durable::Up { to } = durable.recv_timeout(PATIENCE).unwrap() else { panic!("poisoned") };
            assert!(to > reached && to <= last);
            reached = to;
        }
        assert_eq!(appender.durable(), last);
    }
}

#[test]
fn an_idle_log_asks_for_one_mark() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(config(folder.path())).unwrap();
    assert!(!log.appender.mark_needed() && log.appender.mark_due_in().is_none(), "an empty log has nothing to cover");
    let end = log.appender.append(records(1), &[&body(1, 500)]).unwrap().end;
    wait_durable(&log.durable, end);
    assert!(log.appender.mark_due_in().unwrap() <= MARK_AFTER);
    while !log.appender.mark_needed() {
        std::thread::sleep(log.appender.mark_due_in().unwrap());
    }
    let end = log.appender.append(EntryHeader { kind: EntryKind::Mark, ..records(1) }, &[]).unwrap().end;
    assert!(log.appender.mark_due_in().is_none(), "a mark needs no mark");
    wait_durable(&log.durable, end);
    drop(log);

    // Now the only group is covered: losing it is damage, no torn tail.
    let file = std::fs::OpenOptions::new().write(true).open(first_segment(folder.path())).unwrap();
    file.write_all_at(&[0; 100], 4096).unwrap();
    let error = open(config(folder.path())).err().unwrap();
    assert!(matches!(error, OpenError::Damaged { offset: 4096, position: LogPosition(4096), .. }), "{error}");
    assert!(error.to_string().contains("00000000000000000000.log"), "{error}");
}

/// On a replica that follows it would be an entry that nobody else has (ruling 29).
#[test]
fn a_log_appends_nothing_by_itself_neither_idle_nor_when_it_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    for index in 1..=3 {
        let mut log = open(config(folder.path())).unwrap();
        assert_eq!(log.entries.len() as u64, index - 1);
        let end = log.appender.append(records(index), &[&body(index, 500)]).unwrap().end;
        wait_durable(&log.durable, end);
        std::thread::sleep(2 * MARK_AFTER);
        assert!(log.appender.mark_needed() && !log.appender.is_covered());
        assert_eq!((log.appender.appended(), log.reader.end()), (end, end));
        assert_eq!(log.appender.close().unwrap(), end);
        let after = open(config(folder.path())).unwrap();
        assert!(!after.recovery.clean && after.recovery.cut.is_none());
        assert_eq!((after.recovery.end, after.recovery.last_index), (end, index));
    }
}

#[test]
fn a_torn_tail_is_cut_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (start, end) = two_groups(folder.path());
    let file = std::fs::OpenOptions::new().write(true).open(first_segment(folder.path())).unwrap();
    file.write_all_at(&[0xFF], end.0 - 20).unwrap();
    let mut log = open(config(folder.path())).unwrap();
    assert_eq!((log.entries.len(), log.recovery.end), (1, start));
    let cut = log.recovery.cut.clone().unwrap();
    assert_eq!((cut.at, cut.reason.as_str()), (start, "the payload does not match its checksum"));
    assert!(cut.bytes > 1000 && start.0 + cut.bytes <= end.0);
    let end = log.appender.append(records(2), &[&body(7, 10)]).unwrap().end;
    wait_durable(&log.durable, end);
    drop(log);
    let log = open(config(folder.path())).unwrap();
    assert_eq!(log.recovery.cut, None);
    assert_eq!(log.entries[1].payload, body(7, 10));
}

#[test]
fn a_position_known_durable_makes_a_torn_tail_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (start, end) = two_groups(folder.path());
    let file = std::fs::OpenOptions::new().write(true).open(first_segment(folder.path())).unwrap();
    file.write_all_at(&[0xFF], end.0 - 20).unwrap();
    let error = open(LogConfig { known_durable: end, ..config(folder.path()) }).err().unwrap();
    assert!(
        matches!(error, OpenError::Damaged { position, durable, .. } if position == start && durable == end),
        "{error}"
    );
    assert!(open(LogConfig { known_durable: start, ..config(folder.path()) }).is_ok());
}

#[test]
fn a_log_of_somebody_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    two_groups(folder.path());
    let mine = config(folder.path());
    let error = |config: LogConfig| open(config).err().expect("it is refused");
    let cluster = error(LogConfig { cluster_id: [7; 16], ..mine.clone() });
    assert!(matches!(cluster, OpenError::WrongCluster { .. }), "{cluster}");
    let shard = error(LogConfig { shard: 9, ..mine.clone() });
    assert!(matches!(shard, OpenError::WrongShard { found: 0, expected: 9, .. }), "{shard}");
    let size = error(LogConfig { segment_size: 5 << 20, ..mine.clone() });
    assert!(
        matches!(size, OpenError::WrongSegmentSize { found, expected, .. } if found == 4 << 20 && expected == 5 << 20)
    );
    assert!(size.to_string().contains("configure 4194304"), "{size}");
    std::fs::rename(first_segment(folder.path()), folder.path().join("00000000000004194304.log")).unwrap();
    let misnamed = error(mine);
    assert!(matches!(misnamed, OpenError::Misnamed { found: LogPosition(0), .. }), "{misnamed}");
}

#[test]
fn settings_out_of_bounds_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let good = config(folder.path());
    for segment_size in [4 << 20, 5 << 20, 4 << 30] {
        LogConfig { segment_size, ..good.clone() }.validate().unwrap();
    }
    for segment_size in [0, (4 << 20) - 1, 3 << 20, (4 << 20) + 4096, (4 << 30) + (1 << 20)] {
        let error = LogConfig { segment_size, ..good.clone() }.validate().unwrap_err();
        assert_eq!(error, ConfigError::SegmentSize(segment_size));
    }
    for (zero_ahead, right) in [((1 << 20) - 1, false), (1 << 20, true), (1 << 30, true), ((1 << 30) + 1, false)] {
        assert_eq!(LogConfig { zero_ahead, ..good.clone() }.validate().is_ok(), right);
    }
    for (syncs_in_flight, right) in [(0, false), (1, true), (4, true), (5, false)] {
        assert_eq!(LogConfig { syncs_in_flight, ..good.clone() }.validate().is_ok(), right);
    }
    assert!(matches!(open(LogConfig { syncs_in_flight: 5, ..good }), Err(OpenError::Config(_))));
}

#[test]
fn missing_and_truncated_segments_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let files = three_segments(folder.path());
    let refusal = |undo: &dyn Fn()| {
        let error = open(config(folder.path())).err().expect("it is refused");
        undo();
        assert!(open(config(folder.path())).is_ok(), "nothing was changed");
        error
    };
    let aside = folder.path().join("aside");
    for gone in &files[1..] {
        std::fs::rename(gone, &aside).unwrap();
        let error = refusal(&|| std::fs::rename(&aside, gone).unwrap());
        assert!(matches!(&error, OpenError::SegmentMissing { file } if file == gone), "{error}");
    }
    for (cut, to) in files.iter().zip([3 << 20, 0, 100_000]) {
        std::fs::copy(cut, &aside).unwrap();
        std::fs::OpenOptions::new().write(true).open(cut).unwrap().set_len(to).unwrap();
        let error = refusal(&|| std::fs::rename(&aside, cut).unwrap());
        assert!(
            matches!(&error, OpenError::SegmentLength { file, found, .. } if file == cut && *found == to),
            "{error}"
        );
    }
}

#[test]
fn leftovers_of_an_interrupted_creation_are_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (_, end) = two_groups(folder.path());
    let next = folder.path().join("00000000000004194304.log");
    for len in [0, 100, 4096, 4 << 20] {
        std::fs::write(&next, vec![0; len]).unwrap();
        std::fs::write(folder.path().join("notes.txt"), "not ours").unwrap();
        let log = open(config(folder.path())).unwrap();
        assert_eq!((log.entries.len(), log.recovery.end), (2, end));
    }
    assert!(folder.path().join("notes.txt").exists());
    // The same for the very first segment.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(first_segment(folder.path()), b"").unwrap();
    let log = open(config(folder.path())).unwrap();
    assert_eq!((log.entries.len(), log.recovery.end), (0, LogPosition(4096)));
}

#[test]
fn newer_formats_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    two_groups(folder.path());
    let path = first_segment(folder.path());
    let whole = std::fs::read(&path).unwrap();
    // A segment header of version 3, its checksum right.
    let mut newer = whole.clone();
    newer[8] = 3;
    let crc = crc32c::crc32c(&newer[..4092]);
    newer[4092..4096].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, newer).unwrap();
    let error = open(config(folder.path())).err().unwrap();
    assert!(matches!(error, OpenError::UnknownFormat { version: 3, offset: 0, .. }), "{error}");
    // Entry headers of version 2, and of kind 77, the header's checksum right.
    let seed = crc32c::crc32c_append(crc32c::crc32c(&CLUSTER), &0u16.to_le_bytes());
    for (byte, value) in [(8, 2), (9, 77)] {
        let mut newer = whole.clone();
        newer[4096 + byte] = value;
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(seed, &newer[4104..4116]), &newer[4120..4160]);
        newer[4116..4120].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&path, newer).unwrap();
        let error = open(config(folder.path())).err().unwrap();
        let right = match byte {
            8 => matches!(error, OpenError::UnknownFormat { version: 2, offset: 4096, .. }),
            _ => matches!(error, OpenError::UnknownKind { kind: 77, offset: 4096, .. }),
        };
        assert!(right, "{error}");
    }
}

#[test]
fn an_entry_that_the_caller_refuses_ends_the_open() {
    let folder = tempfile::tempdir().unwrap();
    let (second, _) = two_groups(folder.path());
    let refuse = &mut |entry: Entry| if entry.index == 2 { Err("a record kind of a newer version") } else { Ok(()) };
    let error = CommitLog::open(config(folder.path()), Box::new(|_| ()), refuse).err().unwrap();
    assert!(matches!(error, OpenError::Entry { position, .. } if position == second), "{error}");
    assert!(error.to_string().contains("a record kind of a newer version"), "{error}");
}

#[test]
fn ranges_outside_the_entries_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    three_segments(folder.path());
    let log = open(config(folder.path())).unwrap();
    let (reader, end) = (&log.reader, log.recovery.end);
    let read = |position: u64, len: usize| reader.read(LogPosition(position), len);
    assert!(read(4096, 64).is_ok() && read(end.0 - 64, 64).is_ok() && read(end.0, 0).is_ok());
    assert!(read(4 << 20, 0).is_ok(), "where an empty payload lies that ends its segment");
    assert!(matches!(read(end.0 - 64, 65), Err(ReadError::BeyondEnd { len: 65, .. })));
    assert!(matches!(read(u64::MAX, 1), Err(ReadError::BeyondEnd { .. })));
    assert!(matches!(read(4095, 64), Err(ReadError::OutsideEntries { .. })));
    assert!(read((4 << 20) - 64, 64).is_ok());
    assert!(matches!(read((4 << 20) - 64, 65), Err(ReadError::OutsideEntries { .. })));
    assert!(matches!(reader.entry_at(LogPosition(4104)), Err(ReadError::NotAnEntry { offset: 4104, .. })));
}

#[test]
fn a_writer_may_sync_its_own_entries() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(config(folder.path())).unwrap();
    for index in 1..=20 {
        // Some entries are left to the threads, and a deferred one is covered by whoever syncs next.
        let header = records(index);
        let appended = match index % 3 {
            0 => log.appender.append(header, &[&body(index, 300_000)]).unwrap(),
            _ => log.appender.append_deferred(header, &[&body(index, 300_000)]).unwrap(),
        };
        assert_eq!(log.reader.end(), appended.end);
        let durable = log.appender.sync_here().unwrap();
        assert!(durable <= appended.end);
        wait_durable(&log.durable, appended.end);
        assert_eq!(log.appender.durable(), appended.end);
    }
    let end = log.appender.append_deferred(records(21), &[b"left to close"]).unwrap().end;
    assert_eq!(log.appender.close().unwrap(), end);
    wait_durable(&log.durable, end);
    let log = open(config(folder.path())).unwrap();
    assert_eq!((log.recovery.last_index, log.entries.len()), (21, 21));
}
