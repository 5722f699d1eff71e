//! The trailer `retry-after-ms` of a throttled call (ruling 21).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::inbound::{CountedBody, Inbound};

/// Name of the trailer.
pub(super) const RETRY_AFTER: &str = "retry-after-ms";

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

/// A gRPC service whose requests are counted and whose responses get their trailer.
#[derive(Clone, Debug)]
pub(crate) struct WithTrailer<S> {
    service: S,
    inbound: Arc<Inbound>,
}

impl<S> WithTrailer<S> {
    pub(super) fn new(service: S, inbound: Arc<Inbound>) -> Self {
        Self { service, inbound }
    }
}

type Grpc = Response<tonic::body::Body>;

impl<S> hyper::service::Service<Request<Incoming>> for WithTrailer<S>
where
    S: tower::Service<Request<CountedBody>, Response = Grpc, Error = Infallible> + Clone,
{
    type Response = Grpc;
    type Error = Infallible;
    type Future = TrailerFuture<S::Future>;

    /// The generated service is always ready.
    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let request = request.map(|body| CountedBody::new(body, self.inbound.clone()));
        TrailerFuture(Box::pin(self.service.clone().call(request)))
    }
}

pub(crate) struct TrailerFuture<F>(Pin<Box<F>>);

impl<F: Future<Output = Result<Grpc, Infallible>>> Future for TrailerFuture<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(mut response) = ready!(self.0.as_mut().poll(cx));
        let retry_after = response.extensions_mut().remove::<RetryAfter>();
        Poll::Ready(Ok(match retry_after {
            None => response,
            Some(retry_after) => response.map(|body| tonic::body::Body::new(TrailerBody { body, retry_after })),
        }))
    }
}

struct TrailerBody {
    body: tonic::body::Body,
    retry_after: RetryAfter,
}

impl Body for TrailerBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let retry_after = self.retry_after.0.get().copied();
        Poll::Ready(frame.map(|frame| frame.map(|frame| with_trailer(frame, retry_after))))
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
