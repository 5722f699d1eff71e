//! One request to one address that was checked.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use url::Host;
use wasmtime_wasi_http::{Error, WasiBody, io::TokioIo};

use super::body::{BoundedBody, Open};

/// Largest header section of a response, in bytes; also the size of the read buffer.
pub(super) const MAX_RESPONSE_HEADER: usize = 64 << 10;
/// Most header fields of a response.
pub(super) const MAX_RESPONSE_FIELDS: usize = 100;

/// Where a request goes.
pub(super) struct Destination {
    pub(super) host: Host<String>,
    /// Checked addresses, in the order in which to try them.
    pub(super) addresses: Vec<SocketAddr>,
    /// Set for https.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// How long each step may take, and how much may come back. The deadline of the check ends all of it besides.
pub(super) struct StepBounds {
    pub(super) connect: Duration,
    pub(super) first_byte: Duration,
    pub(super) body: u64,
}

/// What a request goes over, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What drives the connection while the body is read.
pub(super) type Driver = Box<dyn Future<Output = Result<(), Error>> + Send>;

/// Connects, sends, and returns when the response's header is there.
pub(super) async fn send(
    request: Request<WasiBody>,
    to: Destination,
    bounds: StepBounds,
    open: Open,
) -> Result<(Response<WasiBody>, Driver), Error> {
    let stream = timeout(bounds.connect, connect(&to)).await.map_err(|_| Error::ConnectionTimeout)??;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_RESPONSE_HEADER)
        .max_headers(MAX_RESPONSE_FIELDS)
        .handshake(TokioIo::new(stream))
        .await?;
    let request = in_origin_form(request)?;
    let mut connection = Some(Box::pin(connection));
    let sending = timeout(bounds.first_byte, sender.send_request(request));
    tokio::pin!(sending);
    let response = tokio::select! {
        biased;
        response = &mut sending => response,
        // The connection may end, even in an error, once the response is there: the request knows which it was.
        _ended = async { connection.as_mut().expect("taken below only").await } => {
            connection = None;
            sending.await
        }
    };
    let response = response.map_err(|_| Error::HttpResponseTimeout)?.map_err(header_error)?;
    if let Some(length) = content_length(&response)
        && length > bounds.body
    {
        return Err(Error::HttpResponseBodySize(Some(length)));
    }
    let response = response.map(|incoming| BoundedBody::new(incoming, bounds.body, Arc::clone(&open)).boxed_unsync());
    let driver = async move {
        let ended = match connection {
            Some(connection) => connection.await.map_err(Error::from),
            None => Ok(()),
        };
        drop(open);
        ended
    };
    Ok((response, Box::new(driver)))
}

/// Tries the addresses in their order, one after the other, and tells the last failure. All of them were checked
/// before: nothing is looked up here once more, so a name that points elsewhere by now changes nothing.
async fn connect(to: &Destination) -> Result<Box<dyn Stream>, Error> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in &to.addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return secure(stream, to).await,
            Err(error) => last = error,
        }
    }
    Err(if last.kind() == io::ErrorKind::ConnectionRefused { Error::ConnectionRefused } else { Error::Connect(last) })
}

/// Speaks TLS where the grant says `https`, by the name in the grant and not by the address.
async fn secure(stream: TcpStream, to: &Destination) -> Result<Box<dyn Stream>, Error> {
    // Requests are small and the guest waits: never hold one back to fill a packet.
    stream.set_nodelay(true).map_err(Error::Connect)?;
    let Some(config) = &to.tls else { return Ok(Box::new(stream)) };
    let name = match &to.host {
        Host::Domain(name) => ServerName::try_from(name.clone())?,
        Host::Ipv4(address) => ServerName::from(*address),
        Host::Ipv6(address) => ServerName::from(*address),
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    Ok(Box::new(connector.connect(name, stream).await.map_err(Error::Tls)?))
}

/// A server wants the path alone in the request line; the host stands in the `host` header.
fn in_origin_form(mut request: Request<WasiBody>) -> Result<Request<WasiBody>, Error> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>().map_err(|_| Error::HttpRequestUriInvalid)?;
    Ok(request)
}

/// What is wrong with the head of a response, in the words of the WIT world.
fn header_error(error: hyper::Error) -> Error {
    if error.is_parse_too_large() {
        return Error::HttpResponseHeaderSectionSize(u32::try_from(MAX_RESPONSE_HEADER).ok());
    }
    if error.is_incomplete_message() {
        return Error::HttpResponseIncomplete;
    }
    Error::Hyper(error)
}

/// How long the body says that it is, to be refused before it is read.
fn content_length<B>(response: &Response<B>) -> Option<u64> {
    response.headers().get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
