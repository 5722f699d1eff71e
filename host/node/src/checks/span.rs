//! The span of an ask: what the log's lines within it say of it.

use tracing::field::{Empty, display};
use tracing::{Span, info_span};
use vouch_broker::StoredMessage;
use vouch_leader::checks::{Checker, Due};
use vouch_registry::Digest;

/// Opens the span of one ask, up to the record that it ends with. All that is logged within it says which transaction it is
/// about; where a component is asked, of which binding it is and which one: a binding may have been set anew meanwhile.
pub(super) fn of(due: &Due) -> Span {
    let (binding, digest) = match &due.checker {
        Checker::Component { binding, entry } => (Some(binding), Some(display(Digest(entry.digest)))),
        Checker::Producer => (None, None),
    };
    info_span!(
        parent: None,
        "check",
        transaction = %due.id,
        topic = %due.topic,
        number = due.number,
        binding,
        digest,
        message_id = Empty,
        client_id = Empty,
    )
}

/// The half message was read: it is named from here on.
pub(super) fn record_half(half: &StoredMessage) {
    Span::current().record("message_id", half.message.message_id.as_str());
}

/// A producer is asked. A second one that is asked in its place is named beside it.
pub(super) fn record_client(client_id: &str) {
    Span::current().record("client_id", client_id);
}
