//! What one call may do with state and outbox, and what it did so far.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    bindings::{outbox::OutboxError, state::StateError},
    dry::DryRun,
    reach::{CallReach, StateValue},
    staged::{Draft, Staged, StateExpiry, StateWrite},
};

/// What a binding grants of state and outbox.
#[derive(Clone, Default)]
pub(crate) struct LentGrants {
    /// It has a namespace.
    pub(crate) state: bool,
    /// Topics that may be published to.
    pub(crate) publish: Arc<[String]>,
}

/// What the broker lends to one call, and what that staged.
pub(crate) struct Lent {
    grants: LentGrants,
    reach: Option<Arc<dyn CallReach>>,
    /// It is about one question, so that what it stages goes with the answer to that.
    stages: bool,
    /// Nothing of it is to stay.
    pub(crate) dry: Option<DryRun>,
    /// What was under each key when it was read first: one call sees one version.
    read: BTreeMap<String, StateValue>,
    writes: BTreeMap<String, StateWrite>,
    /// Bytes of the keys and values in `writes`.
    written: usize,
    drafts: Vec<(String, Draft)>,
    /// Bytes of the messages in `drafts`.
    drafted: usize,
}

/// What a call sees under a key: what it wrote, or what it read first.
pub(crate) struct SeenValue {
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) expires: StateExpiry,
}

impl Lent {
    /// For a call that `stages`, or only reads; without a reach there is nothing to be had.
    pub(crate) fn new(
        grants: LentGrants,
        reach: Option<Arc<dyn CallReach>>,
        stages: bool,
        dry: Option<DryRun>,
    ) -> Self {
        Self {
            grants,
            reach,
            stages,
            dry,
            read: BTreeMap::new(),
            writes: BTreeMap::new(),
            written: 0,
            drafts: Vec::new(),
            drafted: 0,
        }
    }

    /// What was staged; nothing of a dry call.
    pub(crate) fn into_staged(self) -> Staged {
        if self.dry.is_some() {
            return Staged::default();
        }
        let reads = self.read.into_iter().map(|(key, found)| (key, found.version)).collect();
        Staged { reads, writes: self.writes, drafts: self.drafts }
    }
}

/// Reading and writing of state.
impl Lent {
    /// Whether this call may use this key at all.
    pub(crate) fn may_read(&self, key: &str) -> Result<(), StateError> {
        if !self.grants.state {
            let text = "the binding does not grant state; set \"state\" in its grants to true or to a name";
            return Err(StateError::NotGranted(text.to_owned()));
        }
        match key.len() {
            0 => Err(StateError::Invalid("the key is empty: it has 1 to 512 bytes".to_owned())),
            1..=Staged::MAX_KEY => Ok(()),
            size => Err(too_large("the key", size, Staged::MAX_KEY, "bytes")),
        }
    }

    /// Whether it may write it as well.
    pub(crate) fn may_write(&self, key: &str) -> Result<(), StateError> {
        self.may_read(key)?;
        if !self.stages {
            return Err(StateError::NotGranted(STAGES_NOTHING.to_owned()));
        }
        self.reach.as_ref().map(drop).ok_or_else(no_reach)
    }

    /// What is known of a key: what the call wrote itself, or read before.
    pub(crate) fn seen(&self, key: &str) -> Option<SeenValue> {
        if let Some(StateWrite { value, expires }) = self.writes.get(key) {
            return Some(SeenValue { value: value.clone(), expires: *expires });
        }
        self.read.get(key).map(seen)
    }

    /// Where a key is to be read that is not known yet.
    pub(crate) fn reading(&self) -> Result<Arc<dyn CallReach>, StateError> {
        if self.read.len() >= Staged::MAX_READS {
            return Err(too_large("what this call reads", self.read.len() + 1, Staged::MAX_READS, "keys"));
        }
        self.reach.clone().ok_or_else(no_reach)
    }

    /// A key was read for the first time.
    pub(crate) fn found(&mut self, key: String, value: StateValue) -> SeenValue {
        let seen = seen(&value);
        self.read.insert(key, value);
        seen
    }

    /// Stages a write, in place of what this call wrote there before.
    pub(crate) fn write(&mut self, key: String, write: StateWrite) -> Result<(), StateError> {
        self.may_write(&key)?;
        let value = write.value.as_ref().map_or(0, Vec::len);
        if value > Staged::MAX_VALUE {
            return Err(too_large("the value", value, Staged::MAX_VALUE, "bytes"));
        }
        let before = self.writes.get(&key).map(|before| weight(&key, before));
        if before.is_none() && self.writes.len() >= Staged::MAX_WRITES {
            return Err(too_large("what this call writes", self.writes.len() + 1, Staged::MAX_WRITES, "keys"));
        }
        let written = self.written - before.unwrap_or(0) + weight(&key, &write);
        if written > Staged::MAX_WRITTEN {
            return Err(too_large("what this call writes", written, Staged::MAX_WRITTEN, "bytes of keys and values"));
        }
        self.written = written;
        self.writes.insert(key, write);
        Ok(())
    }
}

/// Publishing.
impl Lent {
    /// Whether the binding lets its component hand over a whole message.
    pub(crate) fn publishes(&self) -> bool {
        !self.grants.publish.is_empty()
    }

    /// Whether this call may publish this message, as far as the binding and the limits of a call say; whom to ask about the topic.
    pub(crate) fn may_publish(&self, draft: &Draft) -> Result<Arc<dyn CallReach>, OutboxError> {
        if !self.grants.publish.contains(&draft.topic) {
            return Err(OutboxError::NotGranted(format!(
                "the binding does not grant publishing to this topic; name `{}` in \"publish\" of its grants",
                draft.topic
            )));
        }
        if !self.stages {
            return Err(OutboxError::NotGranted(STAGES_NOTHING.to_owned()));
        }
        let Some(reach) = &self.reach else {
            return Err(OutboxError::NotGranted("this call may not publish: nothing would record it".to_owned()));
        };
        if self.drafts.len() >= Staged::MAX_DRAFTS {
            let most = Staged::MAX_DRAFTS;
            return Err(OutboxError::TooMany(format!("{most} messages are the most that one call publishes")));
        }
        let drafted = self.drafted + draft.size();
        if drafted > Staged::MAX_DRAFTED {
            return Err(OutboxError::TooLarge(format!(
                "what this call publishes has {drafted} bytes with this message: at most {} fit",
                Staged::MAX_DRAFTED
            )));
        }
        Ok(Arc::clone(reach))
    }

    /// Stages a message that was checked; its id.
    pub(crate) fn publish(&mut self, draft: Draft, reach: &dyn CallReach) -> String {
        // At most as many as one call publishes.
        let id = reach.message_id(u32::try_from(self.drafts.len()).unwrap_or(u32::MAX));
        self.drafted += draft.size();
        self.drafts.push((id.clone(), draft));
        id
    }
}

/// Why a call about several changes nothing: it has no one answer that this could go with.
const STAGES_NOTHING: &str = "a call about several transactions stages nothing; export `checkback`";

/// Whoever runs the component lends nothing to this call.
fn no_reach() -> StateError {
    StateError::Unavailable("there is no state where this call runs".to_owned())
}

fn too_large(what: &str, is: usize, most: usize, of: &str) -> StateError {
    StateError::TooLarge(format!("{what} comes to {is} {of}: {most} are the most"))
}

/// What a write takes of [`Staged::MAX_WRITTEN`].
fn weight(key: &str, write: &StateWrite) -> usize {
    key.len() + write.value.as_ref().map_or(0, Vec::len)
}

/// What was read, as the call sees it.
fn seen(StateValue { value, expires_at_ms, .. }: &StateValue) -> SeenValue {
    SeenValue { value: value.clone(), expires: expires_at_ms.map_or(StateExpiry::Never, StateExpiry::AtMs) }
}
