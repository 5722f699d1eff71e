//! Transaction ids as clients send them back: every id reads back, and what reads is an id in one of its two cases.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vouch_broker::TransactionId;
use vouch_fuzz::within_memory;

#[derive(Arbitrary, Debug)]
struct Case<'a> {
    shard: u16,
    position: u64,
    /// What a stranger sends, and whether behind the letter that every id begins with.
    text: &'a str,
    prefixed: bool,
}

fuzz_target!(|case: Case| {
    let id = TransactionId { shard: case.shard, position: case.position };
    assert_eq!(id.to_string().parse(), Ok(id));
    let text = format!("{}{}", if case.prefixed { "T" } else { "" }, case.text);
    let read = within_memory(text.len(), 8, || text.parse::<TransactionId>());
    if let Ok(read) = read {
        assert!(text.eq_ignore_ascii_case(&read.to_string()), "{text:?} was read as {read}");
    }
});
