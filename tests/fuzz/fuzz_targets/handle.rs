//! Receipt handles as clients send them back: only a text that was sealed opens, and it opens to what was sealed.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vouch_broker::{Generation, GroupId, Handle, Millis, QueueOffset, ShardId, TopicId};
use vouch_fuzz::within_memory;
use vouch_protocol::{HANDLE_TEXT_LEN, HandleKey};

#[derive(Arbitrary, Debug)]
struct Case<'a> {
    shard: u16,
    topic: u32,
    group: u32,
    queue: u32,
    offset: u64,
    generation: u64,
    deadline: u64,
    /// Characters that somebody changes.
    changes: Vec<(u8, u8)>,
    /// What a stranger sends.
    text: &'a str,
}

fuzz_target!(|case: Case| {
    let key = HandleKey::new(&[7; 32]);
    let handle = Handle {
        shard: ShardId(case.shard),
        topic: TopicId(case.topic),
        group: GroupId(case.group),
        queue: case.queue,
        offset: QueueOffset(case.offset),
        generation: Generation(case.generation),
        deadline: Millis(case.deadline),
    };
    let sealed = key.seal(&handle);
    assert_eq!(sealed.len(), HANDLE_TEXT_LEN);
    assert_eq!(key.open(&sealed), Ok(handle));

    let mut changed = sealed.clone().into_bytes();
    for (at, byte) in case.changes {
        let at = usize::from(at) % changed.len();
        changed[at] = byte & 0x7f;
    }
    let changed = String::from_utf8(changed).expect("ASCII");
    let opened = within_memory(changed.len(), 4, || key.open(&changed));
    assert_eq!(opened.is_ok(), changed == sealed, "{changed:?} opens to {opened:?}");
    assert!(within_memory(case.text.len(), 4, || key.open(case.text)).is_err(), "{:?} was never sealed", case.text);
});
