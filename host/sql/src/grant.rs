//! What a binding gives its component of one database.
//!
//! The password is no part of it: it may be a secret with revisions of its own, and is handed over beside the grant.

use std::{fmt, num::NonZeroU16, path::PathBuf};

use crate::{address::DatabaseUrl, table::TableName};

/// One database that a binding names, and what may be done there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlGrant {
    /// Where it is.
    pub url: DatabaseUrl,
    /// How the way there is protected.
    pub tls: TlsUse,
    /// Statements may change rows. Fence and once tables need no such word: naming them is the grant.
    pub write: bool,
    /// The table that `read_fence` and `close_fence` are about.
    pub fence: Option<TableName>,
    /// The table in which `run_once` notes its keys.
    pub once: Option<TableName>,
    /// Most connections at a time.
    pub pool: NonZeroU16,
    /// Bounds of one call.
    pub limits: SqlLimits,
}

impl SqlGrant {
    /// Connections unless the grant says otherwise.
    pub const DEFAULT_POOL: NonZeroU16 = NonZeroU16::new(4).expect("4 is not 0");

    /// A grant to read, and no more.
    pub fn new(url: DatabaseUrl) -> Self {
        Self {
            url,
            tls: TlsUse::default(),
            write: false,
            fence: None,
            once: None,
            pool: Self::DEFAULT_POOL,
            limits: SqlLimits::default(),
        }
    }
}

/// How the way to a server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsUse {
    /// TLS with the server's name verified, but over loopback and Unix sockets, where nobody is in between.
    #[default]
    UnlessLocal,
    /// TLS with the server's name verified, over loopback too. (A Unix socket has none.)
    Always,
    /// None: `"tls": "off"`. Whoever is in between reads and changes everything.
    Off,
}

/// Bounds of one call. All of them are enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqlLimits {
    /// Most rows that a call may answer, all of its statements together.
    pub rows: usize,
    /// Most bytes that a call may answer, and most that it may send; what keeping them costs is counted in.
    pub bytes: usize,
    /// Most statements in one call.
    pub statements: usize,
    /// Most parameters of one statement.
    pub params: usize,
    /// Most keys that one reading of the fence may ask for.
    pub keys: usize,
}

impl Default for SqlLimits {
    fn default() -> Self {
        Self { rows: 10_000, bytes: 4 << 20, statements: 64, params: 1_000, keys: 1_000 }
    }
}

/// What a node lets its bindings reach, whatever they grant.
#[derive(Clone, Debug, Default)]
pub struct SqlSurroundings {
    /// SQLite files must lie below one of these, symbolic links resolved.
    pub sqlite_dirs: Vec<PathBuf>,
    /// Certificates (PEM) of authorities to trust besides the public ones.
    pub extra_authorities: Vec<u8>,
}

/// A password that shows itself to nobody.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DatabasePassword(String);

impl DatabasePassword {
    /// Keeps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password itself, for the one place that sends it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DatabasePassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a grant cannot be used as it is. Show it to whoever wrote the grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantRefusal {
    /// The SQLite file is not where such files may be.
    #[error(
        "the SQLite file lies below none of the folders in `sqlite_dirs`, or is not there: name one that does, or let the \
         operator add its folder"
    )]
    OutsideSqliteDirs,
    /// The certificates of further authorities cannot be read.
    #[error("the file with further authorities holds no usable certificate: correct it")]
    Authorities,
}
