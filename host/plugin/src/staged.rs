//! What a call staged: it is recorded with the answer, or dropped.

use std::collections::BTreeMap;

use bytes::Bytes;

/// What a call staged, to be recorded with its answer or dropped. Empty where there is no answer, or one that is to be asked or
/// delivered again uncounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Staged {
    /// Keys that were read, with the version that each had: what was staged holds as long as they have it.
    pub reads: BTreeMap<String, u64>,
    /// Keys that are written, each once.
    pub writes: BTreeMap<String, StateWrite>,
    /// Messages with their ids, in the order in which they were published.
    pub drafts: Vec<(String, Draft)>,
}

impl Staged {
    /// Most bytes of a key; the least is 1.
    pub const MAX_KEY: usize = 512;
    /// Most bytes of a value.
    pub const MAX_VALUE: usize = 64 << 10;
    /// Most keys that one call reads.
    pub const MAX_READS: usize = 512;
    /// Most keys that one call writes.
    pub const MAX_WRITES: usize = 64;
    /// Most bytes of the keys and values that one call writes, together.
    pub const MAX_WRITTEN: usize = 256 << 10;
    /// Most messages that one call publishes.
    pub const MAX_DRAFTS: usize = 16;
    /// Most bytes of the bodies, properties, keys and tags that one call publishes, together.
    pub const MAX_DRAFTED: usize = 4 << 20;

    /// Whether there is nothing to record.
    pub fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.writes.is_empty() && self.drafts.is_empty()
    }
}

/// What becomes of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateWrite {
    /// What is kept from now on; `None`: the key is removed.
    pub value: Option<Vec<u8>>,
    /// Until when.
    pub expires: StateExpiry,
}

impl StateWrite {
    /// The key goes.
    pub(crate) const REMOVED: Self = Self { value: None, expires: StateExpiry::Never };
}

/// Until when a value is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateExpiry {
    /// Until it is removed or written again.
    Never,
    /// For so many ms from the record on; never 0.
    AfterMs(u32),
    /// To this time, in ms since 1970 by the log's clock: when what was there before would have gone.
    AtMs(u64),
}

/// A message that a component wants to publish: the record `draft` of the WIT interface `outbox`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// The topic: one that the binding grants.
    pub topic: String,
    /// Tag, if set.
    pub tag: Option<String>,
    /// Business keys.
    pub keys: Vec<String>,
    /// Ordering key.
    pub message_group: Option<String>,
    /// Properties, as the component gave them: a name may come twice.
    pub properties: Vec<(String, String)>,
    /// Body, not encoded.
    pub body: Bytes,
}

impl Draft {
    /// What of [`Staged::MAX_DRAFTED`] it takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        let properties = self.properties.iter().map(|(name, value)| name.len() + value.len());
        let keys = self.keys.iter().chain(&self.tag).chain(&self.message_group).map(String::len);
        self.body.len() + properties.chain(keys).sum::<usize>()
    }
}
