//! The server's half of the Settings exchange (§4.12.1, Appendix A).

use std::time::Duration;

use vouch_broker::GroupConfig;

use crate::convert::{duration, wire_duration};
use crate::limits;
use crate::wire::{
    ClientType, CustomizedBackoff, ExponentialBackoff, Language, Metric, RetryPolicy, Settings, retry_policy::Strategy,
    settings::PubSub,
};

/// The Settings to answer with: what the client sent, with the server's values merged in.
///
/// `group` is what the broker knows of the consumer's group; a group that does not exist yet has the defaults. Names
/// are echoed exactly, because the C++ client adopts the namespace of the first topic it gets back.
pub fn merge(mut settings: Settings, group: &GroupConfig) -> Settings {
    let language = settings.user_agent.as_ref().map_or(Language::Unspecified, |agent| agent.language());
    let push = settings.client_type() == ClientType::PushConsumer;
    settings.metric = Some(Metric { on: false, endpoints: None });
    match &mut settings.pub_sub {
        Some(PubSub::Publishing(publishing)) => {
            publishing.max_body_size = limits::BODY_MAX_BYTES as i32;
            publishing.validate_message_type = true;
            settings.backoff_policy = Some(producer_retry());
        }
        Some(PubSub::Subscription(subscription)) => {
            subscription.fifo = Some(group.ordered);
            subscription.receive_batch_size = Some(limits::RECEIVE_BATCH_MAX as i32);
            let wish = subscription.long_polling_timeout.as_ref().and_then(duration);
            let poll = if push { limits::LONG_POLL_MAX } else { simple_poll(wish) };
            subscription.long_polling_timeout = Some(wire_duration(poll));
            let node_push = push && language == Language::NodeJs;
            settings.backoff_policy = Some(if node_push { node_retry(group) } else { group_retry(group) });
        }
        None => {}
    }
    settings
}

/// Below a second, some clients poll without a pause.
fn simple_poll(wish: Option<Duration>) -> Duration {
    wish.filter(|wish| *wish >= Duration::from_secs(1)).unwrap_or(limits::LONG_POLL_MAX).min(limits::LONG_POLL_MAX)
}

/// How a producer is to send again: soon at first, and then ever later.
fn producer_retry() -> RetryPolicy {
    RetryPolicy {
        max_attempts: limits::PRODUCER_ATTEMPTS,
        strategy: Some(Strategy::ExponentialBackoff(ExponentialBackoff {
            initial: Some(wire_duration(limits::PRODUCER_BACKOFF_INITIAL)),
            max: Some(wire_duration(limits::PRODUCER_BACKOFF_MAX)),
            multiplier: limits::PRODUCER_BACKOFF_MULTIPLIER,
        })),
    }
}

/// How often a message of the group is handed out, in the width that the wire has for it.
fn attempts(group: &GroupConfig) -> i32 {
    i32::try_from(group.max_attempts).unwrap_or(i32::MAX)
}

/// The steps between two attempts of a group, as its clients are told.
fn group_retry(group: &GroupConfig) -> RetryPolicy {
    let next = group.backoff.iter().copied().map(wire_duration).collect();
    RetryPolicy {
        max_attempts: attempts(group),
        strategy: Some(Strategy::CustomizedBackoff(CustomizedBackoff { next })),
    }
}

/// The Node client ignores a list of steps and reads the seconds of an exponential rule as milliseconds (§6.3): the
/// rule that doubles from the group's first step to its last, told in its terms.
fn node_retry(group: &GroupConfig) -> RetryPolicy {
    let as_read = |step: Option<&Duration>| {
        let ms = step.map_or(1000, |step| step.as_millis().max(1));
        Some(prost_types::Duration { seconds: i64::try_from(ms).unwrap_or(i64::MAX), nanos: 0 })
    };
    RetryPolicy {
        max_attempts: attempts(group),
        strategy: Some(Strategy::ExponentialBackoff(ExponentialBackoff {
            initial: as_read(group.backoff.first()),
            max: as_read(group.backoff.last()),
            multiplier: 2.0,
        })),
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
