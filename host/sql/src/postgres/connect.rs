//! Connecting to PostgreSQL: the address, TLS, who one is.
//!
//! Four ways to say who one is are known: none (`trust`), the password itself, its MD5 sum, and SCRAM-SHA-256. The password
//! itself goes only where the server asks for it, which a server whose name was not verified does not get to: without TLS
//! it is this machine, or the binding says that it shall be so.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::BytesMut;
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
    },
    message::{
        backend::{AuthenticationSaslBody, Message},
        frontend,
    },
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream, lookup_host},
};
use tokio_rustls::TlsConnector;

use crate::{
    address::DatabaseServer,
    connection::Connector,
    dialect::Dialect,
    error::SqlError,
    grant::{DatabasePassword, GrantRefusal, SqlLimits, SqlSurroundings, TlsUse},
    mask::Mask,
    tls,
};

use super::{
    errors::ServerError,
    session::PostgresConnection,
    wire::{ByteStream, Wire, WireFault},
};

/// Makes connections to one PostgreSQL database.
pub(crate) struct PostgresConnector {
    server: DatabaseServer,
    tls: TlsUse,
    limits: SqlLimits,
    config: Arc<ClientConfig>,
}

impl PostgresConnector {
    /// Connects nothing yet.
    pub(crate) fn new(
        server: DatabaseServer,
        tls: TlsUse,
        limits: SqlLimits,
        surroundings: &SqlSurroundings,
    ) -> Result<Self, GrantRefusal> {
        let config = tls::client_config(&surroundings.extra_authorities)?;
        Ok(Self { server, tls, limits, config })
    }

    /// The stream to the server, protected as the grant says.
    async fn stream(&self) -> Result<Box<dyn ByteStream>, SqlError> {
        if let Some(path) = &self.server.socket {
            let stream = UnixStream::connect(self.socket_file(path)).await.map_err(|_| not_reached())?;
            return Ok(Box::new(stream));
        }
        let stream = self.tcp().await?;
        let is_plain = match self.tls {
            TlsUse::Off => true,
            TlsUse::UnlessLocal => self.server.is_local(),
            TlsUse::Always => false,
        };
        if is_plain { Ok(Box::new(stream)) } else { self.secure(stream).await }
    }

    /// A socket may be named by its folder, as PostgreSQL's own tools do.
    fn socket_file(&self, path: &Path) -> PathBuf {
        if path.is_dir() { path.join(format!(".s.PGSQL.{}", self.server.port)) } else { path.to_owned() }
    }

    /// The first address of the host that takes the connection.
    async fn tcp(&self) -> Result<TcpStream, SqlError> {
        let addresses = lookup_host((self.server.host.as_str(), self.server.port)).await.map_err(|_| not_reached())?;
        // Who calls himself local gets no TLS by default, so the addresses must be.
        let must_be_local = self.tls == TlsUse::UnlessLocal && self.server.is_local();
        let may_go_to = |address: &SocketAddr| !must_be_local || address.ip().is_loopback();
        for address in addresses.filter(may_go_to) {
            if let Ok(stream) = TcpStream::connect(address).await {
                // Statements are small and somebody waits: none is held back to fill a packet.
                stream.set_nodelay(true).map_err(|_| not_reached())?;
                return Ok(stream);
            }
        }
        Err(not_reached())
    }

    /// Speaks TLS, by the name in the url and not by the address.
    async fn secure(&self, mut stream: TcpStream) -> Result<Box<dyn ByteStream>, SqlError> {
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        stream.write_all(&request).await.map_err(|_| not_reached())?;
        // One byte and no more: what somebody in between sent behind it would count as said under TLS.
        match stream.read_u8().await.map_err(|_| not_reached())? {
            b'S' => {}
            _ => {
                return Err(SqlError::Unavailable(
                    "the database offers no TLS; turn it on there, or say `\"tls\": \"off\"` in the binding".to_owned(),
                ));
            }
        }
        let name = ServerName::try_from(self.server.host.clone()).map_err(|_| not_reached())?;
        let secured = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await;
        let secured = secured.map_err(|error| {
            let is_certificate = matches!(
                error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()),
                Some(rustls::Error::InvalidCertificate(_))
            );
            if is_certificate { wrong_certificate() } else { not_reached() }
        })?;
        Ok(Box::new(secured))
    }
}

impl Connector for PostgresConnector {
    type Connection = PostgresConnection;
    const READS_LIKE: Dialect = Dialect::Postgres;

    async fn connect(&self, password: &DatabasePassword) -> Result<PostgresConnection, SqlError> {
        let mut wire = Wire::new(self.stream().await?, self.limits.bytes);
        let parameters = [
            ("user", self.server.user.as_str()),
            ("database", self.server.database.as_str()),
            ("application_name", "vouch"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO"),
            ("TimeZone", "UTC"),
        ];
        frontend::startup_message(parameters, &mut wire.outgoing).map_err(|_| not_reached())?;
        wire.send().await.map_err(|_| not_reached())?;
        authenticate(&mut wire, &self.server.user, password).await?;
        loop {
            match wire.next().await.map_err(|_| not_reached())? {
                Message::ReadyForQuery(_) => break,
                Message::ErrorResponse(body) => return Err(ServerError::of(&body).at_connect()),
                _ => {}
            }
        }
        let hidden = self.server.hidden().chain([password.reveal().to_owned()]);
        Ok(PostgresConnection::new(wire, Mask::new(hidden)))
    }
}

/// Says who one is, as the server wants to hear it.
async fn authenticate(wire: &mut Wire, user: &str, password: &DatabasePassword) -> Result<(), SqlError> {
    let password = password.reveal().as_bytes();
    let ended = |_: WireFault| not_reached();
    loop {
        match wire.next().await.map_err(ended)? {
            Message::AuthenticationOk => return Ok(()),
            Message::AuthenticationCleartextPassword => {
                frontend::password_message(password, &mut wire.outgoing).map_err(|_| refused())?;
            }
            Message::AuthenticationMd5Password(body) => {
                let hash = md5_hash(user.as_bytes(), password, body.salt());
                frontend::password_message(hash.as_bytes(), &mut wire.outgoing).map_err(|_| refused())?;
            }
            Message::AuthenticationSasl(body) => scram(wire, &body, password).await?,
            Message::ErrorResponse(body) => return Err(ServerError::of(&body).at_connect()),
            _ => return Err(refused()),
        }
        wire.send().await.map_err(ended)?;
    }
}

/// SCRAM-SHA-256: neither the password nor anything that lets one in crosses the wire, and the server proves that it knows
/// it, too.
async fn scram(wire: &mut Wire, offered: &AuthenticationSaslBody, password: &[u8]) -> Result<(), SqlError> {
    use fallible_iterator::FallibleIterator as _;
    let ended = |_: WireFault| not_reached();
    if !offered.mechanisms().any(|mechanism| Ok(mechanism == SCRAM_SHA_256)).unwrap_or(false) {
        return Err(refused());
    }
    let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut wire.outgoing).map_err(|_| refused())?;
    wire.send().await.map_err(ended)?;
    match wire.next().await.map_err(ended)? {
        Message::AuthenticationSaslContinue(body) => scram.update(body.data()).map_err(|_| refused())?,
        Message::ErrorResponse(body) => return Err(ServerError::of(&body).at_connect()),
        _ => return Err(refused()),
    }
    frontend::sasl_response(scram.message(), &mut wire.outgoing).map_err(|_| refused())?;
    wire.send().await.map_err(ended)?;
    match wire.next().await.map_err(ended)? {
        Message::AuthenticationSaslFinal(body) => scram.finish(body.data()).map_err(|_| refused()),
        Message::ErrorResponse(body) => Err(ServerError::of(&body).at_connect()),
        _ => Err(refused()),
    }
}

/// The server cannot be talked to.
fn not_reached() -> SqlError {
    SqlError::Unavailable(
        "the database cannot be reached; see whether it runs, and whether the url is right".to_owned(),
    )
}

/// The server is not who it should be.
fn wrong_certificate() -> SqlError {
    SqlError::Unavailable(
        "the certificate of the database is not valid for its name, or nobody trusted issued it; correct it, or add its \
         authority"
            .to_owned(),
    )
}

/// The way in is not one that is known here.
fn refused() -> SqlError {
    SqlError::Unavailable(
        "the database wants to be convinced in a way that is not known here; let it use scram-sha-256".to_owned(),
    )
}
