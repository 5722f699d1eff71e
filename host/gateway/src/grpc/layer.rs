//! What lies around the generated service: the way of a call's bytes in and out.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use hyper::body::Incoming;

use super::inbound::{ConnectionInbound, CountedBody};
use super::trailer::{AnswerBody, Grpc};
use crate::outbound::ConnectionOutbound;

/// Calls whose answers are streams. Those wait for room before their next part is made.
const STREAMS: [&str; 2] = ["ReceiveMessage", "Telemetry"];

/// A gRPC service whose requests and answers are counted, and whose answers get their trailer.
#[derive(Clone, Debug)]
pub(crate) struct WithTrailer<S> {
    /// The generated service.
    service: S,
    /// What comes of this connection.
    inbound: Arc<ConnectionInbound>,
    /// What goes to it.
    outbound: Arc<ConnectionOutbound>,
}

impl<S> WithTrailer<S> {
    /// Around a service, for one connection.
    pub(super) fn new(service: S, inbound: Arc<ConnectionInbound>, outbound: Arc<ConnectionOutbound>) -> Self {
        Self { service, inbound, outbound }
    }
}

impl<S> hyper::service::Service<Request<Incoming>> for WithTrailer<S>
where
    S: tower::Service<Request<CountedBody>, Response = Grpc, Error = Infallible, Future: Unpin> + Clone,
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
        let answer = self.service.clone().call(Request::from_parts(head, body));
        TrailerFuture { answer, streams, outbound: self.outbound.clone() }
    }
}

/// A call under way.
pub(crate) struct TrailerFuture<F> {
    answer: F,
    streams: bool,
    outbound: Arc<ConnectionOutbound>,
}

impl<F: Future<Output = Result<Grpc, Infallible>> + Unpin> Future for TrailerFuture<F> {
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(answer) = ready!(Pin::new(&mut self.answer).poll(cx));
        Poll::Ready(Ok(AnswerBody::of(answer, self.streams, self.outbound.clone())))
    }
}
