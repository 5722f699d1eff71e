//! What a call brings along from its client, on whichever node it is done: how long the client waits, and by which ids the
//! call can be followed.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// An answer is with its client within this long.
const TOLD_WITHIN: Duration = Duration::from_millis(300);

tokio::task_local! {
    static CONTEXT: CallContext;
    /// What runs came to another node, which asks this one: it goes no further.
    static PASSED_ON: ();
}

/// What a call brings along.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallContext {
    /// When its client stops waiting, if it says so.
    #[serde(skip)]
    pub deadline: Option<Instant>,
    /// Which client, by its own id.
    pub client_id: Option<String>,
    /// The id that the client gave the call.
    pub request_id: Option<String>,
    /// The trace that it belongs to, as W3C Trace Context writes it.
    pub traceparent: Option<String>,
}

impl CallContext {
    /// Does something for a call: what is asked of another node for it brings this along.
    pub async fn within<T>(self, doing: impl Future<Output = T>) -> T {
        CONTEXT.scope(self, doing).await
    }

    /// That of the call which runs here; nothing where none does, or it brought nothing.
    pub(super) fn current() -> Self {
        CONTEXT.try_with(Clone::clone).unwrap_or_default()
    }

    /// Does what another node asks for: no further node is asked for that.
    pub(super) async fn passed_on<T>(doing: impl Future<Output = T>) -> T {
        PASSED_ON.scope((), doing).await
    }

    /// Whether what runs here came to another node.
    pub(super) fn is_passed_on() -> bool {
        PASSED_ON.try_with(|()| ()).is_ok()
    }

    /// When to stop waiting: a little before the client does, so that it hears what is known then, or after this long.
    pub(super) fn until(&self, at_most: Duration) -> Instant {
        let now = Instant::now();
        let before = |deadline: Instant| {
            let left = deadline.saturating_duration_since(now);
            now + left.saturating_sub(TOLD_WITHIN.min(left / 4))
        };
        self.deadline.map_or(now + at_most, |deadline| before(deadline).min(now + at_most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_call_brought_is_known_while_it_runs_and_nowhere_else() {
        let context = CallContext { client_id: Some("c".to_owned()), ..CallContext::default() };
        let seen = context.clone().within(async { CallContext::current() }).await;
        assert_eq!((seen, CallContext::current()), (context, CallContext::default()));
        assert!(CallContext::passed_on(async { CallContext::is_passed_on() }).await && !CallContext::is_passed_on());
    }

    #[test]
    fn nobody_waits_for_longer_than_the_client() {
        let deadline = Instant::now() + Duration::from_secs(60);
        let context = CallContext { deadline: Some(deadline), ..CallContext::default() };
        let until = context.until(Duration::from_secs(600));
        assert!(until < deadline && deadline - until <= TOLD_WITHIN, "a little before");
        assert!(context.until(Duration::ZERO) <= Instant::now());
        let past = CallContext { deadline: Some(Instant::now()), ..CallContext::default() };
        assert!(past.until(Duration::from_secs(60)) <= Instant::now());
    }
}
