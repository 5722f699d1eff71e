//! The span of a call: what the log's lines within it say of it, so that one call can be followed.
//!
//! A span costs what is written into it. So the calls that come a hundred thousand times a second ([`Method::is_frequent`])
//! write nothing into theirs at the default level: their fields are filled in when lines about single calls are written
//! ([`told`]), or when the call fails by a defect, before the line that says so. All other calls say at once who calls and
//! about what.
//!
//! No id is made up here: a call that is to be followed across programs brings `traceparent` or `x-mq-request-id`, as official
//! clients do, and these are written as they came.

use std::fmt::{self, Display};
use std::time::Instant;

use futures_util::future::Either;
use tonic::metadata::MetadataMap;
use tracing::field::display;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, Span, record_all};
use vouch_broker::{NotDone, ResourceName, TransactionId};
use vouch_node::CallContext;
use vouch_protocol::wire::Code;

use super::answer::RefusedCall;
use super::caller::CallMetadata;
use super::calls::Method;

/// Ids of one call that its span names; of the others it says how many there are.
const IDS_MAX: usize = 32;

/// Whether lines about single calls are written somewhere. One load of an atomic number.
pub(super) fn told() -> bool {
    LevelFilter::current() >= LevelFilter::DEBUG
}

/// A call under way: which one, whose, and its span.
pub(super) struct CallUnderWay<'a> {
    /// Which one.
    pub(super) method: Method,
    /// Whose.
    pub(super) caller: CallMetadata<'a>,
    /// What is logged while it runs says this of it.
    pub(super) span: Span,
    /// Another node may do it: then it brings along what its client said.
    passes_on: bool,
}

impl<'a> CallUnderWay<'a> {
    /// Opens the span.
    pub(super) fn begin(method: Method, metadata: &'a MetadataMap, passes_on: bool) -> Self {
        let (caller, span) = (CallMetadata::of(metadata), method.span());
        if !method.is_frequent() || told() {
            record_caller(&span, caller);
        }
        Self { method, caller, span, passes_on }
    }

    /// Does what the call asks for, within its span.
    ///
    /// A transport that learns that nobody waits for the answer any more drops what is under way, wherever it is: then the last
    /// line of the call says so.
    pub(super) fn run<T>(
        &self,
        doing: impl Future<Output = Result<T, RefusedCall>>,
    ) -> impl Future<Output = Result<T, RefusedCall>> {
        let unheard = Unheard(told().then(|| self.span.clone()));
        let doing = self.bringing_along(doing);
        let doing = async move {
            let done = doing.await;
            unheard.heard();
            done
        };
        doing.instrument(self.span.clone())
    }

    /// The same with what the client said of the call, for the node that does it.
    pub(super) fn bringing_along<T, F: Future<Output = T>>(&self, doing: F) -> impl Future<Output = T> + use<T, F> {
        if !self.passes_on {
            return Either::Left(doing);
        }
        let caller = self.caller;
        let context = CallContext {
            deadline: caller.deadline().and_then(|left| Instant::now().checked_add(left)),
            client_id: caller.client_id().ok().map(str::to_owned),
            request_id: caller.request_id().map(str::to_owned),
            traceparent: caller.traceparent().map(str::to_owned),
        };
        Either::Right(context.within(doing))
    }

    /// Says how the call is answered, where lines about single calls are written.
    pub(super) fn tell(&self, code: Code, why: Option<&str>) {
        tell(&self.span, code, why);
    }
}

/// The last line of a call. `why`: where it was refused.
pub(super) fn tell(span: &Span, code: Code, why: Option<&str>) {
    if told() {
        span.in_scope(|| tracing::debug!(code = code.as_str_name(), why, "answered"));
    }
}

/// The last line of a call whose caller went away before it was answered.
pub(super) fn tell_gone(span: &Span) {
    if told() {
        span.in_scope(|| tracing::debug!("the caller went away before the answer"));
    }
}

/// A call under way, where lines about single calls are written: elsewhere nothing is kept for it.
///
/// Dropped before it was done, nobody heard its answer: its caller went away.
struct Unheard(Option<Span>);

impl Unheard {
    /// It is done, and is answered.
    fn heard(mut self) {
        self.0 = None;
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        if let Some(span) = &self.0 {
            tell_gone(span);
        }
    }
}

/// Who calls. A header that is no text, or a client id that is none, is left out: the answer says so.
fn record_caller(span: &Span, caller: CallMetadata<'_>) {
    let client_id = caller.client_id().ok();
    record_all!(span, client_id, request_id = caller.request_id(), traceparent = caller.traceparent());
}

/// What a call is about, as far as it is known by now. What is not is left as it was.
#[derive(Default)]
pub(super) struct CallSubject<'a> {
    pub(super) topic: Option<&'a ResourceName>,
    pub(super) group: Option<&'a ResourceName>,
    pub(super) message_ids: &'a [&'a str],
    pub(super) queue: Option<u32>,
    pub(super) transactions: &'a [TransactionId],
}

impl CallSubject<'_> {
    /// Writes it into the span of the call that runs here.
    pub(super) fn record(&self) {
        let span = Span::current();
        let message_id = self.message_ids.iter().any(|id| !id.is_empty()).then(|| display(Ids(self.message_ids)));
        let transaction = (!self.transactions.is_empty()).then(|| display(Ids(self.transactions)));
        record_all!(
            span,
            topic = self.topic.map(display),
            group = self.group.map(display),
            message_id,
            queue = self.queue,
            transaction
        );
    }

    /// The same for a call that is frequent and wrote nothing of itself until it failed: a defect is logged, and its line says
    /// what was called. A refusal is the client's to look at.
    pub(super) fn record_defect(&self, caller: CallMetadata<'_>, not_done: &NotDone) {
        if not_done.is_internal() && !told() {
            record_caller(&Span::current(), caller);
            self.record();
        }
    }
}

/// The queue of all of them, if it is one: a batch that lies in several has none that could be named, and the first alone would
/// send whoever looks for the others to the wrong place.
pub(super) fn one_queue(mut queues: impl Iterator<Item = u32>) -> Option<u32> {
    let first = queues.next()?;
    queues.all(|queue| queue == first).then_some(first)
}

/// What a client declares over its stream. Topics are named as ids are.
pub(super) fn record_declared(group: Option<&ResourceName>, topics: &[ResourceName]) {
    let topic = (!topics.is_empty()).then(|| display(Ids(topics)));
    let span = Span::current();
    record_all!(span, group = group.map(display), topic);
}

/// Several ids in one field, with commas between them.
struct Ids<'a, T>(&'a [T]);

impl<T: Display> Display for Ids<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, id) in self.0.iter().take(IDS_MAX).enumerate() {
            write!(f, "{}{id}", if nth > 0 { "," } else { "" })?;
        }
        match self.0.len().saturating_sub(IDS_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_named_where_it_is_that_of_all() {
        let of = |queues: &[u32]| one_queue(queues.iter().copied());
        assert_eq!((of(&[]), of(&[3]), of(&[3, 3]), of(&[3, 3, 4])), (None, Some(3), Some(3), None));
    }

    #[test]
    fn a_field_names_so_many_ids_and_counts_the_others() {
        assert_eq!(Ids(&["a"]).to_string(), "a");
        assert_eq!(Ids(&["a", "b"]).to_string(), "a,b");
        let ids: Vec<_> = (0..IDS_MAX + 2).collect();
        assert!(Ids(&ids).to_string().ends_with(",31 and 2 more"), "{}", Ids(&ids));
        assert!(Ids(&ids[..IDS_MAX]).to_string().ends_with(",31"));
    }
}
