//! One log is copied to another, index by index: the files are the same, and whatever was changed on the way is refused.

use super::cutting::{segments, some_log};
use super::driver::{Run, SEGMENT, config, replica};
use super::recycled;
use crate::format::{ENTRY_HEADER_LEN, SEGMENT_HEADER_LEN, StoredHeader, StoredKind, checksum_seed};
use crate::simulated::{Image, Rng, SimDisk, SimFault};
use crate::{
    AppendError, AppendSpanError, EntryHeader, EntryKind, EntrySpan, LogConfig, LogIdentity, LogPosition, LogReader,
    ReadError, SpanError,
};

fn identity() -> LogIdentity {
    let crate::LogConfig { cluster_id, shard, segment_size, .. } = config();
    LogIdentity { cluster_id, shard, segment_size }
}

/// Every index behind the entry that ends at `from`, as it is sent. A mark that repeats an index is none of its own.
pub(super) fn spans(reader: &LogReader, from: LogPosition) -> Vec<EntrySpan> {
    let mut begins = from;
    let headers = reader.headers_from(from).map(Result::unwrap);
    let mut spans = Vec::new();
    for header in headers {
        if header.kind == EntryKind::Mark && spans.last().is_some_and(|span: &EntrySpan| span.index() == header.index) {
            continue;
        }
        let span = reader.span(begins, header.end).unwrap();
        assert_eq!((span.checkpoint(), span.index(), span.term()), (header.checkpoint(), header.index, header.term));
        assert_eq!((span.position(), span.end(), span.kind()), (header.position, header.end, header.kind));
        assert_eq!(span.entry(), reader.entry_at(header.position).unwrap());
        spans.push(span);
        begins = header.end;
    }
    spans
}

/// A log as a leader of an earlier release wrote it, who stopped now and then: marks repeat the index before them.
fn of_an_earlier_release(seed: u64) -> Run {
    let mut run = Run::with(SimDisk::new(Image::new()), &replica(), Rng::new(seed));
    while run.log.appender.appended().0 < 3 * SEGMENT {
        let len = run.length();
        run.append(EntryKind::Records, len).unwrap();
        let index = run.submitted.last().unwrap().entry.index;
        for _ in 0..run.rng.below(3) {
            run.settle();
            let header = EntryHeader { term: 1, index, leader_time_ms: 5, kind: EntryKind::Mark };
            run.log.appender.append(header, &[]).unwrap();
        }
    }
    run.append(EntryKind::Records, 10).unwrap();
    run
}

/// Copies what `leader` has behind the end of `follower`, over the wire.
fn follow(follower: &mut Run, leader: &LogReader) {
    let end = follower.log.appender.appended();
    for span in spans(leader, end) {
        let decoded = EntrySpan::decode(span.encode(), &identity()).unwrap();
        assert_eq!(decoded, span);
        assert_eq!(span.parts().concat(), span.encode());
        assert_eq!(span.encoded_len(), span.encode().len());
        let checkpoint = span.checkpoint();
        follower.append_span(&decoded).unwrap();
        assert_eq!(follower.submitted.last().unwrap().checkpoint, checkpoint);
        if follower.rng.chance(3) {
            follower.fill();
        }
        let slot = follower.rng.below(3) as usize;
        follower.step_sync(slot);
    }
}

fn files(run: &Run) -> Image {
    segments(&run.log.disk.image(), run.log.appender.appended())
}

#[test]
fn a_log_that_is_copied_index_by_index_is_the_same_to_the_byte() {
    for seed in 0..40 {
        let leader = if seed % 4 == 1 { of_an_earlier_release(seed) } else { some_log(seed) };
        let mut follower = match leader.log.reader.start().0 {
            0 => Run::with(SimDisk::new(Image::new()), &LogConfig { zero_ahead: 9 << 10, ..replica() }, Rng::new(seed)),
            // In files that were used before, and were there before the leader went on.
            _ => Run::with(SimDisk::new(recycled::in_used_files().log.disk.image()), &replica(), Rng::new(seed)),
        };
        follow(&mut follower, &leader.log.reader);
        assert_eq!(follower.log.appender.appended(), leader.log.appender.appended());
        assert!(files(&follower) == files(&leader), "seed {seed}");
        follower.settle();
        let opened = super::driver::open_disk(SimDisk::new(follower.log.disk.image()), &replica()).unwrap();
        let all: Vec<_> = leader.log.reader.entries_from(leader.log.reader.start()).map(Result::unwrap).collect();
        assert_eq!((opened.entries, opened.recovery.cut), (all, None));
    }
}

#[test]
fn a_log_that_was_cut_and_filled_by_another_leader_is_that_leaders_to_the_byte() {
    for seed in 0..6 {
        let count = some_log(seed).submitted.len();
        for kept in 1..count {
            let mut follower = some_log(seed);
            follower.cut(kept).unwrap();
            // The other leader had the same entries up to here.
            let at = follower.log.disk.fork(follower.log.disk.events());
            let mut leader = Run::with(at, &replica(), Rng::new(seed + kept as u64));
            let until = leader.log.appender.appended().0 + leader.rng.below(2 * SEGMENT) + 1;
            while leader.log.appender.appended().0 < until {
                let len = leader.length();
                leader.append_in(9, EntryKind::Records, len).unwrap();
                leader.step_sync(0);
            }
            follow(&mut follower, &leader.log.reader);
            let upto = |run: &Run| {
                // Behind the end lie, in used files, bytes of an earlier life, or zeros of a page that was taken whole.
                let (mut files, end) = (files(run), run.log.appender.appended().0);
                let last = files.values_mut().next_back().unwrap();
                last.truncate(((end - 1) % SEGMENT + 1) as usize);
                files
            };
            assert!(upto(&follower) == upto(&leader), "seed {seed}, {kept} kept");
        }
    }
}

#[test]
fn what_begins_elsewhere_or_continues_something_else_is_refused_and_nothing_is_written() {
    let leader = some_log(0);
    let all = spans(&leader.log.reader, LogPosition(0));
    let mut follower = Run::with(SimDisk::new(Image::new()), &replica(), Rng::new(1));
    for span in &all[..5] {
        follower.append_span(span).unwrap();
    }
    let (events, end) = (follower.log.disk.events(), follower.log.appender.appended());
    for wrong in [&all[4], &all[6]] {
        let error = follower.append_span(wrong).unwrap_err();
        assert!(matches!(error, AppendSpanError::Elsewhere { .. }), "{error}");
        let sentence = error.to_string();
        let named = [end.to_string(), wrong.begins().to_string(), format!("{:08x}", wrong.previous_checksum())];
        assert!(named.iter().all(|named| sentence.contains(named)), "{sentence}");
    }
    // The same place behind another entry.
    let mut other = Run::with(SimDisk::new(Image::new()), &replica(), Rng::new(1));
    for span in &all[..4] {
        other.append_span(span).unwrap();
    }
    let len = all[4].payload().len();
    other.append_in(5, EntryKind::Records, len).unwrap();
    let error = other.append_span(&all[5]).unwrap_err();
    assert!(matches!(error, AppendSpanError::Elsewhere { begins, end, .. } if begins == end), "{error}");
    let of_another = LogIdentity { shard: 9, ..identity() };
    assert!(matches!(EntrySpan::decode(all[5].encode(), &of_another), Err(SpanError::Unsound { .. })));
    let larger = LogConfig { segment_size: 2 * SEGMENT, ..replica() };
    let mut larger = Run::with(SimDisk::new(Image::new()), &larger, Rng::new(1));
    assert!(matches!(larger.append_span(&all[0]), Err(AppendSpanError::OtherLog { index: 1 })));
    assert_eq!((follower.log.disk.events(), follower.log.appender.appended()), (events, end));
    follower.append_span(&all[5]).unwrap();
}

#[test]
fn a_range_that_is_not_one_entry_is_refused() {
    let run = some_log(2);
    let reader = &run.log.reader;
    let ends: Vec<LogPosition> = run.submitted.iter().map(|submitted| submitted.entry.end).collect();
    let wrong = reader.span(ends[0], ends[2]);
    assert!(matches!(wrong, Err(ReadError::NotOneEntry { .. })), "{wrong:?}");
    let wrong = reader.span(ends[0], ends[1].plus(8));
    assert!(matches!(wrong, Err(ReadError::NotOneEntry { .. })), "{wrong:?}");
    let wrong = reader.span(ends[0].plus(8), ends[1]);
    assert!(matches!(wrong, Err(ReadError::NotAnEntry { .. })), "{wrong:?}");
    let wrong = reader.span(*ends.last().unwrap(), LogPosition::BEYOND);
    assert!(matches!(wrong, Err(ReadError::BeyondEnd { .. })), "{wrong:?}");
    // The first entry of a log, and of a segment, from wherever the segment or its entries begin.
    let first = &run.submitted[0].entry;
    for from in [LogPosition(0), LogPosition(SEGMENT_HEADER_LEN)] {
        assert_eq!(reader.span(from, first.end).unwrap().entry(), *first);
    }
}

#[test]
fn headers_tell_where_entries_lie_and_read_nothing_else() {
    let run = some_log(4);
    let read = run.log.disk.bytes_read();
    let headers: Vec<_> = run.log.reader.headers_from(LogPosition(0)).map(Result::unwrap).collect();
    let read = run.log.disk.bytes_read() - read;
    assert!(read <= (headers.len() as u64 + 4) * ENTRY_HEADER_LEN, "{read} bytes of {} headers", headers.len());
    assert_eq!(headers.len(), run.submitted.len());
    for (header, submitted) in headers.iter().zip(&run.submitted) {
        let entry = &submitted.entry;
        assert_eq!(header.checkpoint(), submitted.checkpoint);
        assert_eq!(
            (header.position, header.leader_time_ms, header.kind),
            (entry.position, entry.leader_time_ms, entry.kind)
        );
        assert_eq!(header.payload_len as usize, entry.payload.len());
    }
    let middle = run.submitted[5].entry.end;
    assert!(run.log.reader.headers_from(middle).map(Result::unwrap).eq(headers[6..].iter().copied()));
    let mut wrong = run.log.reader.headers_from(middle.plus(8));
    assert!(matches!(wrong.next(), Some(Err(ReadError::NotAnEntry { .. }))) && wrong.next().is_none());
}

/// Whatever is refused for want of space leaves nothing behind, not even the filler that would lead to the next segment.
#[test]
fn what_there_is_no_space_for_is_refused_as_a_whole() {
    let mut refused_at_an_end = 0;
    for seed in 0..60 {
        let leader = some_log(seed * 2);
        let mut follower = Run::with(SimDisk::new(Image::new()), &replica(), Rng::new(seed));
        let all = spans(&leader.log.reader, LogPosition(0));
        let short_at = follower.rng.below(all.len() as u64) as usize;
        for (number, span) in all.iter().enumerate() {
            if number >= short_at && follower.rng.chance(2) {
                let fault =
                    [SimFault::NoSpace, SimFault::Descriptors, SimFault::Memory][follower.rng.below(3) as usize];
                follower.log.disk.inject(fault);
            }
            let end = follower.log.appender.appended();
            match follower.append_span(span) {
                Ok(()) => {}
                Err(AppendSpanError::Append(AppendError::Short { .. })) => {
                    let at_an_end = span.begins().0 / SEGMENT != span.position().0 / SEGMENT;
                    refused_at_an_end += u32::from(at_an_end);
                    assert!(follower.log.appender.appended() == end || end.0.is_multiple_of(SEGMENT), "seed {seed}");
                    follower.log.disk.clear_faults();
                    follower.append_span(span).unwrap();
                }
                Err(error) => panic!("seed {seed}: {error}"),
            }
            follower.log.disk.clear_faults();
        }
        assert!(files(&follower) == files(&leader), "seed {seed}");
    }
    assert!(refused_at_an_end > 5, "{refused_at_an_end}");
}

/// A span with a filler and marks in front of its entry.
fn with_all_there_can_be() -> EntrySpan {
    let has_all = |span: &EntrySpan| {
        let kinds = span.begins().0 / SEGMENT != span.position().0 / SEGMENT && span.encoded_len() > 3 * 64;
        kinds && (1..200).contains(&span.payload().len())
    };
    let found = (0..200)
        .find_map(|seed| spans(&of_an_earlier_release(seed).log.reader, LogPosition(0)).into_iter().find(has_all));
    found.expect("some log has one")
}

#[test]
fn what_was_changed_or_cut_short_on_the_way_is_refused() {
    let span = with_all_there_can_be();
    let sound = span.encode();
    assert_eq!(EntrySpan::decode(sound.clone(), &identity()).unwrap(), span);
    for len in 0..sound.len() {
        assert!(EntrySpan::decode(sound.slice(..len), &identity()).is_err(), "{len} bytes");
    }
    for bit in 0..sound.len() * 8 {
        let mut bytes = sound.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(EntrySpan::decode(bytes.into(), &identity()).is_err(), "bit {bit}");
    }
    let longer = [&sound[..], &[0]].concat();
    assert!(matches!(EntrySpan::decode(longer.into(), &identity()), Err(SpanError::Length { .. })));
    // A part that was left out, and one that comes twice: each header for itself is sound.
    let without = [&sound[..64], &sound[128..]].concat();
    assert!(EntrySpan::decode(without.into(), &identity()).is_err());
    let twice = [&sound[..64], &sound[..]].concat();
    assert!(EntrySpan::decode(twice.into(), &identity()).is_err());
}

/// Any number, and often one at the edge of what fits.
fn number(rng: &mut Rng) -> u64 {
    match rng.below(6) {
        0 => rng.below(3),
        1 => u64::MAX - rng.below(3),
        2 => u64::MAX / 2 - rng.below(100),
        3 => rng.below(8) * SEGMENT + SEGMENT_HEADER_LEN,
        4 => (rng.below(8) + 1) * SEGMENT - ENTRY_HEADER_LEN * rng.below(3),
        _ => rng.next(),
    }
}

/// Headers that say anything, under checksums that hold: an answer, and nothing that could not lie in a log.
#[test]
fn whatever_sound_headers_say_is_answered() {
    let seed = checksum_seed(&identity().cluster_id, identity().shard);
    let mut taken = 0;
    println!("seeds 0 to 60000");
    for round in 0..60_000 {
        let mut rng = Rng::new(round);
        let (mut bytes, mut at, mut previous) = (Vec::new(), number(&mut rng), rng.next() as u32);
        for piece in 0..1 + rng.below(4) {
            let kinds = [StoredKind::Entry(EntryKind::Records), StoredKind::Entry(EntryKind::Mark), StoredKind::Filler];
            let kind = kinds[rng.below(3) as usize];
            let room = (SEGMENT - at % SEGMENT).saturating_sub(ENTRY_HEADER_LEN);
            let payload_len = match (rng.below(4), kind) {
                (0, _) => number(&mut rng) as u32,
                (_, StoredKind::Entry(EntryKind::Mark)) => 0,
                (1, StoredKind::Entry(EntryKind::Records)) => rng.below(50) as u32,
                _ => room as u32,
            };
            let header = StoredHeader {
                kind,
                payload_len,
                previous: if rng.chance(9) { rng.next() as u32 } else { previous },
                term: number(&mut rng),
                index: if rng.chance(9) { number(&mut rng) } else { 7 + piece },
                position: at,
                durable_mark: rng.below(at.max(1)),
                leader_time_ms: number(&mut rng),
            };
            let payload = vec![0; if payload_len < 20_000 { payload_len as usize } else { 0 }];
            let (head, checksum) = header.encode(seed, &[&payload]);
            bytes.extend(head);
            if kind == StoredKind::Entry(EntryKind::Records) {
                bytes.extend(&payload);
            }
            previous = checksum;
            let end = at.saturating_add(ENTRY_HEADER_LEN + u64::from(payload_len).next_multiple_of(8));
            at = if end.is_multiple_of(SEGMENT) { end.saturating_add(SEGMENT_HEADER_LEN) } else { end };
            at = if rng.chance(9) { number(&mut rng) } else { at };
        }
        let Ok(span) = EntrySpan::decode(bytes.clone().into(), &identity()) else { continue };
        taken += 1;
        assert_eq!(span.encode(), bytes, "seed {round}");
        let (begins, position, end) = (span.begins().0, span.position().0, span.end().0);
        assert!(begins <= position && begins % SEGMENT >= SEGMENT_HEADER_LEN, "seed {round}");
        assert!(position % SEGMENT >= SEGMENT_HEADER_LEN && (end - 1) / SEGMENT == position / SEGMENT, "seed {round}");
    }
    assert!(taken > 1000, "{taken}");
}
