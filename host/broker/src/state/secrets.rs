//! Secrets, each with its sealed value. The state holds no key and opens none: what is here may be in every snapshot and
//! backup (ruling 24).

use std::collections::BTreeMap;
use std::fmt;

use super::snapshot::{SectionSource, Snapshot, Unreadable};
use crate::Refusal;
use crate::record::SecretPut;
use crate::record::codec::{DecodeError, Reader, Writer};

/// Most secrets in a cluster.
pub const SECRETS_MAX: usize = 1024;
/// Longest name of a secret in bytes, as that of a binding.
pub const SECRET_NAME_MAX: usize = 128;
/// Longest value of a secret in bytes, before it is sealed (ruling 24).
pub const SECRET_VALUE_MAX: usize = 64 * 1024;
/// What sealing adds to a value, in bytes.
pub const SECRET_SEAL_LEN: usize = 16;
/// Most bytes of the names and sealed values of all secrets: each snapshot writes all of them anew.
pub const SECRETS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A secret as the log holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretEntry {
    /// Log position of the record that set it, or sealed it anew.
    pub revision: u64,
    /// Another value has another one; the same value that was sealed anew has the same.
    pub value_id: [u8; 16],
    /// Names the key that opens it.
    pub key_id: [u8; 8],
    /// What it was sealed with besides the key.
    pub nonce: [u8; 24],
    /// The sealed value.
    pub sealed: Vec<u8>,
}

/// Without what is sealed, as its record.
impl fmt::Debug for SecretEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretEntry").field("revision", &self.revision).finish_non_exhaustive()
    }
}

/// Checks the name of a secret, as those of bindings are checked.
///
/// # Errors
/// [`Refusal::Invalid`], with the characters that are allowed.
pub fn check_secret_name(name: &str) -> Result<(), Refusal> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if !name.is_empty() && name.len() <= SECRET_NAME_MAX && name.bytes().all(allowed) {
        return Ok(());
    }
    // A value that somebody took for the name is not repeated: what refuses it may be logged.
    Err(Refusal::Invalid(format!(
        "this is no name of a secret: use letters, digits, '_', '.' and '-', at most {SECRET_NAME_MAX} characters"
    )))
}

/// All secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealedSecrets {
    secrets: BTreeMap<String, SecretEntry>,
    /// Bytes of all names and sealed values.
    bytes: usize,
}

impl SealedSecrets {
    /// The secret with this name.
    pub fn get(&self, name: &str) -> Option<&SecretEntry> {
        self.secrets.get(name)
    }

    /// All secrets in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SecretEntry)> {
        self.secrets.iter().map(|(name, secret)| (name.as_str(), secret))
    }

    /// Bytes of all names and sealed values, at most [`SECRETS_BYTES_MAX`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets a secret, whose name is one. Returns whether it is new.
    pub(super) fn put(&mut self, put: &SecretPut, revision: u64) -> Result<bool, Refusal> {
        let SecretPut { name, value_id, key_id, nonce, sealed, expected_revision: _ } = put;
        if !(SECRET_SEAL_LEN + 1..=SECRET_SEAL_LEN + SECRET_VALUE_MAX).contains(&sealed.len()) {
            return Err(Refusal::Invalid(format!(
                "the value of secret {name} is empty, or longer than {SECRET_VALUE_MAX} bytes: set it to a value of 1 to \
                 {SECRET_VALUE_MAX} bytes"
            )));
        }
        let before = self.secrets.get(name).map(|secret| cost(name, secret));
        if before.is_none() && self.secrets.len() >= SECRETS_MAX {
            return Err(Refusal::TooMany(format!("there are {SECRETS_MAX} secrets already; delete one first")));
        }
        let bytes = self.bytes - before.unwrap_or(0) + name.len() + sealed.len();
        if bytes > SECRETS_BYTES_MAX {
            return Err(Refusal::TooMany(format!(
                "with this one all secrets would have {bytes} bytes, and at most {SECRETS_BYTES_MAX} are kept; delete one \
                 first, or shorten it"
            )));
        }
        let (value_id, key_id, nonce, sealed) = (*value_id, *key_id, *nonce, sealed.clone());
        self.secrets.insert(name.clone(), SecretEntry { revision, value_id, key_id, nonce, sealed });
        self.bytes = bytes;
        Ok(before.is_none())
    }

    /// Removes a secret that no binding names.
    pub(super) fn delete(&mut self, name: &str) {
        if let Some(secret) = self.secrets.remove(name) {
            self.bytes -= cost(name, &secret);
        }
    }
}

/// What a secret counts for in [`SealedSecrets::bytes`].
fn cost(name: &str, secret: &SecretEntry) -> usize {
    name.len() + secret.sealed.len()
}

impl Snapshot for SealedSecrets {
    const SECTION: u16 = 10;
    // Of the first version of sections the checksum leaves out the head; this one is younger.
    const OLDEST: u8 = 2;
    const VERSION: u8 = 2;

    fn write(&self, w: &mut Writer<'_>, _: u8) {
        let Self { secrets, bytes: _ } = self;
        w.varint(secrets.len() as u64);
        for (name, SecretEntry { revision, value_id, key_id, nonce, sealed }) in secrets {
            w.text(name);
            w.u64(*revision);
            w.0.extend_from_slice(value_id);
            w.0.extend_from_slice(key_id);
            w.0.extend_from_slice(nonce);
            w.bytes(sealed);
        }
    }

    fn read(r: &mut Reader<'_>, _: &SectionSource<'_>) -> Result<Self, Unreadable> {
        let mut read = Self::default();
        for number in 0..r.count("secrets")? {
            let name = r.string("secret name")?;
            let ascends = read.secrets.last_key_value().is_none_or(|(last, _)| *last < name);
            if !ascends || read.secrets.len() == SECRETS_MAX {
                return Err(DecodeError::Value { field: "secret", value: number as u64 }.into());
            }
            let secret = SecretEntry {
                revision: r.u64("revision")?,
                value_id: r.array("value id")?,
                key_id: r.array("key id")?,
                nonce: r.array("nonce")?,
                sealed: r.bytes("sealed value")?.to_vec(),
            };
            read.bytes += cost(&name, &secret);
            read.secrets.insert(name, secret);
        }
        Ok(read)
    }
}
