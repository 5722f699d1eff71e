//! ReceiveMessage, AckMessage, ChangeInvisibleDuration and ForwardMessageToDeadLetterQueue (§4.6 to §4.9).

use std::time::Duration;

use vouch_broker::{Refusal, ResourceName, TagFilter};

use super::{CallNames, Violation, refuse};
use crate::convert::duration;
use crate::limits;
use crate::wire::{self, Code, FilterExpression, FilterType};

/// A request to receive that broke no rule of the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidReceive {
    /// Consumer group.
    pub group: ResourceName,
    /// Topic; the queue of the request is no restriction (§4.6.2).
    pub topic: ResourceName,
    /// At most this many messages, 1 to 32.
    pub max: u32,
    /// Which messages.
    pub filter: TagFilter,
    /// Length of the lease, where the caller named one.
    pub invisible: Option<Duration>,
    /// The server chooses the lease and renews it while the client lives.
    pub auto_renew: bool,
    /// How long the caller wants to wait, where it says so.
    pub wait: Option<Duration>,
}

/// Checks a ReceiveMessage request. `invisible_min` is the shortest lease that it may ask for.
pub fn receive(
    request: wire::ReceiveMessageRequest,
    names: CallNames<'_>,
    invisible_min: Duration,
) -> Result<ValidReceive, Violation> {
    let topic = names.topic(request.message_queue.and_then(|queue| queue.topic))?;
    let group = names.group(request.group)?;
    let invisible = match request.invisible_duration {
        Some(wire) if !request.auto_renew => Some(invisible(&wire, invisible_min)?),
        _ => None,
    };
    Ok(ValidReceive {
        group,
        topic,
        max: u32::try_from(request.batch_size).unwrap_or(0).clamp(1, limits::RECEIVE_BATCH_MAX),
        filter: tag_filter(request.filter_expression.as_ref())?,
        invisible,
        auto_renew: request.auto_renew,
        wait: request.long_polling_timeout.map(|wire| duration(&wire).unwrap_or_default()),
    })
}

/// A length of a lease. The refusals begin with the reference's words, milliseconds included: programs look for them.
fn invisible(wire: &prost_types::Duration, min: Duration) -> Result<Duration, Violation> {
    let max = limits::INVISIBLE_MAX;
    match duration(wire) {
        Some(length) if (min..=max).contains(&length) => Ok(length),
        _ if wire.seconds >= max.as_secs() as i64 => refuse(
            Code::IllegalInvisibleTime,
            format!("the invisibleTime is too large. max is {} (milliseconds); ask for less", max.as_millis()),
        ),
        _ => refuse(
            Code::IllegalInvisibleTime,
            format!("the invisibleTime is too small. min is {} (milliseconds); ask for more", min.as_millis()),
        ),
    }
}

/// The new length of a lease: 0 (visible at once) to 12 hours.
pub fn invisible_duration(wire: Option<&prost_types::Duration>) -> Result<Duration, Violation> {
    match wire {
        Some(wire) => invisible(wire, Duration::ZERO),
        None => refuse(Code::IllegalInvisibleTime, "the request names no invisible duration; 0 is visible at once"),
    }
}

/// How long a poll waits. Never refuses (§4.6.5): the smallest of what was asked for, the server's bound and what the
/// deadline leaves.
///
/// `deadline` is the time left of the call; `request_timeout` is the client's own, from its Settings, and counts only
/// for old clients that do not say how long they want to wait.
pub fn poll_wait(wanted: Option<Duration>, deadline: Option<Duration>, request_timeout: Option<Duration>) -> Duration {
    let wanted = wanted.or_else(|| {
        let half = request_timeout.unwrap_or_default() / 2;
        deadline.map(|left| left.saturating_sub(half))
    });
    let room = deadline.map_or(limits::LONG_POLL_MAX, |left| left.saturating_sub(limits::LONG_POLL_MARGIN));
    wanted.unwrap_or(limits::LONG_POLL_MAX).min(limits::LONG_POLL_MAX).min(room)
}

/// Reads a filter expression: `*` or nothing for everything, `a || b` for tags (§4.6.3).
pub fn tag_filter(filter: Option<&FilterExpression>) -> Result<TagFilter, Violation> {
    let Some(filter) = filter else { return Ok(TagFilter::All) };
    let expression = filter.expression.trim();
    match FilterType::try_from(filter.r#type) {
        Ok(FilterType::Unspecified | FilterType::Tag) => {}
        Ok(FilterType::Sql) => return Err(Refusal::NotBuilt("an SQL filter (use a tag filter)").into()),
        Err(_) => return refuse(Code::IllegalFilterExpression, "the filter type is unknown; use TAG"),
    }
    if expression.is_empty() || expression == "*" {
        return Ok(TagFilter::All);
    }
    if expression.len() > limits::FILTER_EXPRESSION_MAX_BYTES {
        let max = limits::FILTER_EXPRESSION_MAX_BYTES;
        return refuse(Code::IllegalFilterExpression, format!("a filter expression has at most {max} bytes"));
    }
    let tags: Vec<_> = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty()).collect();
    if tags.is_empty() {
        return refuse(Code::IllegalFilterExpression, "the filter names no tag; write 'a || b', or '*' for everything");
    }
    if tags.len() > TagFilter::TAGS_MAX {
        let (count, max) = (tags.len(), TagFilter::TAGS_MAX);
        return refuse(
            Code::IllegalFilterExpression,
            format!("the filter names {count} tags; at most {max} are allowed"),
        );
    }
    Ok(TagFilter::tags(tags))
}

/// Checks an AckMessage request and gives its topic and group. The entries stay with the caller, who has to mirror them
/// in the answer, also in a refusal (§4.7).
pub fn acks(
    request: &mut wire::AckMessageRequest,
    names: CallNames<'_>,
) -> Result<(ResourceName, ResourceName), Violation> {
    let topic = names.topic(request.topic.take())?;
    let group = names.group(request.group.take())?;
    if request.entries.is_empty() {
        return refuse(Code::BadRequest, "the request has no entries; name at least one receipt handle");
    }
    if request.entries.len() > limits::ACK_BATCH_MAX {
        let (count, max) = (request.entries.len(), limits::ACK_BATCH_MAX);
        return refuse(Code::PayloadTooLarge, format!("the request has {count} entries; at most {max} are allowed"));
    }
    Ok((topic, group))
}

/// A lease that ends at another time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Consumer group.
    pub group: ResourceName,
    /// Topic.
    pub topic: ResourceName,
    /// From now.
    pub invisible: Duration,
    /// The next delivery does not count as one more attempt.
    pub suspend: bool,
}

/// Checks a ChangeInvisibleDuration request; its handle stays with the caller, who has to echo it.
pub fn change(request: &mut wire::ChangeInvisibleDurationRequest, names: CallNames<'_>) -> Result<Change, Violation> {
    let topic = names.topic(request.topic.take())?;
    let group = names.group(request.group.take())?;
    let invisible = invisible_duration(request.invisible_duration.as_ref())?;
    Ok(Change { group, topic, invisible, suspend: request.suspend.unwrap_or(false) })
}

/// A message for the dead-letter topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Consumer group.
    pub group: ResourceName,
    /// Topic.
    pub topic: ResourceName,
    /// The lease.
    pub handle: String,
    /// Attempts that the client made, for the reason that is kept.
    pub attempts: i32,
}

/// Checks a ForwardMessageToDeadLetterQueue request.
pub fn forward(
    request: wire::ForwardMessageToDeadLetterQueueRequest,
    names: CallNames<'_>,
) -> Result<Forward, Violation> {
    let topic = names.topic(request.topic)?;
    let group = names.group(request.group)?;
    Ok(Forward { group, topic, handle: request.receipt_handle, attempts: request.delivery_attempt })
}

#[cfg(test)]
#[path = "consume_tests.rs"]
mod tests;
