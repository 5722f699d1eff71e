//! The gate that every outgoing request passes.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use url::Host;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks, p2::bindings::http::types::ErrorCode};

use super::{
    address::is_public,
    body::{Open, WatchedBody},
    client::{Destination, Driver, StepBounds, send},
    resolver::Resolver,
    trouble::RequestTrouble,
};
use crate::{
    bindings::host::Level,
    dry::DryRun,
    grants::{HttpGrant, Origin},
    limits::Limits,
    log::{CallLog, LogSource},
    memory::{BODY_CHUNK, BODY_CHUNKS},
};

/// Most bytes in the head of a request: method, address, names and values of the header fields.
pub(super) const MAX_REQUEST_HEAD: usize = 64 << 10;
/// The status of the answer to a request that a dry call does not send.
const NOT_SENT: u16 = 599;
/// Most requests of one call that are open at once: not answered yet, or with a response that is not read to its end. Each
/// takes at most 1 MiB of the host's memory: the request, buffers of the connection, what TLS keeps, the header section of the
/// response.
pub(super) const MAX_OPEN_REQUESTS: usize = 16;

/// What one call of a guest may ask of the network.
pub(crate) struct HttpGate {
    pub(crate) grants: Arc<[HttpGrant]>,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) tls: Arc<ClientConfig>,
    /// Requests that this call may still make.
    pub(crate) requests_left: u32,
    pub(crate) requests_limit: u32,
    /// Places of requests that are open.
    open: Arc<Semaphore>,
    pub(crate) response_limit: u64,
    /// What is left of the call's time bounds each step; the call's own deadline is what ends it.
    pub(crate) deadline: Duration,
    pub(crate) log: CallLog,
    /// What befell requests that were let through.
    pub(crate) trouble: RequestTrouble,
    /// Nothing is to change for this call.
    pub(crate) dry: Option<DryRun>,
}

impl HttpGate {
    /// The gate of one call: its bounds begin anew with it.
    pub(crate) fn new(
        grants: Arc<[HttpGrant]>,
        resolver: Arc<dyn Resolver>,
        tls: Arc<ClientConfig>,
        limits: &Limits,
        log: CallLog,
    ) -> Self {
        Self {
            grants,
            resolver,
            tls,
            requests_left: limits.http_requests,
            requests_limit: limits.http_requests,
            open: Arc::new(Semaphore::new(MAX_OPEN_REQUESTS)),
            response_limit: limits.http_response.0,
            deadline: limits.deadline,
            log,
            trouble: RequestTrouble::default(),
            dry: None,
        }
    }

    /// The grant for a request and its place among the open ones, or why it is refused.
    fn admit(&mut self, request: &Request<WasiBody>) -> Result<(HttpGrant, Open), (Error, String)> {
        let uri = request.uri();
        let origin = Origin::of_request(uri)
            .ok_or_else(|| (Error::HttpRequestUriInvalid, format!("the request has no usable address: {uri}")))?;
        let Some(left) = self.requests_left.checked_sub(1) else {
            let text = format!("request to {origin} refused: limits.http_requests is {}", self.requests_limit);
            return Err((Error::ConnectionLimitReached, text));
        };
        self.requests_left = left;
        let grant = self.grants.iter().find(|grant| grant.origin == origin).cloned().ok_or_else(|| {
            let text = format!("request to {origin} refused: the binding does not grant it; add it to grants.http");
            (Error::HttpRequestDenied, text)
        })?;
        let head = head_bytes(request);
        if head > MAX_REQUEST_HEAD {
            let text =
                format!("request to {origin} refused: its head has {head} bytes, {MAX_REQUEST_HEAD} are the most");
            return Err((Error::HttpRequestHeaderSectionSize(u32::try_from(head).ok()), text));
        }
        let open = Arc::clone(&self.open).try_acquire_owned().map_err(|_| {
            let text = format!(
                "request to {origin} refused: {MAX_OPEN_REQUESTS} requests of this check are open; read or drop a response"
            );
            (Error::ConnectionLimitReached, text)
        })?;
        Ok((grant, Arc::new(open)))
    }
}

/// Bytes of a request but its body, as far as the guest chose them.
fn head_bytes(request: &Request<WasiBody>) -> usize {
    let uri = request.uri();
    let address = uri.authority().map_or(0, |authority| authority.as_str().len())
        + uri.path_and_query().map_or(0, |path| path.as_str().len());
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    request.method().as_str().len() + address + fields.sum::<usize>()
}

/// The addresses to connect to, all of them checked.
async fn addresses(grant: &HttpGrant, resolver: &dyn Resolver) -> Result<Vec<SocketAddr>, (Error, String)> {
    let origin = &grant.origin;
    let name = match &origin.host {
        Host::Ipv4(address) => return Ok(vec![SocketAddr::from((*address, origin.port))]),
        Host::Ipv6(address) => return Ok(vec![SocketAddr::from((*address, origin.port))]),
        Host::Domain(name) => name,
    };
    let found = resolver.resolve(name).await.map_err(|error| {
        let rcode = Some(error.to_string());
        (Error::DnsError { rcode, info_code: None }, format!("request to {origin} failed: {name}: {error}"))
    })?;
    if found.is_empty() {
        return Err((Error::DestinationNotFound, format!("request to {origin} failed: {name} has no address")));
    }
    if !grant.private
        && let Some(address) = found.iter().find(|address| !is_public(**address))
    {
        let text = format!(
            "request to {origin} refused: {name} resolves to {address}, which is not a public address; grant it with \
             {{\"origin\": \"{origin}\", \"private\": true}} if that is meant"
        );
        return Err((Error::DestinationIpProhibited, text));
    }
    Ok(found.into_iter().map(|address| SocketAddr::from((address, origin.port))).collect())
}

/// What answers a request that a dry call does not send.
fn not_sent() -> Response<WasiBody> {
    let mut response = Response::new(Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(NOT_SENT).expect("it has three digits");
    response
}

/// The response, when it begins, and what drives the connection from then on.
type Sending = Box<dyn Future<Output = Result<(Response<WasiBody>, Driver), Error>> + Send>;

impl WasiHttpHooks for HttpGate {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Sending {
        let log = self.log.clone();
        let refuse = move |(error, text): (Error, String)| {
            log.write(Level::Warn, LogSource::Host, text);
            error
        };
        let (grant, open) = match self.admit(&request) {
            Ok(admitted) => admitted,
            Err(refusal) => return Box::new(std::future::ready(Err(refuse(refusal)))),
        };
        if let Some(dry) = &self.dry {
            dry.asked(format_args!("{} {}", request.method(), request.uri()));
            if !matches!(*request.method(), Method::GET | Method::HEAD) {
                return Box::new(std::future::ready(Ok((not_sent(), Box::new(std::future::ready(Ok(()))) as Driver))));
            }
        }
        let options = options.unwrap_or_default();
        let bounds = StepBounds {
            connect: options.connect_timeout.map_or(self.deadline, |asked| asked.min(self.deadline)),
            first_byte: options.first_byte_timeout.map_or(self.deadline, |asked| asked.min(self.deadline)),
            body: self.response_limit,
        };
        let (resolver, tls) = (Arc::clone(&self.resolver), Arc::clone(&self.tls));
        let trouble = self.trouble.clone();
        trouble.waits();
        Box::new(async move {
            let addresses = addresses(&grant, &*resolver).await.map_err(|(error, text)| {
                trouble.note(|| text.clone());
                refuse((error, text))
            })?;
            let HttpGrant { origin, .. } = grant;
            let to = Destination { host: origin.host.clone(), addresses, tls: origin.https.then_some(tls) };
            let (response, driver) = send(request, to, bounds, open).await.map_err(|error| {
                let text = format!("request to {origin} failed: {error}");
                trouble.note(|| text.clone());
                refuse((error, text))
            })?;
            trouble.came();
            if response.status().is_server_error() {
                trouble.note(|| format!("request to {origin} was answered {}", response.status()));
            }
            let response = response.map(|body| {
                let (watched, waits_for) = (trouble.clone(), trouble);
                let note = move |error: Error| {
                    watched.note(|| format!("the answer of {origin} broke off: {error}"));
                    error
                };
                WatchedBody::new(body.map_err(note), waits_for).boxed_unsync()
            });
            Ok((response, driver))
        })
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BODY_CHUNKS
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }

    fn p2_error_from_hyper(&mut self, error: &hyper::Error) -> ErrorCode {
        tracing::debug!(%error, "outgoing request failed");
        ErrorCode::HttpProtocolError
    }

    fn p2_error_from_connect(&mut self, error: &std::io::Error) -> ErrorCode {
        tracing::debug!(%error, "outgoing connection failed");
        ErrorCode::ConnectionRefused
    }

    fn p2_error_from_tls(&mut self, error: &std::io::Error) -> ErrorCode {
        tracing::debug!(%error, "outgoing TLS failed");
        ErrorCode::TlsProtocolError
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::{
        http::{SystemResolver, client_config},
        log::LogRing,
        outcome::{Checked, Verdict},
        secrets::BindingSecrets,
    };

    /// The status that a request to a server is answered with, where nothing listens: one that is sent cannot be answered.
    fn answered(gate: &mut HttpGate, method: Method, origin: &str) -> Option<u16> {
        let body: WasiBody = Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync();
        let request = Request::builder().method(method).uri(format!("{origin}/orders/1")).body(body).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sent = gate.send_request(request, None, Box::new(std::future::ready(Ok(()))));
        runtime.block_on(Box::into_pin(sent)).ok().map(|(response, _)| response.status().as_u16())
    }

    #[test]
    fn a_dry_call_sends_what_only_looks_and_answers_all_else_by_itself_if_it_is_granted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let grants: Vec<HttpGrant> = serde_json::from_value(serde_json::json!([origin])).unwrap();
        let secrets = Arc::new(BindingSecrets::default());
        let log = CallLog::new(LogRing::new("b", "d"), secrets, "t".to_owned());
        let limits = Limits { http_requests: 10, ..Limits::default() };
        let tls = client_config(None).unwrap();
        let mut gate = HttpGate::new(grants.into(), Arc::new(SystemResolver::default()), tls, &limits, log);
        let dry = DryRun::default();
        gate.dry = Some(dry.clone());
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert_eq!(answered(&mut gate, method, &origin), Some(NOT_SENT));
        }
        assert_eq!(answered(&mut gate, Method::GET, &origin), None, "it was sent, and nobody listens");
        assert_eq!(
            answered(&mut gate, Method::POST, "http://127.0.0.1:1"),
            None,
            "what is not granted is not answered"
        );
        let tried = dry.into_tried(Checked::Answer(Verdict::Commit), Duration::ZERO, |_| {});
        let methods = ["POST", "PUT", "DELETE", "PATCH", "GET"];
        assert_eq!(tried.asked, methods.map(|method| format!("{method} {origin}/orders/1")));
        gate.dry = None;
        assert_eq!(answered(&mut gate, Method::POST, &origin), None, "a call that is none sends it");
    }
}
