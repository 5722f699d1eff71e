//! The span of a delivery to a component: what the log's lines within it say of it.

use tracing::field::Empty;
use tracing::{Span, info_span};
use vouch_broker::StoredMessage;
use vouch_broker::state::BindingEntry;
use vouch_registry::Digest;

use super::leased::Leased;

/// Opens the span of one delivery, from the lease to the record that it ends with, however often its call is run. All that is
/// logged within it says which message it is about, for whom, and at which attempt; and which component had it: a binding may
/// have been set anew meanwhile. It belongs to no other span: a binding receives on its own.
pub(super) fn of(binding: &str, entry: &BindingEntry, leased: &Leased) -> Span {
    info_span!(
        parent: None,
        "delivery",
        topic = %leased.subscription.topic,
        queue = leased.place.queue,
        offset = leased.place.offset.0,
        group = %leased.subscription.group,
        binding,
        digest = %Digest(entry.digest),
        attempt = leased.attempt,
        message_id = Empty,
    )
}

/// The message was read: it is named from here on.
pub(super) fn record_message(message: &StoredMessage) {
    Span::current().record("message_id", message.message.message_id.as_str());
}
