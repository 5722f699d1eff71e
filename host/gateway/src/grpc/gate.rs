//! What a connection gets before the node serves: each call is answered at once, so that clients ask again on the same
//! connection. Where nobody listened, they would wait longer and longer before they connect.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use futures_util::future::Either;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use tonic::Status;
use vouch_node::StartProgress;
use vouch_protocol::limits::SEND_MAX_BYTES;
use vouch_protocol::wire::messaging_service_server::MessagingServiceServer;

use super::layer::WithTrailer;
use super::trailer::AnswerBody;
use super::{GrpcShared, Messaging};
use crate::outbound::ConnectionOutbound;

/// What is behind the gate.
type Served = WithTrailer<MessagingServiceServer<Messaging>>;

/// The service of one connection: closed until the node serves, and from then on open.
pub(crate) struct Gate {
    /// Empty until the node serves.
    served: Arc<OnceLock<Arc<GrpcShared>>>,
    /// How far the start is until then.
    progress: Arc<StartProgress>,
    /// Of the peer.
    address: IpAddr,
    /// What waits for it.
    outbound: Arc<ConnectionOutbound>,
    /// Made with the first call that is served.
    service: OnceLock<Served>,
}

impl Gate {
    /// The gate of one connection.
    pub(super) fn new(
        served: Arc<OnceLock<Arc<GrpcShared>>>,
        progress: Arc<StartProgress>,
        address: IpAddr,
        outbound: Arc<ConnectionOutbound>,
    ) -> Self {
        Self { served, progress, address, outbound, service: OnceLock::new() }
    }

    /// The service, if the node serves.
    fn open(&self) -> Option<&Served> {
        let make = |shared: &Arc<GrpcShared>| {
            let messaging = Messaging { shared: shared.clone(), address: self.address, peer: self.address.to_string() };
            let service = MessagingServiceServer::new(messaging).max_decoding_message_size(SEND_MAX_BYTES);
            WithTrailer::new(service, shared.inbound.connection(), self.outbound.clone())
        };
        match self.service.get() {
            Some(service) => Some(service),
            None => self.served.get().map(|shared| self.service.get_or_init(|| make(shared))),
        }
    }

    /// Official clients try again on this code.
    fn not_yet(&self) -> Response<AnswerBody> {
        let status = Status::unavailable(format!("this node is recovering: {}; try again", self.progress.step()));
        AnswerBody::short(status.into_http(), self.outbound.clone())
    }
}

impl Service<Request<Incoming>> for Gate {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Either<<Served as Service<Request<Incoming>>>::Future, Ready<Result<Self::Response, Infallible>>>;

    /// Serves a call or says that it is too early; nothing waits here.
    fn call(&self, request: Request<Incoming>) -> Self::Future {
        match self.open() {
            Some(service) => Either::Left(service.call(request)),
            None => Either::Right(ready(Ok(self.not_yet()))),
        }
    }
}
