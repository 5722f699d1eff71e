//! The trailer `retry-after-ms` of a throttled call (ruling 21), and the way of a call's bytes in and out.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::inbound::{ConnectionInbound, CountedBody};
use crate::outbound::{ConnectionOutbound, Room, RoomAsked};

/// Name of the trailer.
pub(super) const RETRY_AFTER: &str = "retry-after-ms";
/// Calls whose answers are streams. Those wait for room before their next part is made.
const STREAMS: [&str; 2] = ["ReceiveMessage", "Telemetry"];
/// Room that is asked for before a part of a stream is made: the largest message with all that belongs to it, and what the
/// encoder gathers besides.
const PART_MAX_BYTES: usize = (4 << 20) + (256 << 10);

/// Put into the extensions of a response: becomes the trailer if it is set before the response ends.
#[derive(Clone, Debug, Default)]
pub(super) struct RetryAfter(Arc<OnceLock<u64>>);

impl RetryAfter {
    pub(super) fn ms(ms: u64) -> Self {
        Self(Arc::new(OnceLock::from(ms)))
    }

    /// Sets it once; later values are ignored.
    pub(super) fn set(&self, ms: u64) {
        self.0.get_or_init(|| ms);
    }
}

/// A gRPC service whose requests and answers are counted, and whose answers get their trailer.
#[derive(Clone, Debug)]
pub(crate) struct WithTrailer<S> {
    service: S,
    inbound: Arc<ConnectionInbound>,
    outbound: Arc<ConnectionOutbound>,
}

impl<S> WithTrailer<S> {
    pub(super) fn new(service: S, inbound: Arc<ConnectionInbound>, outbound: Arc<ConnectionOutbound>) -> Self {
        Self { service, inbound, outbound }
    }
}

type Grpc = Response<tonic::body::Body>;

impl<S> hyper::service::Service<Request<Incoming>> for WithTrailer<S>
where
    S: tower::Service<Request<CountedBody>, Response = Grpc, Error = Infallible> + Clone,
{
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = TrailerFuture<S::Future>;

    /// The generated service is always ready.
    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let streams = path.rsplit('/').next().is_some_and(|method| STREAMS.contains(&method));
        let body = CountedBody::new(body, path, self.inbound.clone());
        let answer = Box::pin(self.service.clone().call(Request::from_parts(head, body)));
        TrailerFuture { answer, streams, outbound: self.outbound.clone() }
    }
}

pub(crate) struct TrailerFuture<F> {
    answer: Pin<Box<F>>,
    streams: bool,
    outbound: Arc<ConnectionOutbound>,
}

impl<F: Future<Output = Result<Grpc, Infallible>>> Future for TrailerFuture<F> {
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(mut response) = ready!(self.answer.as_mut().poll(cx));
        let retry_after = response.extensions_mut().remove::<RetryAfter>();
        let (streams, outbound) = (self.streams.then(RoomAsked::default), self.outbound.clone());
        Poll::Ready(Ok(response.map(|body| AnswerBody { body, retry_after, streams, outbound })))
    }
}

/// An answer whose bytes count until they are taken.
pub(crate) struct AnswerBody {
    body: tonic::body::Body,
    retry_after: Option<RetryAfter>,
    /// The answer is a stream, which asks for room.
    streams: Option<RoomAsked>,
    outbound: Arc<ConnectionOutbound>,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = &mut *self;
        let mut room = match &mut this.streams {
            Some(asked) => ready!(asked.poll(cx, &this.outbound, PART_MAX_BYTES)),
            None => None,
        };
        // While the body has nothing, its room is free again.
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let retry_after = this.retry_after.as_ref().and_then(|retry_after| retry_after.0.get().copied());
        let hold = |bytes: Bytes| match room.take() {
            Some(mut room) => {
                Room::shrink(&mut room, bytes.len());
                this.outbound.hold(bytes, Some(room))
            }
            None => this.outbound.hold_short(bytes),
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| with_trailer(frame.map_data(hold), retry_after))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn with_trailer(frame: Frame<Bytes>, retry_after: Option<u64>) -> Frame<Bytes> {
    match (frame.into_trailers(), retry_after) {
        (Ok(mut trailers), Some(ms)) => {
            add(&mut trailers, ms);
            Frame::trailers(trailers)
        }
        (Ok(trailers), None) => Frame::trailers(trailers),
        (Err(frame), _) => frame,
    }
}

fn add(trailers: &mut HeaderMap, ms: u64) {
    trailers.insert(RETRY_AFTER, HeaderValue::from(ms));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trailer_is_added_to_trailers_and_to_nothing_else() {
        let frame = with_trailer(Frame::trailers(HeaderMap::new()), Some(30));
        assert_eq!(frame.trailers_ref().and_then(|trailers| trailers.get(RETRY_AFTER)).unwrap(), "30");
        let frame = with_trailer(Frame::trailers(HeaderMap::new()), None);
        assert!(frame.trailers_ref().unwrap().is_empty());
        let frame = with_trailer(Frame::data(Bytes::from_static(b"x")), Some(30));
        assert_eq!(frame.data_ref().unwrap(), "x");
    }

    #[test]
    fn the_first_value_stands() {
        let retry_after = RetryAfter::default();
        retry_after.set(5);
        retry_after.set(9);
        assert_eq!(retry_after.0.get(), Some(&5));
    }
}
