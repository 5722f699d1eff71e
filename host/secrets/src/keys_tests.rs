//! Several keys: the first one seals, all of them open, and one after another is changed.

use super::*;

const BOUND: SealedFor<'_> = SealedFor { cluster_id: [1; 16], name: "orders-db", value_id: [2; 16] };

fn value() -> SecretValue {
    SecretValue::new(b"hunter2".to_vec()).unwrap()
}

fn opens(keys: &SecretKeys, sealed: &SealedValue) -> bool {
    keys.open(&BOUND, sealed).is_ok_and(|value| value.reveal() == b"hunter2")
}

/// So many new keys.
fn several(count: usize) -> SecretKeys {
    (1..count).fold(SecretKeys::draw(), |keys, _| keys.with_new_first().unwrap())
}

#[test]
fn the_first_key_seals_and_each_sealing_has_a_nonce_of_its_own() {
    let keys = several(3);
    let [one, other] = [(); 2].map(|()| keys.seal(&BOUND, &value()));
    assert_eq!((one.key, other.key), (keys.sealing(), keys.sealing()));
    assert!(one.nonce != other.nonce && one.sealed != other.sealed);
    assert!(opens(&keys, &one) && opens(&keys, &other));
}

#[test]
fn a_node_without_the_key_says_which_one_it_lacks_and_where_it_is() {
    let (ours, theirs) = (several(2), SecretKeys::draw());
    let sealed = theirs.seal(&BOUND, &value());
    let refused = ours.open(&BOUND, &sealed).map(|_| "it opened").unwrap_err();
    assert_eq!(refused, Unopened::KeyUnknown { name: "orders-db".to_owned(), key: theirs.sealing() });
    let text = refused.to_string();
    assert!(text.contains(&format!("this node lacks key {}", theirs.sealing())), "{text}");
    assert!(text.contains("copy secrets.key from a node that has it"), "{text}");
    assert!(opens(&ours.and(&theirs).unwrap(), &sealed), "with the key it opens");
}

/// As it is done in a cluster: a new first key, all secrets sealed with it, the old key gone.
#[test]
fn a_key_is_changed_without_a_moment_in_which_a_secret_does_not_open() {
    let old = SecretKeys::draw();
    let sealed = old.seal(&BOUND, &value());
    let both = old.with_new_first().unwrap();
    assert!(both.ids().eq([both.sealing(), old.sealing()]));
    assert!(opens(&both, &sealed), "what was sealed before still opens");
    let anew = both.reseal(&BOUND, &sealed).unwrap().unwrap();
    assert!(anew.key == both.sealing() && opens(&both, &anew));
    assert_eq!(both.reseal(&BOUND, &anew), Ok(None), "it is sealed with the first key already");
    let new = both.without(old.sealing()).unwrap();
    assert!(opens(&new, &anew) && !opens(&new, &sealed) && !opens(&old, &anew));
    assert!(matches!(new.reseal(&BOUND, &sealed), Err(Unopened::KeyUnknown { .. })));
}

#[test]
fn the_key_that_seals_stays_and_one_that_is_not_there_is_told() {
    let keys = several(2);
    let (sealing, stranger) = (keys.sealing(), SecretKeys::draw().sealing());
    assert_eq!(keys.without(sealing), Err(KeyChangeRefused::Seals(sealing)));
    assert_eq!(keys.without(stranger), Err(KeyChangeRefused::Unknown(stranger)));
    assert!(keys.has(sealing) && !keys.has(stranger));
}

#[test]
fn there_are_16_keys_at_most() {
    let keys = several(SECRET_KEYS_MAX);
    assert_eq!(keys.ids().count(), SECRET_KEYS_MAX);
    assert_eq!(keys.with_new_first(), Err(KeyChangeRefused::TooMany));
    assert_eq!(keys.and(&SecretKeys::draw()), Err(KeyChangeRefused::TooMany));
    assert_eq!(keys.and(&keys), Ok(keys.clone()), "the same ones are no more");
    let oldest = keys.ids().last().unwrap();
    assert!(keys.without(oldest).unwrap().with_new_first().is_ok());
    assert_eq!(SecretKeys::of(vec![]), None);
    assert_eq!(SecretKeys::of((0..=SECRET_KEYS_MAX).map(|_| SecretKey::draw()).collect()), None);
    assert_eq!(SecretKeys::of([1, 1].map(|byte| SecretKey::filled(|key| key.fill(byte))).into()), None);
}

#[test]
fn two_nodes_that_each_made_a_key_have_both_when_they_gave_them_to_each_other() {
    let (one, other) = (several(2), several(2));
    let (of_one, of_other) = (one.and(&other).unwrap(), other.and(&one).unwrap());
    for sealed in [one.seal(&BOUND, &value()), other.seal(&BOUND, &value())] {
        assert!(opens(&of_one, &sealed) && opens(&of_other, &sealed));
    }
    assert!(of_one.ids().eq(one.ids().chain(other.ids())));
    assert_ne!(of_one, of_other, "the order is another one, and so is the key that seals");
}

#[test]
fn keys_are_printed_as_their_ids() {
    let keys = several(2);
    let ids: Vec<String> = keys.ids().map(|id| format!("SecretKey({id})")).collect();
    assert_eq!(format!("{keys:?}"), format!("[{}]", ids.join(", ")));
}
