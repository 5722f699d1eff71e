//! What counts as an answer, and what goes in and out.

use std::time::Duration;

use vouch_plugin::{Checked, NoAnswer, Verdict};

use crate::{
    guests::{self, Guest, check, field, n},
    support::{COMMIT, House, no_answer, pending, rollback},
};

#[tokio::test]
async fn the_three_verdicts_come_through_with_their_texts() {
    let house = House::new();
    assert_eq!(house.check(check(&guests::commit()), |_| {}).await, COMMIT);
    let text = |check: String| Guest { data: "nothing paid", check: &check, ..Guest::default() }.build();
    assert_eq!(house.check(text(guests::rollback(&n(0), &n(12))), |_| {}).await, rollback("nothing paid"));
    for (retry_ms, retry_after) in [(None, None), (Some(1_500), Some(Duration::from_millis(1_500)))] {
        let unknown = text(guests::unknown(&n(0), &n(12), retry_ms));
        let expected = Verdict::Unknown { reason: "nothing paid".to_owned(), retry_after };
        assert_eq!(house.check(unknown, |_| {}).await, Checked::Answer(expected));
    }
}

#[tokio::test]
async fn an_err_is_no_answer() {
    let house = House::new();
    let guest = Guest { data: "db down", check: &guests::err(&n(0), &n(7)), ..Guest::default() }.build();
    assert_eq!(no_answer(house.check(guest, |_| {}).await), NoAnswer::GuestError("db down".to_owned()));
}

#[tokio::test]
async fn a_trap_is_no_answer_and_the_next_check_is_fresh() {
    let house = House::new();
    // Traps if an earlier check left its mark in memory.
    let marks = format!(
        "(if (i32.load (i32.const 512)) (then unreachable)) (i32.store (i32.const 512) (i32.const 1)) {}",
        guests::commit()
    );
    let binding = house.bind(check(&marks), |_| {}).await;
    for _ in 0..20 {
        assert_eq!(binding.check(pending()).await, COMMIT);
    }
    for trap in ["unreachable", "(i32.load (i32.const -4))", "(i32.div_u (i32.const 1) (i32.const 0))"] {
        let binding = house.bind(check(trap), |_| {}).await;
        for _ in 0..2 {
            let why = no_answer(binding.check(pending()).await);
            assert!(matches!(why, NoAnswer::Trap { .. }), "{trap}: {why:?}");
            assert_eq!(why.kind(), "trap");
        }
    }
}

#[tokio::test]
async fn a_result_that_makes_no_sense_is_a_trap() {
    let house = House::new();
    for (name, code) in [
        ("a text outside memory", guests::rollback(&n(0xffff_0000), &n(10))),
        (
            "no such case",
            format!("(i32.store (i32.const {}) (i32.const 9)) (i32.const {})", guests::RESULT, guests::RESULT),
        ),
        ("a result outside memory", "(i32.const -8)".to_owned()),
    ] {
        let why = no_answer(house.check(check(&code), |_| {}).await);
        assert!(matches!(why, NoAnswer::Trap { .. }), "{name}: {why:?}");
    }
    let not_utf8 = Guest { data: r"\ff\fe", check: &guests::rollback(&n(0), &n(2)), ..Guest::default() }.build();
    assert!(matches!(no_answer(house.check(not_utf8, |_| {}).await), NoAnswer::Trap { .. }));
}

/// Offsets of the record `pending` in memory, as the canonical ABI lays it out.
mod at {
    pub(crate) const TRANSACTION_ID: u32 = 0;
    pub(crate) const TOPIC: u32 = 16;
    pub(crate) const BODY_SIZE: u32 = 96;
    pub(crate) const BODY: u32 = 100;
    pub(crate) const PRODUCER: u32 = 112;
    pub(crate) const OPENED_AT: u32 = 120;
    pub(crate) const ASKED_AT: u32 = 128;
    pub(crate) const CHECK_NUMBER: u32 = 136;
    pub(crate) const CHECKS_LEFT: u32 = 140;
}

#[tokio::test]
async fn the_guest_sees_the_ask() {
    let house = House::new();
    for (offset, text) in
        [(at::TRANSACTION_ID, "0-4711"), (at::TOPIC, "orders"), (at::BODY, "order 4711"), (at::PRODUCER, "client-1")]
    {
        let guest = check(&guests::rollback(&field(offset), &field(offset + 4)));
        assert_eq!(house.check(guest, |_| {}).await, rollback(text));
    }
    for (offset, value) in [
        (at::BODY_SIZE, 10),
        (at::OPENED_AT, 2_000),
        (at::ASKED_AT, 12_000),
        (at::CHECK_NUMBER, 1),
        (at::CHECKS_LEFT, 14),
    ] {
        let guest = check(&format!(
            "(if (i32.ne {} (i32.const {value})) (then unreachable)) {}",
            field(offset),
            guests::commit()
        ));
        assert_eq!(house.check(guest, |_| {}).await, COMMIT, "offset {offset}");
    }
}

#[tokio::test]
async fn a_binding_without_body_hides_the_body_and_tells_its_size() {
    let house = House::new();
    let body = check(&guests::rollback(&field(at::BODY), &field(at::BODY + 4)));
    let binding = house.bind(body, |spec| spec.body = false).await;
    assert!(!binding.wants_body());
    assert_eq!(binding.check(pending()).await, rollback(""));
    let size = check(&format!(
        "(if (i32.ne {} (i32.const 10)) (then unreachable)) {}",
        field(at::BODY_SIZE),
        guests::commit()
    ));
    assert_eq!(house.check(size, |spec| spec.body = false).await, COMMIT);
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let house = House::new();
    let mut ask = pending();
    ask.half.body = vec![b'x'; 4 << 20].into();
    ask.half.body_size = 4 << 20;
    let last = check(&format!(
        "(if (i32.ne (i32.load8_u (i32.add {} (i32.const {}))) (i32.const 120)) (then unreachable)) {}",
        field(at::BODY),
        (4 << 20) - 1,
        guests::commit()
    ));
    assert_eq!(house.bind(last, |_| {}).await.check(ask).await, COMMIT);
}
