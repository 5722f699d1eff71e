//! Where a database is: the `url` of a grant.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// Where a database is, as a URL says it:
///
/// - `postgres://user@host:5432/database`, and over a Unix socket `postgres://user@localhost/database?socket=/run/postgresql`
/// - `mysql://user@host:3306/database` or `mariadb://…`, `…?socket=/run/mysqld/mysqld.sock`
/// - `sqlite:/var/lib/shop/orders.db`
///
/// No password: it is a setting of its own, so that it can be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// PostgreSQL.
    Postgres(DatabaseServer),
    /// MySQL or MariaDB: which one, the server says itself.
    MySql(DatabaseServer),
    /// A SQLite file.
    Sqlite(PathBuf),
}

/// A server, and what to open there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseServer {
    /// Name or literal address, without the brackets of IPv6.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// A Unix socket, which goes before host and port.
    pub(crate) socket: Option<PathBuf>,
    pub(crate) user: String,
    pub(crate) database: String,
}

/// Why a text is no address of a database. Show it to whoever wrote the grant; it repeats nothing that may be secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// No URL of a known kind.
    #[error("the url of a database begins with postgres://, mysql://, mariadb:// or sqlite:")]
    Scheme,
    /// No URL at all.
    #[error("the url of a database cannot be read; write postgres://user@host:5432/database, for example")]
    NotAUrl,
    /// The password stands in it.
    #[error("a url with a password would be shown to whoever reads the binding: set `password` instead")]
    Password,
    /// A part is missing.
    #[error("the url of a database names {0}")]
    Missing(&'static str),
    /// Something that this crate does not know, and would not do.
    #[error("`{0}` is not known in the url of a database; only `socket` is")]
    Parameter(String),
    /// A path that depends on where the broker was started.
    #[error("the path in the url of a database must begin with /")]
    RelativePath,
}

impl DatabaseServer {
    /// Whether nobody between here and there can listen: a Unix socket, or an address of this machine.
    pub(crate) fn is_local(&self) -> bool {
        self.socket.is_some()
            || self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Words that no error text may hold.
    pub(crate) fn hidden(&self) -> impl Iterator<Item = String> {
        let socket = self.socket.as_ref().map(|path| path.display().to_string());
        // Port alone says nothing, and is in too many numbers.
        [self.user.clone(), self.host.clone(), format!("{}:{}", self.host, self.port)].into_iter().chain(socket)
    }
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        let url = Url::parse(text).map_err(|_| DatabaseUrlError::NotAUrl)?;
        if url.password().is_some() {
            return Err(DatabaseUrlError::Password);
        }
        match url.scheme() {
            "postgres" | "postgresql" => server(&url, 5432).map(Self::Postgres),
            "mysql" | "mariadb" => server(&url, 3306).map(Self::MySql),
            "sqlite" => file(&url).map(Self::Sqlite),
            _ => Err(DatabaseUrlError::Scheme),
        }
    }
}

/// Reads the address of a server, all parts of which are needed but the port.
fn server(url: &Url, default_port: u16) -> Result<DatabaseServer, DatabaseUrlError> {
    let host = match url.host().ok_or(DatabaseUrlError::Missing("a host"))? {
        Host::Domain(name) => decoded(name)?,
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    };
    let user = decoded(url.username())?;
    let database = decoded(url.path().trim_start_matches('/'))?;
    for (part, what) in [(&host, "a host"), (&user, "a user"), (&database, "a database")] {
        if part.is_empty() {
            return Err(DatabaseUrlError::Missing(what));
        }
        if part.contains('\0') {
            return Err(DatabaseUrlError::NotAUrl);
        }
    }
    let mut socket = None;
    for (name, value) in url.query_pairs() {
        match name.as_ref() {
            "socket" if Path::new(value.as_ref()).is_absolute() => socket = Some(PathBuf::from(value.as_ref())),
            "socket" => return Err(DatabaseUrlError::RelativePath),
            _ => return Err(DatabaseUrlError::Parameter(name.chars().take(40).collect())),
        }
    }
    Ok(DatabaseServer { host, port: url.port().unwrap_or(default_port), socket, user, database })
}

/// Reads the path of a file; it takes no settings, since those that matter are made here.
fn file(url: &Url) -> Result<PathBuf, DatabaseUrlError> {
    if let Some((name, _)) = url.query_pairs().next() {
        return Err(DatabaseUrlError::Parameter(name.chars().take(40).collect()));
    }
    if url.host_str().is_some_and(|host| !host.is_empty()) {
        return Err(DatabaseUrlError::RelativePath);
    }
    let path = PathBuf::from(decoded(url.path())?);
    if path.is_absolute() { Ok(path) } else { Err(DatabaseUrlError::RelativePath) }
}

/// A part of a url without its percent signs.
fn decoded(part: &str) -> Result<String, DatabaseUrlError> {
    percent_decode_str(part).decode_utf8().map(Into::into).map_err(|_| DatabaseUrlError::NotAUrl)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DatabaseUrl, DatabaseUrlError> {
        text.parse()
    }

    #[test]
    fn servers_are_read_with_their_default_ports_and_decoded_parts() {
        let Ok(DatabaseUrl::Postgres(server)) = read("postgres://vo%40uch@db.example.com/or%20ders") else { panic!() };
        assert_eq!((server.host.as_str(), server.port), ("db.example.com", 5432));
        assert_eq!((server.user.as_str(), server.database.as_str()), ("vo@uch", "or ders"));
        assert!(!server.is_local());
        let Ok(DatabaseUrl::MySql(server)) = read("mariadb://u@[::1]:13306/d") else { panic!() };
        assert_eq!((server.host.as_str(), server.port), ("::1", 13306));
        assert!(server.is_local());
        let Ok(DatabaseUrl::MySql(server)) = read("mysql://u@db/d?socket=/run/mysqld/mysqld.sock") else { panic!() };
        assert_eq!(server.socket, Some("/run/mysqld/mysqld.sock".into()));
        assert!(server.is_local());
    }

    #[test]
    fn files_are_named_by_absolute_paths() {
        for text in ["sqlite:/var/lib/a%20b.db", "sqlite:///var/lib/a%20b.db"] {
            assert_eq!(read(text), Ok(DatabaseUrl::Sqlite("/var/lib/a b.db".into())));
        }
        for text in ["sqlite:orders.db", "sqlite://orders.db", "sqlite://orders/x.db"] {
            assert_eq!(read(text), Err(DatabaseUrlError::RelativePath), "{text}");
        }
        assert!(matches!(read("sqlite:/a.db?mode=rwc"), Err(DatabaseUrlError::Parameter(_))));
    }

    #[test]
    fn what_is_no_address_of_a_database_is_refused_without_its_secrets() {
        assert_eq!(read("postgres://u:hunter2@db/d"), Err(DatabaseUrlError::Password));
        assert_eq!(read("postgres://db/d"), Err(DatabaseUrlError::Missing("a user")));
        assert_eq!(read("postgres://u@db/"), Err(DatabaseUrlError::Missing("a database")));
        assert_eq!(read("oracle://u@db/d"), Err(DatabaseUrlError::Scheme));
        assert_eq!(read("nothing"), Err(DatabaseUrlError::NotAUrl));
        assert!(matches!(read("postgres://u@db/d?sslmode=disable"), Err(DatabaseUrlError::Parameter(_))));
        assert_eq!(read("postgres://u@db/d?socket=run"), Err(DatabaseUrlError::RelativePath));
        assert!(read("postgres://u@db/a%00b").is_err());
    }
}
