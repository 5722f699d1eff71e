//! A secret that is to be set, and keys, as they go from one node to another.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vouch_broker::record::SecretPut;

/// A secret that is to be set: sealed where it came in, so no plaintext goes to another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealedSecret {
    pub(crate) name: String,
    value_id: [u8; 16],
    key_id: [u8; 8],
    nonce: [u8; 24],
    sealed: SealedBytes,
    expected_revision: Option<u64>,
}

/// Of the sealed value, which tells a reader of logs nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SealedBytes(Bytes);

impl fmt::Debug for SealedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl SealedSecret {
    pub(crate) fn of(put: SecretPut) -> Self {
        let SecretPut { name, value_id, key_id, nonce, sealed, expected_revision } = put;
        Self { name, value_id, key_id, nonce, sealed: SealedBytes(sealed.into()), expected_revision }
    }

    /// The key that sealed it.
    pub(super) fn key_id(&self) -> [u8; 8] {
        self.key_id
    }

    /// As the log has it.
    pub(crate) fn into_record(self) -> SecretPut {
        let Self { name, value_id, key_id, nonce, sealed: SealedBytes(sealed), expected_revision } = self;
        SecretPut { name, value_id, key_id, nonce, sealed: sealed.into(), expected_revision }
    }
}

/// A key file, or nothing, on its way to a node that showed its certificate. It is printed by nobody.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeysOnTheWay(pub(crate) Bytes);

impl fmt::Debug for KeysOnTheWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Keys that a node gives another: which that one is to have, too. Without any it only wants to hear which are there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeysTaken {
    pub(crate) take: KeysOnTheWay,
    /// The first of them seals from now on.
    pub(crate) leads: bool,
    /// Others that nobody needs go.
    pub(crate) only: bool,
}
