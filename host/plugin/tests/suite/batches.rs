//! Components that answer about many transactions in one call.

use std::time::Duration;

use vouch_plugin::{Binding, Checked, NoAnswer, Pending, Verdict, World};

use crate::{
    guests,
    support::{COMMIT, House, pending, rollback},
};

/// An ask about a half message with this id.
fn about(id: &str) -> Pending {
    let mut about = pending();
    about.transaction_id = format!("0-{id}");
    about.half.id = id.to_owned();
    about
}

async fn ask(binding: &Binding, ids: &[&str]) -> Result<Vec<Checked>, NoAnswer> {
    let asked: Vec<Pending> = ids.iter().map(|id| about(id)).collect();
    binding.admit().await.check_many_prepared(move || asked, None).await.map(|(checked, _)| checked)
}

fn unknown() -> Checked {
    Checked::Answer(Verdict::Unknown { reason: "told by its id".to_owned(), retry_after: None })
}

#[tokio::test]
async fn each_of_a_batch_gets_its_own_answer_in_the_order_of_asking() {
    let house = House::new();
    let verdict = house.engine.inspect(guests::batch()).await.unwrap();
    assert_eq!(verdict.worlds, [World::CheckbackBatch]);
    let binding = house.bind(guests::batch(), |_| {}).await;
    assert!(binding.takes_batches());
    let answers = ask(&binding, &["r1", "c1", "u1", "c2"]).await.unwrap();
    assert_eq!(answers, [rollback("told by its id"), COMMIT, unknown(), COMMIT]);
    let ids: Vec<String> = (0..128).map(|n| format!("{}{n}", if n % 3 == 0 { "r" } else { "c" })).collect();
    let answers = ask(&binding, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await.unwrap();
    let expected: Vec<Checked> =
        (0..128).map(|n| if n % 3 == 0 { rollback("told by its id") } else { COMMIT }).collect();
    assert_eq!(answers, expected);
}

#[tokio::test]
async fn one_that_is_left_out_has_no_answer_and_what_nobody_asked_about_is_ignored_and_logged() {
    let house = House::new();
    let binding = house.bind(guests::batch(), |_| {}).await;
    let answers = ask(&binding, &["l1", "c1", "t1", "f1"]).await.unwrap();
    // The second answer about `t1` says rollback, and comes too late.
    let left_out = Checked::NoAnswer(NoAnswer::LeftOut);
    assert_eq!(answers, [left_out.clone(), COMMIT, COMMIT, left_out]);
    let logged: Vec<String> = binding.recent_logs().into_iter().map(|line| line.text).collect();
    let ignored = |id: &str| logged.iter().any(|text| text.contains(id) && text.contains("ignored"));
    assert!(ignored("0-t1") && ignored("told"), "{logged:?}");
    assert!(binding.recent_logs().iter().all(|line| line.transaction_id == "0-l1 and 3 more"), "{logged:?}");
}

#[tokio::test]
async fn a_batch_that_fails_as_a_whole_says_why_and_one_alone_is_asked_the_same_way() {
    let house = House::new();
    let binding = house.bind(guests::batch(), |spec| spec.limits.deadline = Duration::from_millis(200)).await;
    let trap = ask(&binding, &["c1", "p1", "c2"]).await.unwrap_err();
    assert!(matches!(&trap, NoAnswer::Trap { .. }) && trap.blames_component(), "{trap}");
    let away = ask(&binding, &["c1", "e1"]).await.unwrap_err();
    assert_eq!(away, NoAnswer::GuestError("told by its id".to_owned()));
    let late = ask(&binding, &["w1", "c1"]).await.unwrap_err();
    assert!(matches!(late, NoAnswer::TimeUsedUp { .. } | NoAnswer::Deadline { .. }), "{late}");
    assert_eq!(binding.check(about("r1")).await, rollback("told by its id"));
    assert_eq!(binding.check(about("l1")).await, Checked::NoAnswer(NoAnswer::LeftOut));
    assert!(matches!(binding.check(about("p1")).await, Checked::NoAnswer(NoAnswer::Trap { .. })));
    assert_eq!(binding.try_check(about("c1"), None).await.checked, COMMIT);
}
