//! What a table of what happened lately remembers, and what of it lies in parts.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
struct At(u64, u32);

impl Happened for At {
    const OF: Of = Of::Sent;

    fn at(&self) -> Millis {
        Millis(self.0)
    }

    fn to_bytes(self, key: u64) -> EntryBytes {
        let mut bytes = [0; _];
        bytes[..8].copy_from_slice(&key.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.1.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &EntryBytes) -> Result<(u64, Self), DecodeError> {
        let mut r = Reader(bytes);
        Ok((r.u64("key")?, At(r.u64("at")?, r.u32("number")?)))
    }
}

static NO_LEAPS: Leaps = Leaps::none();

fn at(ms: u64) -> Now<'static> {
    Now::new(Millis(ms), &NO_LEAPS)
}

#[test]
fn an_entry_is_remembered_to_the_end_of_its_window_and_not_longer() {
    let mut recent = Recent::new(10, 100);
    recent.put(1, At(1000, 1), &NO_LEAPS);
    assert!(recent.get(1, at(1100)).is_some() && recent.get(1, at(1101)).is_none());
    recent.put(2, At(1100, 2), &NO_LEAPS);
    assert_eq!(recent.len(), 2);
    recent.put(3, At(1101, 3), &NO_LEAPS);
    assert_eq!(recent.iter().map(|(key, _)| key).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn the_oldest_goes_when_there_are_too_many() {
    let mut recent = Recent::new(3, 100);
    (1..=4).for_each(|key| recent.put(key, At(7, key as u32), &NO_LEAPS));
    assert_eq!(recent.len(), 3);
    assert!(recent.latest(1).is_none() && (2..=4).all(|key| recent.latest(key).is_some()));
    assert!(recent.entries.capacity() <= 16);
}

#[test]
fn a_key_that_comes_again_is_found_by_its_latest_entry_when_the_first_goes() {
    let mut recent = Recent::new(2, 100);
    recent.put(1, At(5, 10), &NO_LEAPS);
    recent.put(1, At(5, 11), &NO_LEAPS);
    recent.put(2, At(5, 20), &NO_LEAPS);
    assert_eq!((recent.latest(1), recent.latest(2)), (Some(&At(5, 11)), Some(&At(5, 20))));
    recent.put(3, At(5, 30), &NO_LEAPS);
    assert_eq!(recent.latest(1), None);
}

#[test]
fn a_table_is_read_with_all_its_parts_in_order_or_not_at_all() {
    let mut recent = Recent::new(10, 100);
    let mut parts = Vec::new();
    for id in 1..=3 {
        recent.put(id, At(id, 1), &NO_LEAPS);
        let mut out = PartWriter::new(id, 1, RECENT_ENTRY_LEN);
        recent.write_row(&mut out);
        parts.push(out.finish());
        recent.seal(id, parts[id as usize - 1].row(Of::Sent).unwrap());
    }
    let mut bytes = Vec::new();
    recent.write(&mut Writer(&mut bytes));
    let read = |parts: &[Part]| {
        let mut read = Recent::<At>::new(10, 100);
        let all = read.read(&mut Reader(&bytes), &SectionSource { version: 2, parts, whole: true }).is_ok();
        assert!(!all || (read.iter().eq(recent.iter()) && read.unsealed() == 0));
        all
    };
    assert!(read(&parts) && !read(&[]) && !read(&parts[..2]) && !read(&parts[1..]));
    parts.swap(0, 1);
    assert!(!read(&parts));
}

proptest! {
    /// Against a plain list, with few keys so that they come again often; somewhere it is written and read back.
    #[test]
    fn it_says_what_a_list_says(puts in proptest::collection::vec((0u64..40, 0u64..30), 1..400)) {
        let mut recent = Recent::new(50, 300);
        recent.first = u64::from(u32::MAX) - 60;
        let mut list: Vec<(u64, At)> = Vec::new();
        let mut now = 0;
        for (n, (key, pause)) in puts.into_iter().enumerate() {
            now += pause;
            let value = At(now, n as u32);
            recent.put(key, value, &NO_LEAPS);
            list.retain(|(_, old)| now - old.0 <= 300);
            if list.len() == 50 {
                list.remove(0);
            }
            list.push((key, value));
            prop_assert!(recent.iter().eq(list.iter().map(|(key, value)| (*key, value))));
            for key in 0..40 {
                let expected = list.iter().rev().find(|(k, _)| *k == key).map(|(_, value)| value);
                prop_assert_eq!(recent.latest(key), expected);
            }
        }
    }
}
