//! What a component reads and writes of its state.

use std::{collections::BTreeMap, sync::Arc};

use vouch_plugin::{
    BindingSpec, ByteSize, Consumed, ConsumerVerdict, NoAnswer, Staged, StateExpiry, StateValue, StateWrite,
};

use crate::{
    scripts::{Says, Script, Shelf, all_granted, check, consume, done, logged},
    support::{COMMIT, House, pending},
};

fn kept(value: &str) -> StateWrite {
    StateWrite { value: Some(value.into()), expires: StateExpiry::Never }
}

const REMOVED: StateWrite = StateWrite { value: None, expires: StateExpiry::Never };

fn reads(versions: &[(&str, u64)]) -> BTreeMap<String, u64> {
    versions.iter().map(|(key, version)| ((*key).to_owned(), *version)).collect()
}

#[tokio::test]
async fn what_is_kept_is_read_and_its_version_remembered() {
    let script = Script::new().get("a").get("nothing").get("b").look("a").look("nothing");
    let (told, staged) = done(script, Shelf::with(&[("a", "one"), ("b", "two")])).await;
    assert_eq!(told, ["one", "none", "two"]);
    assert_eq!(staged, Staged { reads: reads(&[("a", 1), ("b", 2), ("nothing", 0)]), ..Staged::default() });
}

#[tokio::test]
async fn a_key_is_asked_for_once_so_that_one_call_sees_one_version() {
    let shelf = Arc::new(Shelf::with(&[("a", "one")]));
    let binding =
        House::new().bind(Script::new().get("a").get("a").add("n", 1, 1).get("n").says(Says::Done), all_granted).await;
    consume(&binding, Some(shelf.clone())).await;
    assert_eq!(logged(&binding), ["one", "one", "1"]);
    assert_eq!(*shelf.asked.lock().unwrap(), ["a", "n"]);
}

#[tokio::test]
async fn a_call_reads_what_it_wrote_itself() {
    let script = Script::new().set("a", "new", None).get("a").remove("b").get("b").set("b", "again", None).get("b");
    let (told, staged) = done(script, Shelf::with(&[("a", "one"), ("b", "two")])).await;
    assert_eq!(told, ["new", "none", "again"]);
    // What is only written depends on nothing that was there.
    assert_eq!(staged.reads, reads(&[]));
    assert_eq!(staged.writes, [("a".to_owned(), kept("new")), ("b".to_owned(), kept("again"))].into());
    let (_, staged) = done(Script::new().remove("a"), Shelf::default()).await;
    assert_eq!(staged.writes, [("a".to_owned(), REMOVED)].into());
}

#[tokio::test]
async fn a_value_is_kept_for_so_long_as_it_is_set_for() {
    let script = Script::new().set("a", "x", Some(1)).set("b", "x", Some(u32::MAX)).set("c", "x", Some(0)).get("c");
    let (told, staged) = done(script, Shelf::with(&[("c", "old")])).await;
    assert_eq!(told, ["none"]);
    let for_ms = |ms| StateWrite { value: Some(b"x".to_vec()), expires: StateExpiry::AfterMs(ms) };
    let expected = [("a", for_ms(1)), ("b", for_ms(u32::MAX)), ("c", REMOVED)];
    assert_eq!(staged.writes, expected.into_iter().map(|(key, write)| (key.to_owned(), write)).collect());
}

#[tokio::test]
async fn adding_reads_and_keeps_decimal_digits() {
    let script = Script::new().add("n", 5, 12).add("n", -20, -8).get("n").add("fresh", 1, 1).get("fresh");
    let (told, staged) = done(script, Shelf::with(&[("n", "7")])).await;
    assert_eq!(told, ["-8", "1"]);
    assert_eq!(staged.reads, reads(&[("fresh", 0), ("n", 1)]));
    assert_eq!(staged.writes, [("fresh".to_owned(), kept("1")), ("n".to_owned(), kept("-8"))].into());
    // Of what the call wrote itself nothing is read.
    let (_, staged) = done(Script::new().set("n", "40", None).add("n", 2, 42), Shelf::with(&[("n", "7")])).await;
    assert_eq!((staged.reads, staged.writes), (reads(&[]), [("n".to_owned(), kept("42"))].into()));
}

#[tokio::test]
async fn adding_leaves_the_expiry_as_it_was() {
    let mut shelf = Shelf::default();
    let counted = StateValue { value: Some(b"1".to_vec()), version: 9, expires_at_ms: Some(77_000) };
    shelf.kept.insert("n".to_owned(), counted);
    let script = Script::new().add("n", 1, 2).add("n", 1, 3).set("own", "1", Some(500)).add("own", 1, 2);
    let (_, staged) = done(script, shelf).await;
    assert_eq!(staged.writes["n"], StateWrite { value: Some(b"3".to_vec()), expires: StateExpiry::AtMs(77_000) });
    assert_eq!(staged.writes["own"], StateWrite { value: Some(b"2".to_vec()), expires: StateExpiry::AfterMs(500) });
    assert_eq!(staged.reads, reads(&[("n", 9)]));
}

#[tokio::test]
async fn what_is_no_whole_number_cannot_be_added_to() {
    for text in ["", "x", "1.5", " 1", "99999999999999999999"] {
        let (told, staged) = done(Script::new().add("n", 1, 0), Shelf::with(&[("n", text)])).await;
        assert!(told[0].starts_with("invalid: ") && told[0].contains("no whole number"), "{text}: {told:?}");
        assert_eq!(staged.writes, BTreeMap::new());
    }
    let most = i64::MAX.to_string();
    for (text, delta) in [(most.as_str(), 1), ("-2", i64::MIN)] {
        let (told, staged) = done(Script::new().add("n", delta, 0), Shelf::with(&[("n", text)])).await;
        assert!(told[0].starts_with("invalid: ") && told[0].contains("too large"), "{told:?}");
        assert_eq!((staged.reads, staged.writes.len()), (reads(&[("n", 1)]), 0));
    }
    let (told, _) = done(Script::new().add("n", 1, i64::MAX), Shelf::with(&[("n", &(i64::MAX - 1).to_string())])).await;
    assert_eq!(told, Vec::<String>::new());
}

#[tokio::test]
async fn keys_and_values_are_bounded() {
    let key = |length: usize| "k".repeat(length);
    let all = |key: &str| Script::new().look(key).set(key, "v", None).remove(key).add(key, 1, 1);
    let (told, staged) = done(all(&key(Staged::MAX_KEY)), Shelf::default()).await;
    assert!(told.is_empty() && staged.writes.len() == 1, "{told:?}");
    for (key, words) in
        [(key(Staged::MAX_KEY + 1), ["too-large: the key", "512"]), (key(0), ["invalid: the key", "empty"])]
    {
        let (told, staged) = done(all(&key), Shelf::default()).await;
        assert!(told.len() == 4 && told.iter().all(|text| words.iter().all(|word| text.contains(word))), "{told:?}");
        assert!(staged.is_empty());
    }
    let most = Staged::MAX_VALUE as u32;
    let (told, staged) = done(Script::new().set_zeros("a", most).set_zeros("b", most + 1), Shelf::default()).await;
    assert!(told.len() == 1 && told[0].starts_with("too-large: the value") && told[0].contains("65536"), "{told:?}");
    assert_eq!(staged.writes.keys().collect::<Vec<_>>(), ["a"]);
}

#[tokio::test]
async fn a_call_reads_so_many_keys() {
    let read = |count: usize| (0..count).fold(Script::new(), |script, n| script.look(&format!("k{n}")));
    let (told, staged) = done(read(Staged::MAX_READS).look("k0").set("k", "v", None), Shelf::default()).await;
    assert!(told.is_empty() && staged.reads.len() == Staged::MAX_READS && staged.writes.len() == 1, "{told:?}");
    let (told, staged) = done(read(Staged::MAX_READS + 1).look("k0").add("more", 1, 1), Shelf::default()).await;
    assert!(
        told.len() == 2 && told.iter().all(|text| text.starts_with("too-large: ") && text.contains("512")),
        "{told:?}"
    );
    assert_eq!((staged.reads.len(), staged.writes.len()), (Staged::MAX_READS, 0));
}

#[tokio::test]
async fn a_call_writes_so_many_keys_and_bytes() {
    let write = |count: usize| (0..count).fold(Script::new(), |script, n| script.set(&format!("k{n}"), "v", None));
    let full = write(Staged::MAX_WRITES).set("k0", "again", None).remove("k1");
    let (told, staged) = done(full, Shelf::default()).await;
    assert!(told.is_empty() && staged.writes.len() == Staged::MAX_WRITES, "{told:?}");
    let (told, staged) = done(write(Staged::MAX_WRITES).remove("more"), Shelf::default()).await;
    assert!(told.len() == 1 && told[0].starts_with("too-large: ") && told[0].contains("64"), "{told:?}");
    assert_eq!(staged.writes.len(), Staged::MAX_WRITES);

    // Four keys of one letter, and what is left for the value of the last one.
    let most = Staged::MAX_VALUE as u32;
    let three = || Script::new().set_zeros("a", most).set_zeros("b", most).set_zeros("c", most);
    let (told, staged) = done(three().set_zeros("d", most - 4), Shelf::default()).await;
    assert!(told.is_empty() && staged.writes.len() == 4, "{told:?}");
    let (told, _) = done(three().set_zeros("d", most - 3), Shelf::default()).await;
    assert!(told.len() == 1 && told[0].starts_with("too-large: ") && told[0].contains("262144"), "{told:?}");
    // What is written over counts no more.
    let (told, staged) = done(three().set("a", "", None).set_zeros("d", most - 4).remove("b"), Shelf::default()).await;
    assert!(told.is_empty() && staged.writes.len() == 4, "{told:?}");
}

#[tokio::test]
async fn without_a_grant_nothing_is_read_or_written() {
    let all = Script::new().get("k").set("k", "v", None).remove("k").add("k", 1, 1);
    let binding = House::new().bind(all.says(Says::Done), |_| {}).await;
    let shelf = Arc::new(Shelf::with(&[("k", "1")]));
    let (consumed, staged) = consume(&binding, Some(shelf.clone())).await;
    assert_eq!(consumed, Consumed::Answer(ConsumerVerdict::Ack));
    let told = logged(&binding);
    assert!(told.len() == 4 && told.iter().all(|text| text.starts_with("not-granted: ")), "{told:?}");
    assert!(told[0].contains(r#"set "state" in its grants"#), "{told:?}");
    assert!(staged.is_empty() && shelf.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn state_that_cannot_be_had_is_unavailable() {
    let all = || Script::new().get("k").add("k", 1, 1);
    let away = Shelf { away: Some("no leader".to_owned()), ..Shelf::default() };
    let (told, staged) = done(all(), away).await;
    assert_eq!(told, ["unavailable: no leader", "unavailable: no leader"]);
    assert!(staged.is_empty());
    let binding = House::new().bind(all().set("k", "v", None).remove("k").says(Says::Done), all_granted).await;
    assert_eq!(binding.check(pending()).await, COMMIT);
    let told = logged(&binding);
    assert!(told.len() == 4 && told.iter().all(|text| text.starts_with("unavailable: ")), "{told:?}");
}

#[tokio::test]
async fn a_call_about_several_reads_and_stages_nothing() {
    let script = Script::new()
        .get("k")
        .set("k", "v", None)
        .remove("k")
        .add("k", 1, 1)
        .publish(&crate::scripts::Written { topic: "audit", ..Default::default() });
    let binding = House::new().bind(script.with_batches(), all_granted).await;
    let shelf = || -> Option<Arc<dyn vouch_plugin::CallReach>> { Some(Arc::new(Shelf::with(&[("k", "1")]))) };
    let two = || vec![pending(), vouch_plugin::Pending { transaction_id: "0-2".to_owned(), ..pending() }];
    let (checked, staged) = binding.admit().await.check_many_prepared(two, shelf()).await.unwrap();
    assert_eq!(checked[0], COMMIT);
    assert!(staged.is_empty());
    let told = logged(&binding);
    assert_eq!(told[0], "1");
    let why = "not-granted: a call about several transactions stages nothing; export `checkback`";
    assert_eq!(told[1..], [why; 4]);
    // One alone is asked through the other export.
    let (_, staged) = binding.admit().await.check_many_prepared(|| vec![pending()], shelf()).await.unwrap();
    assert_eq!((staged.writes.len(), staged.drafts.len()), (1, 1));
    let (checked, staged) = check(&binding, Some(Arc::new(Shelf::with(&[("k", "1")])))).await;
    assert_eq!((checked, staged.reads, staged.writes.len()), (COMMIT, reads(&[("k", 1)]), 1));
}

#[tokio::test]
async fn what_is_read_takes_the_room_of_the_component() {
    // It starts with 14 MiB. Of each value of 64 KiB it gets a copy as well.
    let value = "v".repeat(Staged::MAX_VALUE);
    let keys: Vec<String> = (0..40).map(|n| format!("k{n}")).collect();
    let shelf = Shelf::with(&keys.iter().map(|key| (key.as_str(), value.as_str())).collect::<Vec<_>>());
    let shelf = Arc::new(shelf);
    for (memory, fits) in [(20, true), (15, false)] {
        let script = keys.iter().fold(Script::new(), |script, key| script.look(key));
        let change = |spec: &mut BindingSpec| {
            all_granted(spec);
            spec.limits.memory = ByteSize::mib(memory);
        };
        let binding = House::new().bind(script.says(Says::Done), change).await;
        let (consumed, _) = consume(&binding, Some(shelf.clone())).await;
        if fits {
            assert_eq!(consumed, Consumed::Answer(ConsumerVerdict::Ack));
        } else {
            assert_eq!(consumed, Consumed::NoAnswer(NoAnswer::MemoryLimit { limit: ByteSize::mib(memory) }));
        }
    }
}

#[tokio::test]
async fn a_binding_lacks_state_and_topics_or_grants_them_in_vain() {
    let house = House::new();
    let script = || Script::new().says(Says::Done);
    assert_eq!(house.bind(script(), all_granted).await.warnings(), Vec::<String>::new());
    let lacks = house.bind(script(), |_| {}).await.warnings();
    for words in [
        "vouch:plugin/state@0.1.0 and the binding grants no state",
        "vouch:plugin/outbox@0.1.0 and the binding grants no topic",
    ] {
        assert!(lacks.iter().any(|text| text.contains(words)), "{lacks:?}");
    }
    let plain = crate::guests::check(&crate::guests::commit());
    let in_vain = house.bind(plain, all_granted).await.warnings();
    for grant in ["grants state and", "grants publish and"] {
        assert!(in_vain.iter().any(|text| text.contains(grant) && text.contains("no use")), "{in_vain:?}");
    }
}
