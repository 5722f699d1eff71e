//! Connecting to MySQL or MariaDB: the address, TLS, who one is.
//!
//! Files of this machine are never sent to a server that asks for them (LOCAL INFILE): nobody is there to read them.

use std::net::{Ipv4Addr, Ipv6Addr};

use mysql_async::{Conn, Opts, OptsBuilder, SslOpts, prelude::Queryable};

use crate::{
    address::DatabaseServer,
    connection::Connector,
    dialect::Dialect,
    error::SqlError,
    grant::{DatabasePassword, GrantRefusal, SqlLimits, SqlSurroundings, TlsUse},
    mask::Mask,
    tls,
};

use super::{errors, session::MySqlConnection};

/// Settings that statements are read and answered under; those of the server may be others. Strict: nothing is cut to fit,
/// least of all a key. A lock is waited for a second, the least that MySQL knows.
const SETTINGS: &str = "set session sql_mode = \
     'STRICT_TRANS_TABLES,STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', \
     time_zone = '+00:00', innodb_lock_wait_timeout = 1, autocommit = 1";

/// What a packet holds besides what the limit of a call is about, in bytes.
const ALLOWED_BESIDES: usize = 64 << 10;

/// Told to the client library so that it does not ask the server: idle connections are closed here long before.
const WAIT_TIMEOUT_SECONDS: usize = 28_800;

/// Makes connections to one database of MySQL or MariaDB.
pub(crate) struct MySqlConnector {
    server: DatabaseServer,
    options: Opts,
}

impl MySqlConnector {
    /// Connects nothing yet.
    pub(crate) fn new(
        server: DatabaseServer,
        tls: TlsUse,
        limits: SqlLimits,
        surroundings: &SqlSurroundings,
    ) -> Result<Self, GrantRefusal> {
        // Read here, so that a file that cannot be used is told when the grant is set.
        tls::client_config(&surroundings.extra_authorities)?;
        tls::settle_provider();
        let is_secured = match tls {
            TlsUse::Off => false,
            TlsUse::UnlessLocal => !server.is_local(),
            TlsUse::Always => true,
        };
        let authorities = Some(surroundings.extra_authorities.clone()).filter(|pem| !pem.is_empty());
        let trust = SslOpts::default().with_root_certs(authorities.map(Into::into).into_iter().collect());
        let mut options = OptsBuilder::default()
            .ip_or_hostname(server.host.clone())
            .tcp_port(server.port)
            .user(Some(server.user.clone()))
            .db_name(Some(server.database.clone()))
            .prefer_socket(false)
            .stmt_cache_size(0)
            .max_allowed_packet(Some(limits.bytes.saturating_add(ALLOWED_BESIDES)))
            .wait_timeout(Some(WAIT_TIMEOUT_SECONDS))
            .setup(vec![SETTINGS])
            .ssl_opts(is_secured.then_some(trust));
        if let Some(socket) = &server.socket {
            options = options.socket(Some(socket.display().to_string()));
        } else if tls == TlsUse::UnlessLocal && server.host.eq_ignore_ascii_case("localhost") {
            // Who calls himself local gets no TLS by default, so the addresses are.
            options = options.resolved_ips(Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]));
        }
        Ok(Self { server, options: options.into() })
    }
}

impl Connector for MySqlConnector {
    type Connection = MySqlConnection;
    const READS_LIKE: Dialect = Dialect::MariaDb;

    async fn connect(&self, password: &DatabasePassword) -> Result<MySqlConnection, SqlError> {
        let password = password.reveal();
        let hidden = Mask::new(self.server.hidden().chain([password.to_owned()]));
        let mut options = OptsBuilder::from_opts(self.options.clone());
        if !password.is_empty() {
            options = options.pass(Some(password));
        }
        let mut connection = Conn::new(options).await.map_err(|error| errors::at_connect(&error))?;
        let version: Option<String> =
            connection.query_first("select version()").await.map_err(|error| errors::at_connect(&error))?;
        let is_mariadb = version.unwrap_or_default().to_ascii_lowercase().contains("mariadb");
        let dialect = if is_mariadb { Dialect::MariaDb } else { Dialect::MySql };
        Ok(MySqlConnection::new(connection, dialect, hidden))
    }
}
