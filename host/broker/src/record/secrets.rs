//! Records about secrets. A value comes sealed: no record, and nobody who only reads the log, could open it (ruling 24).

use std::fmt;

use super::Fields;
use super::codec::{DecodeError, Reader, Writer};

/// The kinds of this family, each with its sentence: a link of the chain of [`super::each_kind`].
macro_rules! secrets_kinds {
    ([$next:path $(, $rest:path)*] $($before:tt)*) => {
        $next! { [$($rest),*] $($before)*
            /// A secret was set, or sealed anew.
            SecretPut,
            /// A secret was removed.
            SecretDeleted,
        }
    };
}
pub(crate) use secrets_kinds;

/// Sets a secret, or seals its value anew with another key.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretPut {
    /// Name of the secret.
    pub name: String,
    /// Tells one value from the next under this name: drawn by the node that sealed it first, and sealed with it. The same
    /// value that is sealed anew keeps it, so nobody reconnects for that.
    pub value_id: [u8; 16],
    /// Names the key that opens it. The key itself lies in files of the nodes, never in the log.
    pub key_id: [u8; 8],
    /// Drawn anew for each sealing.
    pub nonce: [u8; 24],
    /// The sealed value.
    pub sealed: Vec<u8>,
    /// Only if the secret still has this revision; 0: only if it does not exist.
    pub expected_revision: Option<u64>,
}

/// Without what is sealed: it is long, and tells a reader of the log nothing.
impl fmt::Debug for SecretPut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretPut")
            .field("name", &self.name)
            .field("value_id", &format_args!("{:032x}", u128::from_be_bytes(self.value_id)))
            .field("key_id", &format_args!("{:016x}", u64::from_be_bytes(self.key_id)))
            .field("sealed", &format_args!("{} bytes", self.sealed.len()))
            .field("expected_revision", &self.expected_revision)
            .finish_non_exhaustive()
    }
}

impl Fields for SecretPut {
    const KIND: u16 = 22;

    fn write(&self, w: &mut Writer<'_>) {
        w.text(&self.name);
        w.0.extend_from_slice(&self.value_id);
        w.0.extend_from_slice(&self.key_id);
        w.0.extend_from_slice(&self.nonce);
        w.bytes(&self.sealed);
        w.option(self.expected_revision, |w, revision| w.u64(revision));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: r.string("secret name")?,
            value_id: r.array("value id")?,
            key_id: r.array("key id")?,
            nonce: r.array("nonce")?,
            sealed: r.bytes("sealed value")?.to_vec(),
            expected_revision: r.option("expected revision", |r| r.u64("expected revision"))?,
        })
    }
}

/// Removes a secret; refused while a binding names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretDeleted {
    /// Name of the secret.
    pub name: String,
}

impl Fields for SecretDeleted {
    const KIND: u16 = 23;

    fn write(&self, w: &mut Writer<'_>) {
        w.text(&self.name);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { name: r.string("secret name")? })
    }
}
