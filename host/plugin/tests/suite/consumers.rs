//! Components that consume messages.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use vouch_plugin::{Binding, BindingSpec, Consumed, ConsumerVerdict, NoAnswer, Staged};

use crate::{
    guests::{self, SPIN, component, field, n},
    scripts::{Says, Script, Shelf, Written, all_granted, check, consume, delivery, logged},
    support::{COMMIT, House, no_answer, pending},
};

const CONSUMER: &str = "vouch:plugin/consumer-plugin@0.1.0";

/// A guest whose `consume` does just this. The record `delivery` lies where its local 0 points.
fn consumer(body: &str, data: &str) -> Bytes {
    let core = format!(
        r#"(module
            (memory (export "memory") 1)
            (global $next (mut i32) (i32.const 8192))
            (data (i32.const 0) "{data}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
                (global.set $next (i32.add (local.get $at) (local.get 3)))
                (local.get $at))
            (func (export "vouch:plugin/consumer@0.1.0#consume") (param i32) (result i32) {body}))"#
    );
    component(CONSUMER, &[], &core)
}

async fn consumed(house: &House, wasm: Bytes, change: impl FnOnce(&mut BindingSpec)) -> Consumed {
    consume(&house.bind(wasm, change).await, None).await.0
}

fn answer(verdict: ConsumerVerdict) -> Consumed {
    Consumed::Answer(verdict)
}

#[track_caller]
fn failed(consumed: Consumed) -> NoAnswer {
    match consumed {
        Consumed::NoAnswer(why) => why,
        Consumed::Answer(verdict) => panic!("answered {verdict:?}"),
    }
}

#[tokio::test]
async fn the_three_outcomes_come_through_with_their_texts() {
    let house = House::new();
    // `retry` and `reject` lie in memory as `rollback` and `unknown` do, the other way round.
    assert_eq!(consumed(&house, consumer(&guests::commit(), ""), |_| {}).await, answer(ConsumerVerdict::Ack));
    let (second, third) = (guests::rollback(&n(0), &n(7)), guests::unknown(&n(0), &n(7), None));
    let retry = |retry_after| ConsumerVerdict::Retry { reason: "no room".to_owned(), retry_after };
    assert_eq!(consumed(&house, consumer(&second, "no room"), |_| {}).await, answer(retry(None)));
    let reject = ConsumerVerdict::Reject("no room".to_owned());
    assert_eq!(consumed(&house, consumer(&third, "no room"), |_| {}).await, answer(reject));
    let later = format!(
        "(i32.store (i32.const {}) (i32.const 1)) (i32.store (i32.const {}) (i32.const 1500)) {second}",
        guests::RESULT + 16,
        guests::RESULT + 20
    );
    let expected = answer(retry(Some(Duration::from_millis(1_500))));
    assert_eq!(consumed(&house, consumer(&later, "no room"), |_| {}).await, expected);
}

#[tokio::test]
async fn the_guest_sees_the_delivery() {
    let house = House::new();
    // Offsets of the record `delivery`, as the canonical ABI lays it out: the message lies where it does in a `pending`.
    for (offset, text) in [(0, "g/0/17"), (8, "01AB"), (16, "orders"), (100, "order 4711"), (112, "billing")] {
        let told = consumer(&guests::unknown(&field(offset), &field(offset + 4), None), "");
        let reject = ConsumerVerdict::Reject(text.to_owned());
        assert_eq!(consumed(&house, told, |_| {}).await, answer(reject), "offset {offset}");
    }
    for (offset, value) in [(96, 10), (120, 12_000), (128, 2), (132, 15)] {
        let expects =
            format!("(if (i32.ne {} (i32.const {value})) (then unreachable)) {}", field(offset), guests::commit());
        assert_eq!(consumed(&house, consumer(&expects, ""), |_| {}).await, answer(ConsumerVerdict::Ack), "{offset}");
    }
    let without_body = consumer(&guests::unknown(&field(100), &field(104), None), "");
    let nothing = answer(ConsumerVerdict::Reject(String::new()));
    assert_eq!(consumed(&house, without_body, |spec| spec.body = false).await, nothing);
}

#[tokio::test]
async fn a_delivery_fails_as_a_check_does() {
    let house = House::new();
    let why = failed(consumed(&house, consumer(&guests::err(&n(0), &n(7)), "db down"), |_| {}).await);
    assert_eq!(why, NoAnswer::GuestError("db down".to_owned()));
    let why = failed(consumed(&house, consumer("unreachable", ""), |_| {}).await);
    assert!(matches!(&why, NoAnswer::Trap { trace, .. } if !trace.is_empty()) && why.blames_component(), "{why:?}");
    let deadline = Duration::from_millis(100);
    let why = failed(consumed(&house, consumer(SPIN, ""), |spec| spec.limits.deadline = deadline).await);
    assert!(matches!(why, NoAnswer::TimeUsedUp { .. } | NoAnswer::Deadline { .. }), "{why:?}");
    for says in [guests::rollback(&n(0), &n(65)), guests::unknown(&n(0), &n(65), None), guests::err(&n(0), &n(65))] {
        let limit = vouch_plugin::ByteSize(64);
        let why = failed(consumed(&house, consumer(&says, ""), |spec| spec.limits.output = limit).await);
        assert_eq!(why, NoAnswer::OutputTooLarge { limit });
    }
}

#[tokio::test]
async fn what_is_staged_goes_with_an_ack_or_a_reject_and_with_nothing_else() {
    let house = House::new();
    let staging =
        || Script::new().look("r").set("k", "v", None).publish(&Written { topic: "audit", ..Written::default() });
    for (says, stays) in
        [(Says::Done, true), (Says::Third("poison"), true), (Says::Second("later"), false), (Says::Err("away"), false)]
    {
        let binding = house.bind(staging().says(says), all_granted).await;
        let (consumed, staged) = consume(&binding, Some(Arc::default())).await;
        assert_eq!(logged(&binding), ["id-0"], "{consumed:?}");
        assert_eq!(
            (staged.reads.len(), staged.writes.len(), staged.drafts.len()),
            if stays { (1, 1, 1) } else { (0, 0, 0) }
        );
        assert_eq!(staged.is_empty(), !stays);
    }
    let trapped = house.bind(staging().raw("unreachable").says(Says::Done), all_granted).await;
    let (consumed, staged) = consume(&trapped, Some(Arc::default())).await;
    assert!(
        matches!(consumed, Consumed::NoAnswer(NoAnswer::Trap { .. })) && staged == Staged::default(),
        "{consumed:?}"
    );
}

#[tokio::test]
async fn what_a_check_stages_goes_with_every_verdict_and_with_no_missing_one() {
    let house = House::new();
    for (says, stays) in
        [(Says::Done, true), (Says::Second("no"), true), (Says::Third("perhaps"), true), (Says::Err("away"), false)]
    {
        let binding = house.bind(Script::new().set("k", "v", None).says(says), all_granted).await;
        let (checked, staged) = check(&binding, Some(Arc::default())).await;
        assert_eq!(!staged.is_empty(), stays, "{checked:?}");
    }
}

#[tokio::test]
async fn lines_of_the_log_are_about_the_delivery() {
    let binding = House::new().bind(Script::new().get("k").says(Says::Done), all_granted).await;
    consume(&binding, Some(Arc::default())).await;
    check(&binding, Some(Arc::default())).await;
    let about: Vec<String> = binding.recent_logs().into_iter().map(|line| line.transaction_id).collect();
    assert_eq!(about, ["g/0/17", "0-4711"]);
}

#[tokio::test]
async fn secrets_are_in_no_reason_and_no_error() {
    let house = House::new();
    let secret = |spec: &mut BindingSpec| drop(spec.config.insert("token".to_owned(), "s3cr3t".to_owned()));
    for says in [Says::Second("has s3cr3t"), Says::Third("has s3cr3t"), Says::Err("has s3cr3t")] {
        let binding = house.bind(Script::new().says(says), secret).await;
        let text = match consume(&binding, None).await.0 {
            Consumed::Answer(ConsumerVerdict::Retry { reason, .. } | ConsumerVerdict::Reject(reason)) => reason,
            Consumed::NoAnswer(NoAnswer::GuestError(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(text, "has ***");
    }
    // What it stages is its own, and may be what it was given.
    let staging = Script::new().set("k", "s3cr3t", None).says(Says::Done);
    let binding = house
        .bind(staging, |spec| {
            secret(spec);
            all_granted(spec);
        })
        .await;
    let (_, staged) = consume(&binding, Some(Arc::default())).await;
    assert_eq!(staged.writes["k"].value.as_deref(), Some(&b"s3cr3t"[..]));
}

#[tokio::test]
async fn what_a_component_does_not_export_cannot_be_asked_of_it_and_is_not_its_fault() {
    let house = House::new();
    let only_checks = house.bind(guests::check(&guests::commit()), |_| {}).await;
    assert!(only_checks.answers_checks() && !only_checks.consumes());
    let why = failed(consume(&only_checks, None).await.0);
    assert!(matches!(&why, NoAnswer::Host(text) if text.contains("`consumer`")) && !why.blames_component(), "{why:?}");
    let only_consumes = house.bind(consumer(&guests::commit(), ""), |_| {}).await;
    assert!(only_consumes.consumes() && !only_consumes.answers_checks() && !only_consumes.takes_batches());
    let why = no_answer(only_consumes.check(pending()).await);
    assert!(matches!(&why, NoAnswer::Host(text) if text.contains("`checkback`")), "{why:?}");
    let both = house.bind(Script::new().says(Says::Done), |_| {}).await;
    assert!(both.consumes() && both.answers_checks());
    assert_eq!(both.check(pending()).await, COMMIT);
    assert_eq!(consume(&both, None).await.0, answer(ConsumerVerdict::Ack));
}

/// Tries a binding with a delivery.
async fn tried(binding: &Binding, shelf: Shelf) -> vouch_plugin::Tried<ConsumerVerdict> {
    binding.try_consume(delivery(), Some(Arc::new(shelf))).await
}

#[tokio::test]
async fn a_dry_call_reads_and_notes_what_it_would_do() {
    let house = House::new();
    let script = Script::new()
        .get("kept")
        .set("k", "v", None)
        .get("k")
        .add("n", 1, 1)
        .remove("kept")
        .publish(&Written { topic: "audit", ..Written::default() });
    let binding = house.bind(script.says(Says::Third("poison")), all_granted).await;
    let tried = tried(&binding, Shelf::with(&[("kept", "yes")])).await;
    assert_eq!(tried.checked, answer(ConsumerVerdict::Reject("poison".to_owned())));
    assert_eq!(logged(&binding), ["yes", "v", "id-0"]);
    assert_eq!(
        tried.asked,
        ["state.get kept", "state.set k", "state.get k", "state.add n", "state.remove kept", "publish to audit"]
    );
    assert!(tried.wrong.is_none() && tried.memory.0 > 0, "{tried:?}");
    let checked = binding.try_check(pending(), Some(Arc::new(Shelf::default()))).await;
    assert_eq!(checked.asked.len(), 6);
}

#[tokio::test]
async fn a_dry_call_tells_what_kept_the_component_from_answering_and_no_secret() {
    let house = House::new();
    let failing = |script: Script| script.says(Says::Err("cannot"));
    let written = Written { topic: "other", ..Written::default() };
    let ungranted = house.bind(failing(Script::new().get("k")), |_| {}).await;
    let wrong = tried(&ungranted, Shelf::default()).await.wrong.unwrap();
    assert!(wrong.contains("state: the binding does not grant state"), "{wrong}");
    let unpublished = house.bind(failing(Script::new().publish(&written)), all_granted).await;
    let wrong = tried(&unpublished, Shelf::default()).await.wrong.unwrap();
    assert!(wrong.contains("outbox: ") && wrong.contains("`other`"), "{wrong}");
    let granted = Written { topic: "audit", ..Written::default() };
    let refused = || Shelf {
        refuses: Some(vouch_plugin::DraftRefused::Invalid("there is no topic audit".to_owned())),
        ..Shelf::default()
    };
    let binding = house.bind(failing(Script::new().publish(&granted)), all_granted).await;
    assert_eq!(tried(&binding, refused()).await.wrong.as_deref(), Some("outbox: there is no topic audit"));
    // Who goes on knows how to; and what is away today may be there tomorrow.
    let answering = house.bind(Script::new().publish(&granted).says(Says::Done), all_granted).await;
    assert_eq!(tried(&answering, refused()).await.wrong, None);
    let away = Shelf { away: Some("no leader".to_owned()), ..Shelf::default() };
    let reading = house.bind(failing(Script::new().get("k")), all_granted).await;
    assert_eq!(tried(&reading, away).await.wrong, None);

    let long = format!("{}s3cr3t", "k".repeat(500));
    let spelled = house
        .bind(Script::new().get("s3cr3t").get(&long).says(Says::Done), |spec| {
            all_granted(spec);
            spec.config.insert("token".to_owned(), "s3cr3t".to_owned());
        })
        .await;
    let asked = tried(&spelled, Shelf::default()).await.asked;
    assert_eq!(asked[0], "state.get ***");
    assert!(!asked[1].contains("s3c") && asked[1].len() <= 520, "{}", asked[1]);
}

#[tokio::test]
async fn a_component_that_fails_since_the_state_is_away_has_an_excuse() {
    let script = Script::new().get("k").raw("unreachable");
    let binding = House::new().bind(script.says(Says::Done), all_granted).await;
    let away = Shelf { away: Some("no leader".to_owned()), ..Shelf::default() };
    let why = failed(consume(&binding, Some(Arc::new(away))).await.0);
    assert!(matches!(why, NoAnswer::Outside { .. }) && !why.blames_component(), "{why:?}");
    assert!(why.to_string().contains("no leader"), "{why}");
}

#[tokio::test]
async fn a_consumers_now_goes_by_the_time_of_the_delivery() {
    let core = format!(
        r#"(module
            (import "vouch:plugin/host@0.1.0" "now" (func $now (result i64)))
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8192))
            (func (export "vouch:plugin/consumer@0.1.0#consume") (param i32) (result i32)
                (if (i64.lt_u (call $now) (i64.const 12000)) (then unreachable))
                (if (i64.gt_u (call $now) (i64.const 72000)) (then unreachable))
                {}))"#,
        guests::commit()
    );
    let house = House::new();
    assert_eq!(consumed(&house, component(CONSUMER, &[], &core), |_| {}).await, answer(ConsumerVerdict::Ack));
}
