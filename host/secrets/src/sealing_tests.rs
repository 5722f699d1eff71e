//! What is sealed opens for what it was sealed for, and for nothing else.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::value::SECRET_VALUE_MAX;

/// A key whose bytes are these.
fn key(byte: u8) -> SecretKey {
    SecretKey::filled(|bytes| *bytes = [byte; 32])
}

fn bound(name: &str) -> SealedFor<'_> {
    SealedFor { cluster_id: [1; 16], name, value_id: [2; 16] }
}

fn value(bytes: &[u8]) -> SecretValue {
    SecretValue::new(bytes.to_vec()).unwrap()
}

fn refused(opened: Result<SecretValue, Unopened>) -> Unopened {
    opened.map(|_| "it opened").unwrap_err()
}

/// Lies in users' logs: to change it is to lose their secrets.
#[test]
fn a_sealed_value_has_the_bytes_that_it_always_had() {
    let sealed = seal(&key(7), [9; 24], &bound("orders-db"), &value(b"hunter2"));
    let hex: String = sealed.sealed.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(sealed.key, key(7).id());
    assert_eq!(hex, "d6078cfe19d84b1efc0c7f03714813026402cbe6c430f5");
    assert_eq!(open(&key(7), &bound("orders-db"), &sealed).unwrap().reveal(), b"hunter2");
}

#[test]
fn what_a_value_is_tied_to_has_the_bytes_that_the_table_says() {
    let tied = SealedFor { cluster_id: [0xaa; 16], name: "n-1", value_id: [0xbb; 16] }.associated_data();
    assert_eq!(tied, [b"VOUCHSEC\x01".as_slice(), &[0xaa; 16], &[0xbb; 16], b"n-1"].concat());
}

/// The vector of draft-irtf-cfrg-xchacha-03, A.3.1: the cipher is the one that it is called.
#[test]
fn the_cipher_is_xchacha20_poly1305() {
    let unhex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    let plain =
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen \
                  would be it.";
    let key = SecretKey::filled(|bytes| *bytes = std::array::from_fn(|at| 0x80 + at as u8));
    let nonce: [u8; 24] = std::array::from_fn(|at| 0x40 + at as u8);
    let aad = unhex("50515253c0c1c2c3c4c5c6c7");
    let sealed = cipher(&key).encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: &aad }).unwrap();
    assert_eq!(sealed[..16], unhex("bd6d179d3e83d43b9576579493c0e939"));
    assert_eq!(sealed[plain.len()..], unhex("c0875924c1c7987947deafd8780acf49"));
}

#[test]
fn every_flipped_bit_of_what_is_sealed_is_found() {
    let (key, bound) = (key(7), bound("orders-db"));
    let sealed = seal(&key, [9; 24], &bound, &value(b"hunter2"));
    let not_authentic = Unopened::NotAuthentic { name: "orders-db".to_owned(), key: key.id() };
    for bit in 0..sealed.sealed.len() * 8 {
        let mut flipped = sealed.clone();
        flipped.sealed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(refused(open(&key, &bound, &flipped)), not_authentic, "bit {bit} of the value");
    }
    for bit in 0..24 * 8 {
        let mut flipped = sealed.clone();
        flipped.nonce[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(refused(open(&key, &bound, &flipped)), not_authentic, "bit {bit} of the nonce");
    }
    for len in 0..sealed.sealed.len() {
        let cut = SealedValue { sealed: sealed.sealed[..len].to_vec(), ..sealed.clone() };
        assert_eq!(refused(open(&key, &bound, &cut)), not_authentic, "cut at {len}");
    }
    let longer = SealedValue { sealed: [&sealed.sealed[..], &[0]].concat(), ..sealed };
    assert_eq!(refused(open(&key, &bound, &longer)), not_authentic);
}

#[test]
fn a_value_does_not_open_under_another_name_or_as_another_value_or_in_another_cluster() {
    let key = key(7);
    let bound = bound("orders-db");
    let sealed = seal(&key, [9; 24], &bound, &value(b"hunter2"));
    for bit in 0..16 * 8 {
        let mut other = bound;
        other.cluster_id[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(refused(open(&key, &other, &sealed)), Unopened::NotAuthentic { .. }), "cluster, bit {bit}");
        let mut other = bound;
        other.value_id[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(refused(open(&key, &other, &sealed)), Unopened::NotAuthentic { .. }), "value, bit {bit}");
    }
    for name in ["orders-dB", "orders-d", "orders-dbs", "", "x"] {
        assert!(open(&key, &SealedFor { name, ..bound }, &sealed).is_err(), "{name}");
    }
}

#[test]
fn a_key_of_another_node_does_not_open_it_whatever_it_is_called() {
    let sealed = seal(&key(7), [9; 24], &bound("s"), &value(b"hunter2"));
    assert!(matches!(refused(open(&key(8), &bound("s"), &sealed)), Unopened::NotAuthentic { .. }));
}

/// Whoever has the keys could seal what no node takes.
#[test]
fn what_opens_and_is_no_value_is_refused() {
    let (key, bound) = (key(7), bound("s"));
    for plain in [vec![], vec![1; SECRET_VALUE_MAX + 1]] {
        let payload = Payload { msg: plain.as_slice(), aad: &bound.associated_data() };
        let sealed = cipher(&key).encrypt(&XNonce::from([9; 24]), payload).unwrap();
        let sealed = SealedValue { key: key.id(), nonce: [9; 24], sealed };
        assert!(matches!(refused(open(&key, &bound, &sealed)), Unopened::NotAuthentic { .. }));
    }
}

/// What the cipher makes of a key is wiped as the key is: the feature of its crate that does so is on.
#[test]
fn what_is_secret_is_wiped_when_it_is_dropped() {
    fn is_wiped<T: zeroize::ZeroizeOnDrop>(_: &T) {}
    is_wiped(&cipher(&key(7)));
    is_wiped(&value(b"hunter2"));
}

#[test]
fn new_values_have_ids_of_their_own() {
    let [one, other] = [(); 2].map(|()| SealedFor::new_value([1; 16], "s"));
    assert_ne!(one.value_id, other.value_id);
    assert_eq!((one.cluster_id, one.name), ([1; 16], "s"));
}

proptest! {
    #[test]
    fn whatever_is_sealed_opens_to_the_same_and_says_nothing_of_it(
        plain in vec(any::<u8>(), 1..200),
        name in ".{0,20}",
        ids in any::<([u8; 16], [u8; 16], [u8; 32], [u8; 24])>(),
    ) {
        let (cluster_id, value_id, bytes, nonce) = ids;
        let key = SecretKey::filled(|key| *key = bytes);
        let bound = SealedFor { cluster_id, name: &name, value_id };
        let sealed = seal(&key, nonce, &bound, &value(&plain));
        prop_assert_eq!(sealed.sealed.len(), plain.len() + 16);
        let opened = open(&key, &bound, &sealed).unwrap();
        prop_assert_eq!(opened.reveal(), &plain[..]);
        if plain.len() > 8 {
            prop_assert!(!sealed.sealed.windows(plain.len()).any(|window| window == plain));
        }
    }

    #[test]
    fn any_change_of_a_byte_is_found(
        plain in vec(any::<u8>(), 1..200),
        at in any::<Index>(),
        flip in 1u8..,
    ) {
        let (key, bound) = (key(7), bound("s"));
        let mut sealed = seal(&key, [9; 24], &bound, &value(&plain));
        let at = at.index(sealed.sealed.len());
        sealed.sealed[at] ^= flip;
        prop_assert!(open(&key, &bound, &sealed).is_err());
    }
}
