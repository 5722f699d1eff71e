//! Transaction ids as clients send them back: every id reads back, and what reads is an id in one of its two cases.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vouch_broker::{HalfPosition, ShardId, TransactionId};
use vouch_cluster::ClusterIncarnation;
use vouch_fuzz::within_memory;

#[derive(Arbitrary, Debug)]
struct Case<'a> {
    shard: u16,
    incarnation: u32,
    position: u64,
    /// Characters that somebody changes, and what he appends.
    changes: Vec<(u8, u8)>,
    appended: &'a str,
    /// What a stranger sends.
    text: &'a str,
}

fn check(text: &str) {
    let read = within_memory(text.len(), 8, || text.parse::<TransactionId>());
    if let Ok(read) = read {
        assert!(text.eq_ignore_ascii_case(&read.to_string()), "{text:?} was read as {read}");
    }
}

fuzz_target!(|case: Case| {
    let id = TransactionId {
        incarnation: ClusterIncarnation(case.incarnation),
        ..TransactionId::of_first_life(ShardId(case.shard), HalfPosition(case.position))
    };
    assert_eq!(id.to_string().parse(), Ok(id));
    let mut changed = id.to_string().into_bytes();
    for (at, byte) in case.changes {
        let at = usize::from(at) % changed.len();
        changed[at] = byte & 0x7f;
    }
    let changed = String::from_utf8(changed).expect("ASCII");
    check(&changed);
    check(&format!("{changed}{}", case.appended));
    check(case.text);
});
