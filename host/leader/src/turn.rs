//! One turn of the shard, as its leader sees it: the state, what time it is, and whom it may ask.

use std::sync::Arc;
use std::time::Instant;

use vouch_broker::{Generation, Millis, RecordPosition, ResourceName, State, TagFilter};

/// A group, a topic, and the filter of a member that receives from it.
pub type FilterOf<'a> = (&'a ResourceName, &'a ResourceName, &'a TagFilter);

/// What a leader decides on. Times are those of the turn: all that is decided in one has the same.
#[derive(Clone, Copy)]
pub struct Turn<'a> {
    /// What the log says so far.
    pub state: &'a State,
    /// The log's time.
    pub time: Millis,
    /// The same moment by the machine's monotonic clock, by which callers wait.
    pub at: Instant,
    /// Everything else that it may ask.
    pub outside: &'a dyn Outside,
}

/// What a leader asks of whoever runs it. Answers at once, from memory.
pub trait Outside {
    /// Who lives.
    fn members(&self) -> &dyn Members;

    /// A number for leases that no lease of this log had before, and higher than all of them.
    fn new_generation(&self, time: Millis) -> Generation;

    /// Bytes of the record of a message that lies at this position; 0 where it cannot be read, which whoever reads the
    /// message will say.
    fn record_len(&self, position: RecordPosition) -> u32;
}

/// The consumers that live: what a leader must know of sessions, which belong to nodes.
pub trait Members: Send + Sync {
    /// Whether leases that are renewed for this client are kept.
    fn keeps_leases(&self, client_id: &str, at: Instant) -> bool;

    /// Whether messages of this lease may never have come to their consumer, whose node, or leader, was lost: then it is not
    /// extended, and they come again when it ends. `before`: another leader leased them, and no leader has extended that yet.
    fn may_be_lost(&self, _generation: Generation, _before: bool) -> bool {
        false
    }

    /// Filters of this group's members on a topic for which `is_noted` says no, `room` of them at most.
    fn unnoted_filters(
        &self,
        group: &ResourceName,
        topic: &ResourceName,
        room: usize,
        is_noted: &mut dyn FnMut(&TagFilter) -> bool,
    ) -> Vec<TagFilter>;

    /// Whether a member of this group lives that receives from this topic.
    fn has_member_on(&self, group: &ResourceName, topic: &ResourceName) -> bool;

    /// Whether a member lives that has this filter.
    fn has_filter(&self, filter: FilterOf<'_>) -> bool;
}

/// A consumer that died: leases that were renewed for it are free.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dead {
    /// Who it was.
    pub client_id: Arc<str>,
    /// Of which group.
    pub group: ResourceName,
}
