//! The index of a queue, in parts and in memory, against a plain list.

use proptest::prelude::*;

use crate::record::codec::{Reader, Writer};
use crate::state::IndexEntry;
use crate::state::part::{Of, Part, PartWriter};
use crate::state::queue::QueueIndex;
use crate::{QueueOffset, RecordPosition, TagHash, TopicId};

const OF: Of = Of::Queue(TopicId(1), 0);

fn entry(position: u64) -> IndexEntry {
    IndexEntry { position: RecordPosition(position), tag: TagHash(position.wrapping_mul(0x9e37_79b9_7f4a_7c15)) }
}

/// Seals the tail, if there is one.
fn seal(index: &QueueIndex, id: u64) -> Option<Part> {
    let unsealed = index.unsealed();
    (unsealed > 0).then(|| {
        let mut out = PartWriter::new(id, 1, unsealed * 16);
        index.write_row(OF, &mut out);
        let bytes = out.finish().bytes();
        assert_eq!(bytes.len(), 40 + 56 + unsealed * 16);
        Part::open(id, bytes).unwrap()
    })
}

fn read_back(index: &QueueIndex, parts: &[Part]) -> QueueIndex {
    let mut bytes = Vec::new();
    index.write(&mut Writer(&mut bytes));
    let mut r = Reader(&bytes);
    let mut read = QueueIndex::read(&mut r).map_err(|_| "unreadable").unwrap();
    read.read_moved(&mut r).unwrap();
    r.end().unwrap();
    parts.iter().for_each(|part| read.attach(part, part.row(OF).unwrap(), true).unwrap());
    read.check_attached().unwrap();
    assert!(read.parts().eq(index.parts()));
    read
}

/// `list`: where each record lies now, and where it lay at first.
fn assert_is(index: &QueueIndex, start: u64, list: &[(u64, u64)]) {
    let end = list.len() as u64;
    assert_eq!((index.start(), index.end()), (QueueOffset(start), QueueOffset(end)));
    for offset in 0..end + 2 {
        let expected = list
            .get(offset as usize)
            .filter(|_| offset >= start)
            .map(|(position, first)| IndexEntry { position: RecordPosition(*position), ..entry(*first) });
        assert_eq!(index.get(QueueOffset(offset)), expected, "offset {offset} of {start}..{end}");
        let from = list.iter().skip(offset.max(start) as usize).map(|(position, _)| position);
        assert_eq!(
            index.lowest_position_from(QueueOffset(offset)),
            from.min().copied().map(RecordPosition),
            "from {offset} of {start}..{end}"
        );
    }
    let kept = (0..)
        .zip(list)
        .skip(start as usize)
        .map(|(offset, (position, _))| (QueueOffset(offset), RecordPosition(*position)));
    let expected: Vec<_> = kept.filter(|(_, position)| (20..60).contains(&position.0)).collect();
    assert_eq!(
        index.offsets_in(&(RecordPosition(20)..RecordPosition(60)), QueueOffset(0), &mut 1000),
        (expected.clone(), None)
    );
    let (mut stepped, mut from) = (Vec::new(), Some(QueueOffset(0)));
    while let Some(at) = from {
        let (more, next) = index.offsets_in(&(RecordPosition(20)..RecordPosition(60)), at, &mut 3);
        stepped.extend(more);
        from = next;
    }
    assert_eq!(stepped, expected, "in steps");
    assert_eq!(index.get(QueueOffset(u64::MAX)).or(index.get(QueueOffset(u64::MAX - 1))), None);
    assert_eq!(index.lowest_position_from(QueueOffset(u64::MAX)), None);
}

proptest! {
    #[test]
    fn an_index_says_what_a_list_says_wherever_its_entries_lie(
        steps in proptest::collection::vec((0u8..9, 0u64..100), 1..60),
    ) {
        let (mut index, mut list, mut start, mut parts) = (QueueIndex::default(), Vec::new(), 0, Vec::new());
        // Adopts what the other one seals, later.
        let (mut follower, mut sealed) = (QueueIndex::default(), 0);
        for (n, (what, a)) in (1..).zip(steps) {
            match what {
                0..=3 => for more in 0..a % 7 {
                    let position = a + more;
                    prop_assert_eq!(index.append(entry(position)), QueueOffset(list.len() as u64));
                    follower.append(entry(position));
                    list.push((position, position));
                },
                4 | 5 => parts.extend(seal(&index, n).inspect(|part| index.seal(part, part.row(OF).unwrap()))),
                6 => {
                    start = start.max(a * list.len() as u64 / 100);
                    index.drop_below(QueueOffset(start));
                    follower.drop_below(QueueOffset(start));
                }
                7 => {
                    let offset = a % (list.len() as u64 + 1);
                    index.carry(QueueOffset(offset), RecordPosition(2 * a));
                    follower.carry(QueueOffset(offset), RecordPosition(2 * a));
                    if offset >= start && let Some((position, _)) = list.get_mut(offset as usize) {
                        *position = 2 * a;
                    }
                }
                _ => {
                    for part in &parts[sealed..] {
                        let row = part.row(OF).unwrap();
                        prop_assert_eq!(follower.fits(row, &part.entries(row)), Ok(()));
                        follower.seal(part, row);
                    }
                    sealed = parts.len();
                    index = read_back(&index, &parts);
                }
            }
            assert_is(&index, start, &list);
            assert_is(&follower, start, &list);
        }
        assert_is(&read_back(&follower, &parts[..sealed]), start, &list);
    }
}

#[test]
fn a_row_whose_bounds_are_not_those_of_its_entries_does_not_fit() {
    let mut index = QueueIndex::default();
    for position in [30, 10, 20] {
        index.append(entry(position));
    }
    let part = seal(&index, 1).unwrap();
    let row = part.row(OF).unwrap();
    assert_eq!((row.lowest.0, row.highest.0), (10, 30));
    assert_eq!(index.fits(row, &part.entries(row)), Ok(()));
    for (lowest, highest) in [(9, 30), (10, 31)] {
        let mut other = row.clone();
        (other.lowest, other.highest) = (RecordPosition(lowest), RecordPosition(highest));
        assert!(index.fits(&other, &part.entries(row)).is_err());
    }
}

#[test]
fn an_index_is_read_with_all_its_parts_in_order_or_not_at_all() {
    let mut index = QueueIndex::default();
    let mut parts = Vec::new();
    for id in 1..=3 {
        index.append(entry(id));
        parts.extend(seal(&index, id).inspect(|part| index.seal(part, part.row(OF).unwrap())));
    }
    let mut bytes = Vec::new();
    index.write(&mut Writer(&mut bytes));
    let read = |order: &[usize]| {
        let mut read = QueueIndex::read(&mut Reader(&bytes)).map_err(|_| "unreadable").unwrap();
        let attach = |part: &Part| read.attach(part, part.row(OF).unwrap(), true).is_ok();
        order.iter().map(|at| &parts[*at]).all(attach) && read.check_attached().is_ok()
    };
    assert!(read(&[0, 1, 2]));
    for order in [&[][..], &[0], &[0, 1], &[0, 2], &[1, 2], &[0, 2, 1], &[0, 0, 1, 2]] {
        assert!(!read(order), "{order:?}");
    }
    // A tail that begins before a part ends.
    let mut shorter = QueueIndex::default();
    shorter.append(entry(1));
    let mut bytes = Vec::new();
    shorter.write(&mut Writer(&mut bytes));
    let mut read = QueueIndex::read(&mut Reader(&bytes)).map_err(|_| "unreadable").unwrap();
    assert!(read.attach(&parts[0], parts[0].row(OF).unwrap(), true).is_err());
}
