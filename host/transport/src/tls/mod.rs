//! TLS between nodes: both sides show a certificate of the cluster's authority.
//!
//! What a certificate is held to is the node that it names ([`CertificateName`]), not the address that was dialed: addresses
//! change, and a name that an attacker's DNS gives away proves nothing. TLS 1.3 only; no session is resumed, so each connection
//! is checked against the files as they were read last.

mod files;
mod said;
mod verify;

use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor};
use rustls::version::TLS13;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::name::CertificateName;
use crate::stream::{self, Stream};
use files::PeerCertificates;
pub use files::{PeerSecurity, SecurityError};
pub(crate) use said::said;
use verify::IssuedByAuthority;

/// The first byte of a TLS handshake.
pub(crate) const TLS_HANDSHAKE: u8 = 0x16;

/// What both directions are secured with now.
#[derive(Clone)]
struct LoadedSecurity {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
    /// What others are shown, and whom this node believes.
    shown: Arc<(Vec<CertificateDer<'static>>, Vec<TrustAnchor<'static>>)>,
    /// From when on nobody believes what this node shows.
    until: SystemTime,
}

/// Files that were read anew and fit each other. They hold from when they are taken over.
pub struct RereadSecurity(Secured);

impl RereadSecurity {
    /// The node that others would be shown; `None` without TLS.
    ///
    /// # Errors
    /// A sentence: the certificate names no node.
    pub fn shows(&self) -> Result<Option<CertificateName>, String> {
        self.0.loaded.as_ref().map(|loaded| name(Some(loaded.shown.0.as_slice()))).transpose()
    }
}

/// Where it was read from, and what was; none without TLS.
struct Secured {
    source: PeerSecurity,
    loaded: Option<LoadedSecurity>,
}

/// How connections are secured. Files are read again when somebody says so, all or nothing: who replaces three files one after
/// the other has none that fit each other meanwhile.
pub(crate) struct SecurityState(RwLock<Secured>);

impl SecurityState {
    /// # Errors
    /// A file cannot be read, or the files do not fit each other.
    pub(crate) fn new(source: PeerSecurity) -> Result<Self, SecurityError> {
        let loaded = load(&source)?;
        Ok(Self(RwLock::new(Secured { source, loaded })))
    }

    fn now(&self) -> RwLockReadGuard<'_, Secured> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses other files for connections that begin from now on; whether they say something else than those before. With TLS or
    /// without is settled when it begins: the other kind is not taken.
    pub(crate) fn take_over(&self, RereadSecurity(read): RereadSecurity) -> bool {
        let mut now = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let (Some(before), Some(after)) = (&now.loaded, &read.loaded) else { return false };
        let changed = before.shown != after.shown;
        *now = read;
        changed
    }

    pub(crate) fn is_mutual(&self) -> bool {
        matches!(self.now().source, PeerSecurity::Mutual { .. })
    }

    /// Until when others believe what this node shows; `None` without TLS.
    pub(crate) fn until(&self) -> Option<SystemTime> {
        self.now().loaded.as_ref().map(|loaded| loaded.until)
    }

    fn loaded(&self) -> Option<LoadedSecurity> {
        self.now().loaded.clone()
    }

    /// Secures a connection that was dialed.
    ///
    /// # Errors
    /// A sentence about the other's certificate, or its want of one.
    pub(crate) async fn connect(&self, stream: TcpStream) -> Result<(Stream, Option<CertificateName>), String> {
        let Some(LoadedSecurity { connector, .. }) = self.loaded() else { return Ok((Box::new(stream), None)) };
        // The library wants a name to ask for; the acceptor has one certificate, whatever is asked for.
        let asked = ServerName::try_from("node.vouch").map_err(|error| error.to_string())?;
        let stream = connector.connect(asked, stream).await.map_err(|error| said(&error))?;
        let name = name(stream.get_ref().1.peer_certificates())?;
        Ok((Box::new(stream), Some(name)))
    }

    /// Secures a connection that somebody dialed.
    ///
    /// # Errors
    /// A sentence about the dialer's certificate, or its want of one. The dialer got the library's alert.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Result<(Stream, Option<CertificateName>), String> {
        let Some(LoadedSecurity { acceptor, .. }) = self.loaded() else { return Ok((Box::new(stream), None)) };
        match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => {
                let name = name(stream.get_ref().1.peer_certificates())?;
                Ok((Box::new(stream), Some(name)))
            }
            Err((error, stream)) => {
                stream::part(stream).await;
                Err(said(&error))
            }
        }
    }
}

/// The name in the first certificate of a chain.
fn name(chain: Option<&[CertificateDer<'_>]>) -> Result<CertificateName, String> {
    CertificateName::of(chain.and_then(<[_]>::first).ok_or("it showed no certificate")?)
}

impl PeerSecurity {
    /// The node that others are shown; `None` without TLS.
    ///
    /// # Errors
    /// The certificate cannot be read, or names no node.
    pub fn shows(&self) -> Result<Option<CertificateName>, SecurityError> {
        let Self::Mutual { authority, certificate, key } = self else { return Ok(None) };
        let chain = files::read(authority, certificate, key)?.chain;
        let name = name(Some(chain.as_slice()));
        name.map(Some).map_err(|why| SecurityError::Read { what: "the certificate", path: certificate.clone(), why })
    }

    /// Whether connections could be secured so.
    ///
    /// # Errors
    /// A file cannot be read, or the files do not fit each other.
    pub fn check(&self) -> Result<(), SecurityError> {
        load(self).map(drop)
    }

    /// Reads the files, to be used from when they are taken over.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn read(&self) -> Result<RereadSecurity, SecurityError> {
        Ok(RereadSecurity(Secured { source: self.clone(), loaded: load(self)? }))
    }
}

/// When the first certificate of a chain ends.
fn until(chain: &[CertificateDer<'_>]) -> Result<SystemTime, String> {
    let first = chain.first().ok_or("there is no certificate in it")?;
    let (_, parsed) = x509_parser::parse_x509_certificate(first).map_err(|error| error.to_string())?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn load(source: &PeerSecurity) -> Result<Option<LoadedSecurity>, SecurityError> {
    let PeerSecurity::Mutual { authority, certificate, key } = source else { return Ok(None) };
    let PeerCertificates { roots, chain, key: secret } = files::read(authority, certificate, key)?;
    let until =
        until(&chain).map_err(|why| SecurityError::Read { what: "the certificate", path: certificate.clone(), why })?;
    let shown = Arc::new((chain.clone(), roots.roots.clone()));
    let pair = |source: rustls::Error| SecurityError::Pair {
        certificate: certificate.clone(),
        key: key.clone(),
        why: source.to_string(),
    };
    let unusable = |why: String| SecurityError::Read { what: "the authority", path: authority.clone(), why };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots);
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(pair)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain.clone(), secret.clone_key())
        .map_err(pair)?;
    server.send_tls13_tickets = 0;
    let mut client = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(pair)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(IssuedByAuthority::new(roots, &provider)))
        .with_client_auth_cert(chain, secret)
        .map_err(pair)?;
    client.resumption = rustls::client::Resumption::disabled();
    Ok(Some(LoadedSecurity {
        connector: TlsConnector::from(Arc::new(client)),
        acceptor: TlsAcceptor::from(Arc::new(server)),
        shown,
        until,
    }))
}

/// Whether what was dialed without TLS answers with it, or the other way round: the first byte tells.
pub(crate) async fn begins_with_tls(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0] == TLS_HANDSHAKE),
    }
}
