//! Parts of snapshots: a state takes over only what it says itself, and a view of any part stays inside it.
#![no_main]

use std::io;
use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use vouch_broker::State;
use vouch_broker::state::PartView;
use vouch_broker::testing::{SnapshotFixture, snapshot_fixtures};
use vouch_fuzz::{repair_part, within_memory};

/// The newest that is kept as a fixture. It names a part.
static FIXTURE: LazyLock<SnapshotFixture> = LazyLock::new(|| snapshot_fixtures().pop().expect("there are some"));

const ID: u64 = 4711;

/// What it says with its own part, in the words of now.
static WRITTEN_AGAIN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let (position, state) = FIXTURE.parts.read(&FIXTURE.snapshot).expect("it is sound");
    assert_eq!(state.parts(), [ID]);
    state.snapshot(position)
});

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    repair_part(&mut bytes);
    let part = Bytes::from(bytes);
    if let Ok(view) = within_memory(part.len(), 4, || PartView::open(ID, part.clone())) {
        let mut before = None;
        for row in view.queue_rows() {
            assert!(row.count > 0 && before < Some((row.topic, row.queue)), "rows ascend");
            before = Some((row.topic, row.queue));
            let entries = view.entries(&row).expect("its checksum was made true");
            assert_eq!(entries.iter().count() as u64, row.count);
        }
    }
    // An empty state has nothing that such a part could say, but reads all of its table.
    let mut state = State::default();
    if within_memory(part.len(), 64, || state.adopt(ID, part.clone())).is_ok() {
        assert_eq!(state.parts(), [0; 0], "nothing of it belongs to an empty state");
    }
    // A snapshot names its part by checksum: another one is never taken for it.
    let read = State::from_snapshot(&FIXTURE.snapshot, &mut |id| match id {
        ID => Ok(part.clone()),
        _ => Err(io::ErrorKind::NotFound.into()),
    });
    if let Ok((position, state)) = read {
        assert_eq!(state.snapshot(position), *WRITTEN_AGAIN);
    }
});
