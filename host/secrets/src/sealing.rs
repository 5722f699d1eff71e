//! Sealing and opening one value: XChaCha20-Poly1305, whose nonces are long enough to be drawn by chance (ruling 24).
//!
//! What is sealed is tied to its cluster, its name and an id of the value, which are authenticated with it:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `VOUCHSEC` |
//! | 8 | 1 | version, 1 |
//! | 9 | 16 | cluster id |
//! | 25 | 16 | value id |
//! | 41 | | name, to the end |

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::key::{SecretKey, SecretKeyId};
use crate::value::SecretValue;

/// In front of what a value is tied to: no other use of a key could be taken for this one.
const MAGIC: &[u8; 8] = b"VOUCHSEC";
const VERSION: u8 = 1;

/// What a value is sealed for. With anything else of it another, it does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedFor<'a> {
    /// The cluster. A restored one has the id that it had.
    pub cluster_id: [u8; 16],
    /// Name of the secret.
    pub name: &'a str,
    /// Tells one value under this name from the next: its revision, as far as that is known before the log has it. The same
    /// value that is sealed anew keeps it.
    pub value_id: [u8; 16],
}

impl<'a> SealedFor<'a> {
    /// For a value that was never sealed before: its id is drawn.
    pub fn new_value(cluster_id: [u8; 16], name: &'a str) -> Self {
        Self { cluster_id, name, value_id: rand::random() }
    }

    fn associated_data(&self) -> Vec<u8> {
        [MAGIC, &[VERSION][..], &self.cluster_id, &self.value_id, self.name.as_bytes()].concat()
    }
}

/// A sealed value. It may lie where everybody can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedValue {
    /// Names the key that opens it.
    pub key: SecretKeyId,
    /// Drawn anew for each sealing.
    pub nonce: [u8; 24],
    /// The value, encrypted, and 16 bytes by which any change of it is found.
    pub sealed: Vec<u8>,
}

/// Why a sealed value stays closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// Bring the key: nothing is wrong with the value.
    #[error(
        "this node lacks key {key}, which secret {name} is sealed with: copy secrets.key from a node that has it; where no \
         node has it, set the secret again"
    )]
    KeyUnknown {
        /// Name of the secret.
        name: String,
        /// Names the key.
        key: SecretKeyId,
    },
    /// Set the secret again: nobody can read this one, whatever the key.
    #[error(
        "secret {name} does not open with key {key}: it was changed since it was sealed, or sealed for another cluster, name \
         or value; set it again"
    )]
    NotAuthentic {
        /// Name of the secret.
        name: String,
        /// Names the key.
        key: SecretKeyId,
    },
}

/// Seals a value with a key and a nonce that is used once.
pub(crate) fn seal(key: &SecretKey, nonce: [u8; 24], bound: &SealedFor<'_>, value: &SecretValue) -> SealedValue {
    let payload = Payload { msg: value.reveal(), aad: &bound.associated_data() };
    let sealed = cipher(key).encrypt(&XNonce::from(nonce), payload);
    SealedValue { key: key.id(), nonce, sealed: sealed.expect("a value is far shorter than the cipher takes") }
}

/// Opens what [`seal`] gave.
pub(crate) fn open(key: &SecretKey, bound: &SealedFor<'_>, sealed: &SealedValue) -> Result<SecretValue, Unopened> {
    let refused = || Unopened::NotAuthentic { name: bound.name.to_owned(), key: sealed.key };
    let payload = Payload { msg: &sealed.sealed, aad: &bound.associated_data() };
    let opened = cipher(key).decrypt(&XNonce::from(sealed.nonce), payload).map_err(|_| refused())?;
    // What was sealed here is a value that fits.
    SecretValue::new(opened).map_err(|_| refused())
}

/// Wipes what it made of the key when it is dropped.
fn cipher(key: &SecretKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.bytes().into())
}

#[cfg(test)]
#[path = "sealing_tests.rs"]
mod tests;
