//! The log against a model: a list of entries, the first `durable` of which survive anything.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::driver::{Run, open};
use crate::format::{SegmentHeader, StoredHeader};
use crate::simulated::{Image, LOSSES, Rng};
use crate::{EntryKind, LogPosition, ReadError};

#[derive(Clone, Debug)]
enum Op {
    Append(usize),
    Mark,
    Settle,
    Sync(usize),
    Kill,
    PowerCut(u64, usize),
    Release(u16),
    Read(u16, u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0usize..4000).prop_map(Op::Append),
        1 => Just(Op::Mark),
        1 => Just(Op::Settle),
        4 => (0usize..3).prop_map(Op::Sync),
        1 => Just(Op::Kill),
        1 => (any::<u64>(), 0usize..4).prop_map(|(seed, loss)| Op::PowerCut(seed, loss)),
        2 => any::<u16>().prop_map(Op::Release),
        4 => (any::<u16>(), any::<u16>()).prop_map(|(entry, len)| Op::Read(entry, len)),
    ]
}

fn read_like_the_model(run: &Run, entry: u16, len: u16) {
    let Some(last) = run.submitted.len().checked_sub(1) else { return };
    let entry = &run.submitted[usize::from(entry) % (last + 1)].entry;
    let len = usize::from(len) % (entry.payload.len() + 1);
    let from = entry.payload.len() - len;
    let position = LogPosition(entry.payload_position.0 + from as u64);
    assert_eq!(run.log.reader.read(position, len).unwrap(), entry.payload[from..]);
    assert_eq!(run.log.reader.entry_at(entry.position).unwrap(), *entry);
    let end = run.log.reader.end();
    let beyond = run.log.reader.read(position, (end.0 - position.0) as usize + 1);
    assert!(matches!(beyond, Err(ReadError::BeyondEnd { .. })), "{beyond:?}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x5EED),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_log_behaves_like_a_list(ops in proptest::collection::vec(op(), 1..60)) {
        let mut run = Run::new(Image::new(), Rng::new(0));
        for op in ops {
            match op {
                Op::Append(len) => run.append(EntryKind::Records, len).unwrap(),
                Op::Mark => run.append(EntryKind::Mark, 0).unwrap(),
                Op::Settle => run.settle(),
                Op::Sync(slot) => run.step_sync(slot),
                Op::Read(entry, len) => read_like_the_model(&run, entry, len),
                Op::Release(entry) => {
                    // What is released leaves the model, too.
                    let durable = run.log.appender.durable();
                    let covered = run.submitted.iter().filter(|submitted| submitted.entry.end <= durable).count();
                    if covered > 0 {
                        let before = run.submitted[usize::from(entry) % covered].entry.position;
                        let released = run.log.appender.housekeeping().release_before(before).unwrap();
                        prop_assert!(released.start <= before);
                        run.submitted.retain(|submitted| submitted.entry.position >= released.start);
                    }
                }
                Op::Kill => {
                    let before = run.submitted.clone();
                    run = Run::new(run.log.disk.image(), Rng::new(0));
                    prop_assert_eq!(run.submitted.len(), before.len(), "a killed process loses nothing");
                }
                Op::PowerCut(seed, loss) => {
                    let before = run.submitted.clone();
                    let durable = run.log.appender.durable();
                    let disk = &run.log.disk;
                    let image = disk.after_power_cut(disk.events(), LOSSES[loss], &mut Rng::new(seed));
                    run = Run::new(image, Rng::new(0));
                    prop_assert!(run.submitted.len() <= before.len());
                    prop_assert!(before.get(run.submitted.len()).is_none_or(|lost| lost.entry.end > durable));
                    for (now, before) in run.submitted.iter().zip(&before) {
                        prop_assert_eq!(&now.entry, &before.entry);
                    }
                }
            }
        }
        let expected: Vec<_> = run.submitted.iter().map(|submitted| submitted.entry.clone()).collect();
        let read: Vec<_> = run.log.reader.entries_from(run.log.reader.start()).map(Result::unwrap).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn decoders_take_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 4096), seed: u32, position: u64) {
        let mut header = [0; 64];
        header.copy_from_slice(&bytes[..64]);
        prop_assert!(StoredHeader::decode(seed, &header, position).is_err());
        prop_assert!(SegmentHeader::decode(&bytes).is_err());
        prop_assert!(SegmentHeader::decode(&bytes[..100]).is_err());
    }

    /// Whatever is in the files: an answer, not a crash, and nothing handed over that was not appended.
    #[test]
    fn recovery_takes_any_files(
        patches in proptest::collection::vec((0usize..2, 0usize..16384, proptest::collection::vec(any::<u8>(), 1..200)), 0..6),
        sizes in (0usize..20000, 0usize..20000), resize: bool,
    ) {
        let mut run = Run::new(Image::new(), Rng::new(0));
        for _ in 0..14 {
            run.append(EntryKind::Records, 1500).unwrap();
        }
        run.settle();
        let mut image = run.log.disk.image();
        for (file, at, bytes) in patches {
            let target = image.values_mut().nth(file).unwrap();
            let end = (at + bytes.len()).min(target.len());
            target[at..end].copy_from_slice(&bytes[..end - at]);
        }
        if resize {
            for (file, size) in image.values_mut().zip([sizes.0, sizes.1]) {
                file.resize(size, 0);
            }
        }
        if let Ok(opened) = open(image) {
            for (found, submitted) in opened.entries.iter().zip(&run.submitted) {
                prop_assert_eq!(found, &submitted.entry);
            }
        }
    }
}
