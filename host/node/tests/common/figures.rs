//! What programs that take figures have in common: processor time, calls by how long they took, components in several languages.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use vouch_node::{DURATION_BOUNDS, DurationCounts};

/// Processor time of this process until now.
pub(crate) fn used() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // Fields 14 and 15, in hundredths of a second; the two before these are gone with the name.
    Duration::from_millis((fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10)
}

/// How long half of the calls took at most, as far as their counts tell.
pub(crate) fn median(calls: &DurationCounts) -> String {
    let all: u64 = calls.buckets.iter().sum();
    let mut below = 0;
    let median = calls.buckets.iter().position(|bucket| {
        below += bucket;
        below * 2 >= all
    });
    median.and_then(|bucket| DURATION_BOUNDS.get(bucket)).map_or("longer".to_owned(), |at| format!("≤ {at:?}"))
}

/// Components that say yes to everything, by the language that they are written in: those that `tests/languages/build` made in the
/// folder that `VOUCH_FIGURES_LANGUAGES` names.
pub(crate) fn languages() -> Vec<(&'static str, Bytes)> {
    let Ok(folder) = std::env::var("VOUCH_FIGURES_LANGUAGES") else { return Vec::new() };
    let names = [("Rust", "rust"), ("C", "c"), ("JavaScript", "javascript"), ("Python", "python")];
    let read = |file: &str| std::fs::read(Path::new(&folder).join(format!("{file}.wasm")));
    names.into_iter().filter_map(|(name, file)| Some((name, read(file).ok()?.into()))).collect()
}
