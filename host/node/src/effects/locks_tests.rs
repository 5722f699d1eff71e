//! Who gets which keys when.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use super::*;

/// A claim of these keys.
fn keys(of: KeyUse, keys: &[&str]) -> KeyClaim {
    KeyClaim::Keys(keys.iter().map(|key| ((*key).to_owned(), of)).collect())
}

/// Somebody who asks, and waits if he must.
type Asks<'a> = Pin<Box<dyn Future<Output = HeldKeys> + 'a>>;

/// What he has now; nothing as long as he waits.
fn has(asks: &mut Asks<'_>) -> Option<HeldKeys> {
    match asks.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(held) => Some(held),
        Poll::Pending => None,
    }
}

/// Whether somebody would get this at once; what he would have is dropped.
fn gets(locks: &Arc<KeyLocks>, namespace: &str, claim: KeyClaim) -> bool {
    let asks = pin!(locks.take(namespace, claim));
    matches!(asks.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(_))
}

/// Whether a record that writes these keys may be proposed by somebody who has `beside`.
fn may_change(locks: &Arc<KeyLocks>, key: &str, beside: &HeldKeys) -> bool {
    locks.try_to_change("n", std::iter::once(key.to_owned()), beside).is_some()
}

#[tokio::test]
async fn who_runs_alone_keeps_others_from_writing_its_keys_and_nothing_else() {
    let locks = Arc::new(KeyLocks::default());
    let nothing = HeldKeys::default();
    let mut claim = BTreeMap::from([("read".to_owned(), KeyUse::Keeps)]);
    claim.insert("written".to_owned(), KeyUse::Owns);
    let alone = locks.take("n", KeyClaim::Keys(claim)).await;
    assert!(!may_change(&locks, "read", &nothing) && !may_change(&locks, "written", &nothing));
    assert!(may_change(&locks, "other", &nothing));
    assert!(gets(&locks, "n", keys(KeyUse::Keeps, &["read", "other"])), "several may read what nobody writes");
    assert!(!gets(&locks, "n", keys(KeyUse::Keeps, &["written"])) && !gets(&locks, "n", keys(KeyUse::Owns, &["read"])));
    assert!(gets(&locks, "n", keys(KeyUse::Owns, &["other"])) && gets(&locks, "m", KeyClaim::All));
    assert!(!gets(&locks, "n", KeyClaim::All));
    assert!(alone.owns("written") && !alone.owns("read") && !alone.owns("other"));
    // What it needs besides it gets, if nobody else has it: also a key that it has only read so far.
    assert!(may_change(&locks, "read", &alone) && may_change(&locks, "other", &alone));
    let reads_too = locks.take("n", keys(KeyUse::Keeps, &["read"])).await;
    assert!(!may_change(&locks, "read", &alone), "another one relies on it");
    drop((alone, reads_too));
    assert!(may_change(&locks, "read", &nothing) && gets(&locks, "n", KeyClaim::All));
}

#[tokio::test]
async fn records_beside_each_other_do_not_wait_and_who_is_alone_comes_when_they_are_applied() {
    let locks = Arc::new(KeyLocks::default());
    let nothing = HeldKeys::default();
    let change = || locks.try_to_change("n", ["k".to_owned(), "l".to_owned()].into_iter(), &nothing).unwrap();
    let (one, other) = (change(), change());
    let mut alone: Asks<'_> = Box::pin(locks.take("n", keys(KeyUse::Owns, &["k"])));
    assert!(has(&mut alone).is_none());
    assert!(!may_change(&locks, "k", &nothing), "who waits is not overtaken");
    assert!(may_change(&locks, "l", &nothing), "but for a key that he does not wait for");
    drop(one);
    assert!(has(&mut alone).is_none());
    drop(other);
    assert!(has(&mut alone).unwrap().owns("k"));
}

#[tokio::test]
async fn those_who_wait_get_their_keys_in_the_order_in_which_they_came() {
    let locks = Arc::new(KeyLocks::default());
    let first = locks.take("n", keys(KeyUse::Owns, &["a"])).await;
    let mut second: Asks<'_> = Box::pin(locks.take("n", keys(KeyUse::Owns, &["a", "b"])));
    assert!(has(&mut second).is_none());
    let mut third: Asks<'_> = Box::pin(locks.take("n", keys(KeyUse::Owns, &["b", "c"])));
    let mut beside: Asks<'_> = Box::pin(locks.take("n", keys(KeyUse::Owns, &["d"])));
    // Nobody has `b`, but somebody who came earlier waits for it.
    assert!(has(&mut third).is_none() && has(&mut beside).is_some());
    let mut all: Asks<'_> = Box::pin(locks.take("n", KeyClaim::All));
    let mut last: Asks<'_> = Box::pin(locks.take("n", keys(KeyUse::Changes, &["z"])));
    assert!(has(&mut all).is_none() && has(&mut last).is_none(), "who wants everything is not overtaken either");
    drop(first);
    let held = has(&mut second).unwrap();
    assert!(has(&mut third).is_none());
    drop(held);
    let held = has(&mut third).unwrap();
    assert!(has(&mut all).is_none());
    drop(held);
    let everything = has(&mut all).unwrap();
    assert!(everything.owns("whatever") && has(&mut last).is_none());
    drop(everything);
    assert!(has(&mut last).is_some());
}

#[tokio::test]
async fn who_waits_no_more_stands_in_nobodys_way_whether_it_was_his_turn_or_not() {
    let locks = Arc::new(KeyLocks::default());
    let first = locks.take("n", keys(KeyUse::Owns, &["a"])).await;
    let mut gone: Asks<'_> = Box::pin(locks.take("n", keys(KeyUse::Owns, &["a", "b"])));
    let mut stays: Asks<'_> = Box::pin(locks.take("n", keys(KeyUse::Owns, &["b"])));
    assert!(has(&mut gone).is_none() && has(&mut stays).is_none());
    drop(gone);
    assert!(has(&mut stays).is_some());
    // This one is given its turn, and is dropped before it looks.
    let mut gone: Asks<'_> = Box::pin(locks.take("n", keys(KeyUse::Owns, &["a"])));
    assert!(has(&mut gone).is_none());
    drop(first);
    assert!(!gets(&locks, "n", keys(KeyUse::Owns, &["a"])));
    drop(gone);
    assert!(gets(&locks, "n", keys(KeyUse::Owns, &["a"])));
    assert!(locks.all().by_namespace.is_empty(), "what nobody has takes no room");
}

#[tokio::test]
async fn two_that_need_what_the_other_has_are_both_told_so_and_neither_waits_for_ever() {
    let locks = Arc::new(KeyLocks::default());
    let one = locks.take("n", keys(KeyUse::Owns, &["a"])).await;
    let other = locks.take("n", keys(KeyUse::Owns, &["b"])).await;
    assert!(!may_change(&locks, "b", &one) && !may_change(&locks, "a", &other));
    // Each lets go, and asks for both.
    drop(one);
    let mut both: Asks<'_> = Box::pin(locks.take("n", keys(KeyUse::Owns, &["a", "b"])));
    assert!(has(&mut both).is_none() && !may_change(&locks, "a", &other));
    drop(other);
    let mut both_too: Asks<'_> = Box::pin(locks.take("n", keys(KeyUse::Owns, &["a", "b"])));
    assert!(has(&mut both_too).is_none());
    drop(has(&mut both).unwrap());
    assert!(has(&mut both_too).is_some());
}
