//! One key.

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Bytes of a key.
pub(crate) const KEY_LEN: usize = 32;

/// In front of the key in what its id is made of, so that nobody else's digest of it is this one.
const ID_LABEL: &[u8] = b"vouch-secret-key 1\n";

/// Names a key, and tells nothing of it: it stands beside whatever the key sealed, where everybody may read it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretKeyId(pub [u8; 8]);

/// Sixteen digits, as in the key file.
impl fmt::Display for SecretKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SecretKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKeyId({self})")
    }
}

/// A key with its id. Its bytes lie in one place, from which they are wiped when it is dropped.
pub(crate) struct SecretKey {
    id: SecretKeyId,
    bytes: Box<Zeroizing<[u8; KEY_LEN]>>,
}

/// The id alone.
impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.id)
    }
}

impl SecretKey {
    /// A key that nobody knows.
    pub(crate) fn draw() -> Self {
        Self::filled(|bytes| rand::fill(bytes))
    }

    /// The key that `fill` writes, where it is to stay: what is moved leaves a copy behind.
    pub(crate) fn filled(fill: impl FnOnce(&mut [u8; KEY_LEN])) -> Self {
        let mut bytes = Box::new(Zeroizing::new([0; KEY_LEN]));
        fill(&mut bytes);
        let digest = Sha256::new().chain_update(ID_LABEL).chain_update(bytes.as_slice()).finalize();
        let id = digest.first_chunk().expect("a digest has 32 bytes");
        Self { id: SecretKeyId(*id), bytes }
    }

    pub(crate) fn id(&self) -> SecretKeyId {
        self.id
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_id_that_the_document_of_the_format_says() {
        let key = SecretKey::filled(|bytes| *bytes = std::array::from_fn(|at| at as u8));
        let digest = Sha256::digest([&b"vouch-secret-key 1\n"[..], &(0..32).collect::<Vec<u8>>()].concat());
        assert_eq!(key.id().0, digest[..8]);
        assert_eq!(key.id().to_string(), digest[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }

    #[test]
    fn keys_that_are_drawn_differ_and_are_not_printed() {
        let (one, other) = (SecretKey::draw(), SecretKey::draw());
        assert!(one.id() != other.id() && one.bytes() != other.bytes());
        assert_eq!(format!("{one:?}"), format!("SecretKey({})", one.id()));
    }
}
