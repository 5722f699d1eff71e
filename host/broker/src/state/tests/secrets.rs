//! Secrets: sealed values that bindings name, which stay for as long as one does (ruling 24).

use super::snapshots::with_section;
use crate::record::{BindingDelete, BindingPut, Record, SecretDeleted, SecretPut};
use crate::state::{
    Applied, Effect, SECRET_NAME_MAX, SECRET_SEAL_LEN, SECRET_VALUE_MAX, SECRETS_BYTES_MAX, SECRETS_MAX, SnapshotError,
};
use crate::testing::{RecordLog, read_snapshot};
use crate::{RecordPosition, Refusal, State};

/// A record with a value of so many bytes, which this number tells from others.
fn sealed(name: &str, value: u8, len: usize) -> SecretPut {
    SecretPut {
        name: name.to_owned(),
        value_id: [value; 16],
        key_id: [1; 8],
        nonce: [value; 24],
        sealed: vec![value; len + SECRET_SEAL_LEN],
        expected_revision: None,
    }
}

pub(super) fn set(name: &str, value: u8) -> Record {
    Record::SecretPut(sealed(name, value, 9))
}

fn expecting(name: &str, expected_revision: u64) -> Record {
    Record::SecretPut(SecretPut { expected_revision: Some(expected_revision), ..sealed(name, 1, 9) })
}

fn delete(name: &str) -> Record {
    Record::SecretDeleted(SecretDeleted { name: name.to_owned() })
}

/// Sets a binding that answers for a topic of its own name.
pub(super) fn bind<const N: usize>(name: &str, secrets: [&str; N]) -> Record {
    let spec = format!(r#"{{"plugin":"p:1","topics":["{name}"]}}"#);
    let secrets = secrets.map(str::to_owned).into();
    Record::BindingPut(BindingPut {
        name: name.to_owned(),
        digest: [1; 32],
        spec,
        expected_revision: None,
        secrets,
        keeps: None,
        names_life: false,
    })
}

fn unbind(name: &str) -> Record {
    Record::BindingDelete(BindingDelete { name: name.to_owned() })
}

fn with_plugin() -> RecordLog {
    let mut log = RecordLog::new();
    super::plugins::push(&mut log, "p", "1", 1).unwrap();
    log
}

#[test]
fn a_secret_is_kept_as_it_was_sealed_until_it_is_set_again_or_deleted() {
    let mut log = RecordLog::new();
    let first = log.apply(set("orders-db", 1)).unwrap();
    assert_eq!(first, Applied::Set { created: true, revision: log.last_position().0 });
    assert_eq!(log.effects, [Effect::Secrets]);
    let again = log.apply(set("orders-db", 2)).unwrap();
    let revision = log.last_position().0;
    assert_eq!(again, Applied::Set { created: false, revision });
    let secret = log.state.secrets().get("orders-db").unwrap();
    let SecretPut { value_id, key_id, nonce, sealed, .. } = sealed("orders-db", 2, 9);
    assert_eq!((secret.revision, secret.value_id, secret.key_id), (revision, value_id, key_id));
    assert_eq!((secret.nonce, &secret.sealed), (nonce, &sealed));
    log.apply(set("another", 3)).unwrap();
    assert_eq!(log.state.secrets().iter().map(|(name, _)| name).collect::<Vec<_>>(), ["another", "orders-db"]);
    log.apply(delete("orders-db")).unwrap();
    assert_eq!(log.effects, [Effect::Secrets]);
    assert!(log.state.secrets().get("orders-db").is_none());
    assert!(matches!(log.refused(delete("orders-db")), Refusal::NotFound(text) if text.contains("orders-db")));
}

#[test]
fn a_secret_is_changed_by_its_revision() {
    let mut log = RecordLog::new();
    log.apply(expecting("s", 0)).unwrap();
    let revision = log.last_position().0;
    assert!(matches!(log.refused(expecting("s", 0)), Refusal::PreconditionFailed(text) if text.contains("secret s")));
    assert!(matches!(log.refused(expecting("t", revision)), Refusal::PreconditionFailed(_)));
    log.apply(expecting("s", revision)).unwrap();
    assert!(matches!(log.refused(expecting("s", revision)), Refusal::PreconditionFailed(_)));
}

#[test]
fn a_binding_names_only_secrets_that_are_there() {
    let mut log = with_plugin();
    log.apply(set("a", 1)).unwrap();
    let refusal = log.refused(bind("b", ["a", "gone"]));
    assert!(matches!(&refusal, Refusal::NotFound(text) if text.contains("secret gone")), "{refusal}");
    log.apply(set("gone", 2)).unwrap();
    log.apply(bind("b", ["a", "gone"])).unwrap();
    let binding = log.state.plugins().binding("b").unwrap();
    assert!(binding.secrets.iter().eq(["a", "gone"]));
}

#[test]
fn a_secret_that_bindings_name_is_not_deleted_and_the_refusal_names_them() {
    let mut log = with_plugin();
    log.apply(set("a", 1)).unwrap();
    log.apply(set("free", 2)).unwrap();
    for name in ["b1", "b2"] {
        log.apply(bind(name, ["a"])).unwrap();
    }
    let refusal = log.refused(delete("a"));
    assert!(matches!(&refusal, Refusal::Conflict(text) if text.contains("secret a is used by bindings b1, b2")));
    log.apply(delete("free")).unwrap();
    // One is deleted, the other set anew without it: nobody names it any more.
    log.apply(unbind("b1")).unwrap();
    let refusal = log.refused(delete("a"));
    assert!(matches!(&refusal, Refusal::Conflict(text) if text.contains("binding b2;")), "{refusal}");
    log.apply(bind("b2", [])).unwrap();
    log.apply(delete("a")).unwrap();
}

#[test]
fn a_secret_that_a_binding_names_may_get_another_value() {
    let mut log = with_plugin();
    log.apply(set("a", 1)).unwrap();
    log.apply(bind("b", ["a"])).unwrap();
    let bound = log.state.plugins().binding("b").unwrap().revision;
    log.apply(set("a", 2)).unwrap();
    assert_eq!(log.state.secrets().get("a").unwrap().value_id, [2; 16]);
    assert_eq!(log.state.plugins().binding("b").unwrap().revision, bound, "the binding is the same: its answers count");
}

#[test]
fn names_are_those_of_bindings_and_what_is_none_is_not_repeated() {
    let mut log = RecordLog::new();
    let longest = "n".repeat(SECRET_NAME_MAX);
    for name in ["a", "orders-db", "A_1.b", &longest] {
        log.apply(set(name, 1)).unwrap();
    }
    for name in ["", "a b", "a/b", "päss", "hunter2!", "a\n", &format!("{longest}n")] {
        let refusal = log.refused(set(name, 1));
        assert!(matches!(&refusal, Refusal::Invalid(text) if name.is_empty() || !text.contains(name)), "{refusal}");
    }
}

#[test]
fn a_value_has_one_byte_to_64_kib() {
    let mut log = RecordLog::new();
    for len in [1, SECRET_VALUE_MAX] {
        log.apply(Record::SecretPut(sealed("s", 1, len))).unwrap();
    }
    for len in [0, SECRET_VALUE_MAX + 1] {
        let refusal = log.refused(Record::SecretPut(sealed("s", 1, len)));
        assert!(matches!(&refusal, Refusal::Invalid(text) if text.contains("secret s")), "{refusal}");
    }
    let torn = SecretPut { sealed: vec![1; SECRET_SEAL_LEN - 1], ..sealed("s", 1, 1) };
    assert!(matches!(log.refused(Record::SecretPut(torn)), Refusal::Invalid(_)));
}

#[test]
fn there_are_1024_secrets_at_most_and_each_may_be_set_again() {
    let mut log = RecordLog::new();
    for number in 0..SECRETS_MAX {
        log.apply(set(&format!("s{number}"), 1)).unwrap();
    }
    assert!(matches!(log.refused(set("one-more", 1)), Refusal::TooMany(_)));
    log.apply(set("s0", 2)).unwrap();
    log.apply(delete("s0")).unwrap();
    log.apply(set("one-more", 1)).unwrap();
}

#[test]
fn all_secrets_together_have_8_mib_at_most() {
    let mut log = RecordLog::new();
    let full_size = SECRET_VALUE_MAX + SECRET_SEAL_LEN + 4;
    let fit = SECRETS_BYTES_MAX / full_size;
    let put = |number: usize, len| Record::SecretPut(sealed(&format!("s{number:03}"), 1, len));
    for number in 0..fit {
        log.apply(put(number, SECRET_VALUE_MAX)).unwrap();
    }
    assert_eq!(log.state.secrets().bytes(), fit * full_size);
    let refusal = log.refused(put(fit, SECRET_VALUE_MAX));
    assert!(matches!(&refusal, Refusal::TooMany(text) if text.contains("8388608")), "{refusal}");
    // What is left fits to the byte, one that is replaced counts for nothing, and what is deleted is room again.
    let left = SECRETS_BYTES_MAX - fit * full_size - SECRET_SEAL_LEN - 4;
    assert!(matches!(log.refused(put(fit, left + 1)), Refusal::TooMany(_)));
    log.apply(put(fit, left)).unwrap();
    assert_eq!(log.state.secrets().bytes(), SECRETS_BYTES_MAX);
    log.apply(put(0, SECRET_VALUE_MAX)).unwrap();
    log.apply(delete("s000")).unwrap();
    log.apply(put(fit + 1, SECRET_VALUE_MAX)).unwrap();
    let (_, read) = read_snapshot(&log.state.snapshot(log.last_position())).unwrap();
    assert_eq!(read.secrets(), log.state.secrets());
}

#[test]
fn a_snapshot_with_secrets_reads_back_and_every_flipped_bit_of_it_is_found() {
    let mut log = with_plugin();
    log.apply(set("a", 1)).unwrap();
    log.apply(set("b", 2)).unwrap();
    log.apply(bind("binding", ["a"])).unwrap();
    let bytes = log.state.snapshot(RecordPosition(7));
    State::check_snapshot(&bytes).unwrap();
    let (_, read) = read_snapshot(&bytes).unwrap();
    assert_eq!((read.secrets(), read.plugins()), (log.state.secrets(), log.state.plugins()));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(read_snapshot(&flipped).is_err() && State::check_snapshot(&flipped).is_err(), "bit {bit}");
    }
}

/// Damage that a checksum would not find.
#[test]
fn a_section_of_secrets_that_no_version_writes_is_refused_and_asks_for_no_memory() {
    let mut log = RecordLog::new();
    log.apply(set("a", 1)).unwrap();
    let bytes = log.state.snapshot(RecordPosition(7));
    let secret = |name: &[u8]| [&[name.len() as u8][..], name, &[0; 8 + 16 + 8 + 24], b"\x01x"].concat();
    let read = |contents: &[u8]| read_snapshot(&with_section(&bytes, 10, contents));
    assert!(read(&[&[2], &secret(b"a")[..], &secret(b"b")].concat()).is_ok());
    let unsorted = [&[2], &secret(b"b")[..], &secret(b"a")].concat();
    let twice = [&[2], &secret(b"a")[..], &secret(b"a")].concat();
    let huge = [0xff, 0xff, 0xff, 0xff, 0x7f];
    for contents in [&unsorted[..], &twice, &huge, &secret(b"a"), &[]] {
        assert!(matches!(read(contents), Err(SnapshotError::Section { section: 10, .. })), "{contents:?}");
    }
    let many: Vec<Vec<u8>> = (0..=SECRETS_MAX).map(|number| secret(format!("{number:04}").as_bytes())).collect();
    // 1024 and 1025 as LEB128.
    assert!(read(&[&[0x80, 0x08], &many[..SECRETS_MAX].concat()[..]].concat()).is_ok());
    assert!(read(&[&[0x81, 0x08], &many.concat()[..]].concat()).is_err());
}

#[test]
fn what_is_printed_of_a_secret_is_not_what_is_sealed() {
    let mut log = RecordLog::new();
    log.apply(set("s", 0xab)).unwrap();
    for printed in [format!("{:?}", set("s", 0xab)), format!("{:?}", log.state.secrets())] {
        assert!(printed.contains("\"s\"") && !printed.contains("171, 171"), "{printed}");
    }
}
