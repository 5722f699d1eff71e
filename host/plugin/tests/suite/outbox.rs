//! Messages that a component publishes.

use std::sync::Arc;

use vouch_plugin::{ByteSize, Consumed, Draft, DraftRefused, NoAnswer, Staged};

use crate::{
    scripts::{Says, Script, Shelf, Written, all_granted, check, consume, done, logged},
    support::{COMMIT, House, pending},
};

/// A message to a topic that is granted.
fn audit() -> Written<'static> {
    Written { topic: "audit", ..Written::default() }
}

#[tokio::test]
async fn what_is_published_is_staged_whole_with_the_ids_that_the_broker_gives() {
    let whole = Written {
        topic: "copies",
        tag: Some("new"),
        keys: &["A 17", "B"],
        message_group: Some("g"),
        properties: &[("region", "eu"), ("empty", "")],
        body: 3,
        ..Written::default()
    };
    let (told, staged) = done(Script::new().publish(&audit()).publish(&whole), Shelf::default()).await;
    assert_eq!(told, ["id-0", "id-1"]);
    let ids: Vec<&str> = staged.drafts.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["id-0", "id-1"]);
    assert_eq!(staged.drafts[0].1, Draft { topic: "audit".to_owned(), ..Draft::default() });
    let expected = Draft {
        topic: "copies".to_owned(),
        tag: Some("new".to_owned()),
        keys: vec!["A 17".to_owned(), "B".to_owned()],
        message_group: Some("g".to_owned()),
        properties: vec![("region".to_owned(), "eu".to_owned()), ("empty".to_owned(), String::new())],
        body: vec![0; 3].into(),
    };
    assert_eq!(staged.drafts[1].1, expected);
}

#[tokio::test]
async fn a_call_that_runs_again_publishes_the_same_ids() {
    let script = Script::new().publish(&audit()).publish(&Written { topic: "other", ..audit() }).publish(&audit());
    let binding = House::new().bind(script.says(Says::Done), all_granted).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(consume(&binding, Some(Arc::default())).await.1);
        seen.push(check(&binding, Some(Arc::default())).await.1);
    }
    assert!(seen.iter().all(|staged| *staged == seen[0]));
    // A message that is refused takes no number.
    assert_eq!(seen[0].drafts.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["id-0", "id-1"]);
}

#[tokio::test]
async fn only_topics_that_the_binding_grants_are_published_to() {
    let other = Written { topic: "orders", ..Written::default() };
    let (told, staged) = done(Script::new().publish(&other).publish(&audit()), Shelf::default()).await;
    assert!(told[0].starts_with("not-granted: ") && told[0].contains("`orders`"), "{told:?}");
    assert_eq!((told[1].as_str(), staged.drafts.len()), ("id-0", 1));
    let house = House::new();
    let nothing = house.bind(Script::new().publish(&audit()).says(Says::Done), |_| {}).await;
    assert!(consume(&nothing, Some(Arc::default())).await.1.is_empty());
    assert!(logged(&nothing)[0].starts_with("not-granted: "), "{:?}", logged(&nothing));
    let without_broker = house.bind(Script::new().publish(&audit()).says(Says::Done), all_granted).await;
    assert_eq!(without_broker.check(pending()).await, COMMIT);
    assert!(logged(&without_broker)[0].starts_with("not-granted: this call may not publish"));
}

#[tokio::test]
async fn a_time_to_deliver_at_is_refused_as_long_as_no_topic_has_one() {
    let later = Written { deliver_at: Some(99_000), ..audit() };
    let (told, staged) = done(Script::new().publish(&later), Shelf::default()).await;
    assert!(told[0].starts_with("invalid: ") && told[0].contains("no topics of type delay yet"), "{told:?}");
    assert!(staged.is_empty());
}

#[tokio::test]
async fn what_the_topic_refuses_is_not_staged() {
    for (refused, told_as) in [
        (DraftRefused::Invalid("there is no such topic".to_owned()), "invalid: there is no such topic"),
        (DraftRefused::TooLarge("the body is too large".to_owned()), "too-large: the body is too large"),
    ] {
        let shelf = Shelf { refuses: Some(refused), ..Shelf::default() };
        let (told, staged) = done(Script::new().publish(&audit()), shelf).await;
        assert_eq!(told, [told_as]);
        assert!(staged.is_empty());
    }
}

#[tokio::test]
async fn a_call_publishes_so_many_messages() {
    let publish = |count: usize| (0..count).fold(Script::new(), |script, _| script.publish(&audit()));
    let (told, staged) = done(publish(Staged::MAX_DRAFTS), Shelf::default()).await;
    assert_eq!((told.len(), staged.drafts.len()), (Staged::MAX_DRAFTS, Staged::MAX_DRAFTS));
    assert!(told.iter().all(|text| text.starts_with("id-")), "{told:?}");
    let (told, staged) = done(publish(Staged::MAX_DRAFTS + 1), Shelf::default()).await;
    assert!(told[Staged::MAX_DRAFTS].starts_with("too-many: 16 messages"), "{told:?}");
    assert_eq!(staged.drafts.len(), Staged::MAX_DRAFTS);
}

#[tokio::test]
async fn a_call_publishes_so_many_bytes() {
    let most = Staged::MAX_DRAFTED as u32;
    let bodies = |sizes: &[u32]| {
        sizes.iter().fold(Script::new(), |script, body| script.publish(&Written { body: *body, ..audit() }))
    };
    for (sizes, staged_count) in
        [(vec![most], 1), (vec![most + 1], 0), (vec![most - 10, 10, 1], 2), (vec![most / 2; 2], 2)]
    {
        let (told, staged) = done(bodies(&sizes), Shelf::default()).await;
        assert_eq!(staged.drafts.len(), staged_count, "{told:?}");
        assert_eq!(staged.drafts.iter().map(|(_, draft)| draft.body.len()).sum::<usize>() as u32, {
            sizes[..staged_count].iter().sum::<u32>()
        });
        let too_large = told.iter().filter(|text| text.starts_with("too-large: ") && text.contains("4194304")).count();
        assert_eq!(too_large, sizes.len() - staged_count, "{told:?}");
    }
    // Everything of a message but the name of its topic counts.
    let more = Written { tag: Some("t"), keys: &["k"], message_group: Some("g"), properties: &[("p", "v")], ..audit() };
    for (body, fits) in [(most - 5, true), (most - 4, false)] {
        let (told, staged) = done(Script::new().publish(&Written { body, ..more.clone() }), Shelf::default()).await;
        assert_eq!(staged.drafts.len(), usize::from(fits), "{told:?}");
    }
}

#[tokio::test]
async fn what_is_published_takes_the_room_of_the_component() {
    // It starts with 14 MiB.
    let script = || Script::new().publish(&Written { body: 2 << 20, ..audit() });
    for (memory, fits) in [(17, true), (15, false)] {
        let limit = ByteSize::mib(memory);
        let binding = House::new()
            .bind(script().says(Says::Done), |spec| {
                all_granted(spec);
                spec.limits.memory = limit;
            })
            .await;
        let (consumed, staged) = consume(&binding, Some(Arc::default())).await;
        assert_eq!(staged.drafts.len(), usize::from(fits));
        assert_eq!(consumed == Consumed::NoAnswer(NoAnswer::MemoryLimit { limit }), !fits, "{consumed:?}");
    }
}
