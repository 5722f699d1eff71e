//! Snapshots: what is read can be written and read again, and then no byte changes any more.
#![no_main]

use std::io;
use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use vouch_broker::state::SnapshotError;
use vouch_broker::testing::snapshot_fixtures;
use vouch_broker::{RecordPosition, State};
use vouch_fuzz::{repair_snapshot, within_memory};

/// Memory per byte of a snapshot: a topic of a few bytes has queues and tables.
const FACTOR: usize = 512;

/// The parts of the snapshots that are kept as fixtures, which the seeds of this target are.
static PARTS: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    let fixtures = snapshot_fixtures().into_iter();
    let mut parts: Vec<Bytes> = fixtures.flat_map(|fixture| fixture.parts.0.into_values()).collect();
    parts.sort();
    parts.dedup();
    parts
});

fn read(bytes: &[u8], part: &Bytes) -> Result<(RecordPosition, State), SnapshotError> {
    State::from_snapshot(bytes, &mut |id| match id {
        4711 => Ok(part.clone()),
        _ => Err(io::ErrorKind::NotFound.into()),
    })
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    repair_snapshot(&mut bytes);
    for part in PARTS.iter() {
        let Ok((position, state)) = within_memory(bytes.len() + part.len(), FACTOR, || read(&bytes, part)) else {
            continue;
        };
        let written = state.snapshot(position);
        let (again, same) = match read(&written, part) {
            Ok(read) => read,
            Err(error) => panic!("a state that was read is written so that it cannot be read: {error}"),
        };
        assert_eq!(again, position);
        assert_eq!(same.snapshot(position), written, "equal states write equal bytes");
        assert_eq!(same.parts(), state.parts());
    }
});
