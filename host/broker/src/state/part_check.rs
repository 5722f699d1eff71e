//! Whether a copy of a part is as it was written, and what two damaged copies give together.

use std::io;

use bytes::Bytes;

use super::fault::PartError;
use super::part::{HEAD_LEN, Part, Row, read_table, table_end};

/// Bytes of entries that are read at once.
const STEP: usize = 256 << 10;

/// Compares a part of `len` bytes with all its checksums, reading it once from its beginning to its end. `named`: the
/// checksum by which a snapshot knows it.
///
/// # Errors
///
/// The first thing in it that does not hold; [`PartError::Io`] where `read` fails.
pub fn check_part(
    id: u64,
    named: u32,
    len: u64,
    read: &mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> Result<(), PartError> {
    let mut read = |at: usize, into: &mut [u8]| read(at as u64, into).map_err(|error| PartError::io(&error));
    let mut table = vec![0; HEAD_LEN.min(usize::try_from(len).unwrap_or(HEAD_LEN))];
    read(0, &mut table)?;
    // Not longer than the part, whatever the head says.
    let end = table_end(&table, len)?;
    table.resize(end, 0);
    read(HEAD_LEN, &mut table[HEAD_LEN..])?;
    let (found, rows) = read_table(id, &table, usize::try_from(len).unwrap_or(usize::MAX))?;
    if found != named {
        return Err(PartError::Other { named, found });
    }
    let mut buffer = vec![0; STEP];
    for Row { data, checksum, .. } in rows {
        let (mut at, mut computed) = (data.start, 0);
        while at < data.end {
            let step = STEP.min(data.end - at);
            read(at, &mut buffer[..step])?;
            computed = crc32c::crc32c_append(computed, &buffer[..step]);
            at += step;
        }
        if computed != checksum {
            return Err(PartError::Checksum { what: "entries", found: checksum, computed });
        }
    }
    Ok(())
}

/// A whole part out of two damaged copies: head and table of one of them, and what each has whole of the entries. `None` if
/// something is damaged in both.
pub fn merge_part(id: u64, named: u32, copies: [&Bytes; 2]) -> Option<Vec<u8>> {
    let is_named = |bytes: &Bytes| Part::open(id, bytes.clone()).ok().filter(|part| part.checksum == named);
    let part = copies.into_iter().find_map(is_named)?;
    let mut merged = part.bytes().to_vec();
    for row in &part.rows {
        merged[row.data.clone()].copy_from_slice(&whole_row(row, copies)?);
    }
    Some(merged)
}

/// What a disk loses at once.
const BLOCK: usize = 512;
/// Blocks in which two copies of a row may differ so that it is tried what they give together: more would be tried too
/// often, and too many guesses would meet a checksum by chance.
const DIFFERING_MAX: usize = 8;

/// The entries of a row as they were written, from one copy or from blocks of both.
pub(super) fn whole_row(row: &Row, copies: [&Bytes; 2]) -> Option<Bytes> {
    let [first, second] = copies.map(|bytes| (row.data.end <= bytes.len()).then(|| bytes.slice(row.data.clone())));
    let both = first.clone().zip(second.clone());
    if let Some(whole) = first.into_iter().chain(second).find(|entries| row.is_written(entries)) {
        return Some(whole);
    }
    let (first, second) = both?;
    let blocks = (0..).step_by(BLOCK).zip(first.chunks(BLOCK).zip(second.chunks(BLOCK)));
    let differing: Vec<usize> = blocks.filter(|(_, (a, b))| a != b).map(|(at, _)| at).collect();
    if differing.len() > DIFFERING_MAX {
        return None;
    }
    let mut mixed = first.to_vec();
    (1..1_u32 << differing.len()).find_map(|choice| {
        for (n, at) in differing.iter().enumerate() {
            let from = if choice >> n & 1 == 0 { &first } else { &second };
            let block = *at..(at + BLOCK).min(mixed.len());
            mixed[block.clone()].copy_from_slice(&from[block]);
        }
        row.is_written(&mixed).then(|| Bytes::copy_from_slice(&mixed))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::PartView;
    use crate::testing::RecordLog;

    fn part() -> (Bytes, u32) {
        let mut log = RecordLog::new();
        let (a, b) = (log.topic("a", 1), log.topic("b", 1));
        for _ in 0..5 {
            log.send(a, 0, None);
            log.send(b, 0, None);
        }
        let part = log.state.seal(1_000_000).unwrap();
        let checksum = PartView::open(1_000_000, part.clone()).unwrap().checksum();
        (part, checksum)
    }

    fn check(bytes: &[u8], named: u32) -> Result<(), PartError> {
        check_part(1_000_000, named, bytes.len() as u64, &mut |at, into| {
            into.copy_from_slice(&bytes[at as usize..][..into.len()]);
            Ok(())
        })
    }

    #[test]
    fn each_byte_that_differs_is_found_and_each_length() {
        let (part, named) = part();
        check(&part, named).unwrap();
        assert!(matches!(check(&part, named ^ 1), Err(PartError::Other { .. })));
        for at in 0..part.len() {
            let mut bytes = part.to_vec();
            bytes[at] ^= 1;
            assert!(check(&bytes, named).is_err(), "byte {at}");
            assert!(check(&part[..at], named).is_err(), "cut at {at}");
        }
        assert!(check(&[&part[..], b"x"].concat(), named).is_err());
    }

    #[test]
    fn two_copies_give_a_whole_one_unless_the_same_row_is_damaged_in_both() {
        let (part, named) = part();
        let damaged = |at: usize| {
            let mut bytes = part.to_vec();
            bytes[at] ^= 1;
            Bytes::from(bytes)
        };
        let (table, first, last) = (damaged(41), damaged(part.len() - 17), damaged(part.len() - 1));
        let merged = |a: &Bytes, b: &Bytes| merge_part(1_000_000, named, [a, b]).map(Bytes::from);
        assert_eq!(
            merged(&table, &last),
            Some(part.clone()),
            "the table of one says which rows of the other are whole"
        );
        assert_eq!(merged(&first, &last), Some(part.clone()), "marks of two topics");
        assert_eq!(merged(&last, &last), None);
        assert_eq!(merged(&last, &part.slice(..part.len() - 16)), None);
        assert_eq!(merged(&last, &part.slice(..100)), None);
        assert_eq!(
            merged(&first, &part.slice(..part.len() - 16)),
            Some(part.clone()),
            "cut behind what the other lost"
        );
    }
}
