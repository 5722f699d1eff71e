//! One flipped bit anywhere below the durable mark is refused, with segment and position; none is ever served.

use super::driver::{Run, SEGMENT, open};
use crate::segment::parse_file_name;
use crate::simulated::{Image, Rng};
use crate::{Entry, EntryKind, OpenError};

fn closed_log(rng: &mut Rng) -> (Image, Vec<Entry>, u64) {
    let mut run = Run::new(Image::new(), Rng::new(rng.next()));
    while run.log.appender.appended().0 < SEGMENT + SEGMENT / 2 {
        let len = run.length();
        run.append(EntryKind::Records, len).unwrap();
        run.settle();
    }
    let end = run.log.appender.appended().0;
    let entries = run.submitted.iter().map(|submitted| submitted.entry.clone()).collect();
    (run.close(), entries, end)
}

/// Whether the refusal names the flipped byte: the file, and a place at or before it, within an entry's reach.
fn names(error: &OpenError, flipped: u64) -> bool {
    let OpenError::Damaged { file, offset, position, .. } = error else { return false };
    let start = parse_file_name(file.file_name().unwrap().to_str().unwrap()).unwrap();
    start + offset == position.0 && position.0 <= flipped && start == flipped / SEGMENT * SEGMENT
}

/// Flips one bit of every byte, one at a time.
pub(super) fn violation(seed: u64) -> Option<String> {
    let mut rng = Rng::new(seed);
    let (image, entries, mark) = closed_log(&mut rng);
    assert!(image.len() >= 2);
    for (name, bytes) in &image {
        let start = parse_file_name(name).unwrap();
        // Every byte that holds something, and some of the zeros behind the end.
        let holds = (mark + 64).saturating_sub(start).clamp(4096, bytes.len() as u64) as usize;
        for at in (0..holds).chain((holds..bytes.len()).step_by(101)) {
            let mut damaged = image.clone();
            damaged.get_mut(name).unwrap()[at] ^= 1 << rng.below(8);
            let position = start + at as u64;
            let outcome = open(damaged);
            // A segment's header is durable before its first entry is written.
            let below = position < mark || at < 4096 && start <= mark;
            let right = match &outcome {
                Err(error) => below && names(error, position),
                // Above the mark only the mark itself may go.
                Ok(opened) => !below && opened.entries[..entries.len()] == entries,
            };
            if !right {
                let outcome = outcome.map(|opened| opened.recovery);
                return Some(format!("seed {seed}: a flip at {position}, mark {mark}, gave {outcome:?}"));
            }
        }
    }
    None
}

#[test]
fn a_flipped_bit_below_the_mark_is_refused() {
    // A log that ends inside a segment, so that the closing mark shares one with entries it covers.
    if let Some(violation) = violation(11) {
        panic!("{violation}");
    }
}

#[test]
fn a_damaged_entry_is_not_read() {
    let mut run = Run::new(Image::new(), Rng::new(5));
    for _ in 0..3 {
        run.append(EntryKind::Records, 200).unwrap();
    }
    run.settle();
    let positions: Vec<_> = run.submitted.iter().map(|submitted| submitted.entry.position).collect();
    let log = open(run.close()).unwrap();
    log.disk.flip(0, positions[1].0 as usize + 100);
    let read: Vec<_> = log.reader.entries_from(positions[0]).collect();
    assert_eq!(read.len(), 2, "the iterator ends with the error");
    assert!(read[0].is_ok());
    let error = read[1].as_ref().unwrap_err().to_string();
    assert!(error.contains("00000000000000000000.log") && error.contains(&positions[1].0.to_string()), "{error}");
    assert!(log.reader.entry_at(positions[2]).is_ok());
}
