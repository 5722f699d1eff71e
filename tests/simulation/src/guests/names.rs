//! What guests, those around them and whoever checks them call what they share.

use std::time::Instant;

use vouch_broker::{GroupId, Millis, State, TopicId};
use vouch_leader::testing::Around;

/// The binding, and who its leases are for.
pub(crate) const BINDING: &str = "b";
pub(super) const CLIENT: &str = "vouch-binding/b";
/// A binding of nobody's that has the same namespace at times.
pub(crate) const SHARER: &str = "other";
/// Where it keeps something.
pub(crate) const NAMESPACE: &str = "n";
/// What it may answer for.
pub(crate) const TARGETS: &str = r#"{"plugin":"p:1","topics":["t"],"groups":["guests"]}"#;
/// The component that is bound.
pub(crate) const DIGEST: [u8; 32] = [9; 32];
/// Room for all that is kept in a run.
pub(crate) const ROOM: u64 = 1 << 20;
/// So many counted answers park a transaction.
pub(crate) const MOST_CHECKS: u32 = 4;

/// The topic whose messages it gets, the one that it publishes to, and one that goes while it does.
pub(crate) const IN: TopicId = TopicId(2);
pub(crate) const OUT: TopicId = TopicId(3);
pub(crate) const WITHDRAWN: TopicId = TopicId(4);
/// The group that it consumes for, together with others.
pub(crate) const GROUP: GroupId = GroupId(2);

/// Keys of numbers to which calls add one; of what is kept for a while; of what each call writes for itself.
pub(crate) const COUNTER: &str = "counter ";
pub(crate) const TEMPORARY: &str = "for a while ";
pub(crate) const OF_CALL: &str = "of ";

/// What a guest and those around it find on a node.
pub(crate) struct GuestView<'a> {
    pub(crate) now: u64,
    pub(crate) began: Instant,
    /// What time its node thinks it is.
    pub(crate) time: Millis,
    pub(crate) life: u64,
    /// The term in which it leads, as far as it knows.
    pub(crate) leads: Option<u64>,
    pub(crate) state: &'a State,
    pub(crate) around: &'a Around,
}

impl GuestView<'_> {
    /// Position of the record that created the binding that is there.
    pub(super) fn binding(&self) -> Option<u64> {
        self.state.plugins().binding(BINDING).map(|binding| binding.created)
    }
    /// The binding is there, and may keep whatever a run brings.
    pub(super) fn has_room(&self) -> bool {
        let binding = self.state.plugins().binding(BINDING);
        binding.and_then(|binding| binding.keeps.as_ref()).is_some_and(|keeps| keeps.quota == ROOM)
    }

    /// Messages are left that nobody is done with.
    pub(super) fn unfinished(&self) -> bool {
        let progress = self.state.groups().get(GROUP).and_then(|group| group.progress(IN));
        let (Some(progress), Some(topic)) = (progress, self.state.topics().get(IN)) else { return false };
        progress.unfinished() > 0 || (0..topic.config.queues).any(|queue| progress.next(queue) < topic.end(queue))
    }
}
