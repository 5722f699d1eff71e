//! The encoding of records: what lies in the log for ever.

mod golden;
mod hostile;
mod round_trip;
pub(crate) mod samples;

use std::collections::BTreeSet;

/// Asserts that a row of a document tells from which feature levels on these versions are written: *From level N*, of all but the
/// first level.
pub(crate) fn says_levels(row: &str, levels: impl Iterator<Item = u32>) {
    let number = |rest: &str| rest.split(|digit: char| !digit.is_ascii_digit()).next().unwrap().parse().unwrap();
    let said: BTreeSet<u32> = row.split("rom level ").skip(1).map(number).collect();
    let levels: BTreeSet<u32> = levels.filter(|level| *level > 1).collect();
    assert_eq!(said, levels, "the row is to say `From level` with each of the latter: {row}");
}
