//! A database of each kind for one test: with a fence, a once table and an orders table, and a second way in.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use vouch_sql::{
    Database, DatabasePassword, DatabaseUrl, Dialect, SqlCall, SqlGrant, SqlSurroundings, Statement, Value,
    fence_tables,
};

use crate::{
    servers::{Make, Server, password},
    service::Service,
};

/// Nothing here takes so long, unless it is to be stopped.
pub(crate) const AMPLE: Duration = Duration::from_secs(20);

/// The kinds of databases that tests run on.
pub(crate) const DIALECTS: [Dialect; 3] = [Dialect::Postgres, Dialect::MariaDb, Dialect::Sqlite];

/// A database of one test.
pub(crate) struct Place {
    pub(crate) dialect: Dialect,
    pub(crate) name: String,
    pub(crate) server: Option<&'static Server>,
    folder: Option<tempfile::TempDir>,
}

/// Whether the tables have what makes rows final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    With,
    Without,
}

impl Place {
    /// An empty one with the tables of the protocol; `None`, and said aloud, where there is no such server.
    pub(crate) fn new(dialect: Dialect) -> Option<Self> {
        Self::with_tables(dialect, Trigger::With)
    }

    /// One with or without the triggers.
    pub(crate) fn with_tables(dialect: Dialect, trigger: Trigger) -> Option<Self> {
        let fence = fence_tables(dialect, trigger == Trigger::Without);
        let orders = match dialect {
            Dialect::Postgres | Dialect::Sqlite => {
                "create table orders (id varchar(255) primary key, state varchar(20) not null default 'NEW', amount int check (amount >= 0));"
            }
            _ => {
                "create table orders (id varchar(255) primary key, state varchar(20) not null default 'NEW', amount int check (amount >= 0)) engine = InnoDB;"
            }
        };
        Self::empty(dialect, &format!("{fence}{orders}"))
    }

    /// One with these tables.
    pub(crate) fn empty(dialect: Dialect, tables: &str) -> Option<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let make = match dialect {
            Dialect::Postgres => Make::Postgres,
            Dialect::MariaDb | Dialect::MySql => Make::MariaDb,
            Dialect::Sqlite => {
                let folder = tempfile::tempdir().expect("a folder for a file");
                let file = rusqlite::Connection::open(folder.path().join("file.db")).expect("a SQLite file");
                file.execute_batch(tables).expect("tables");
                return Some(Self { dialect, name, server: None, folder: Some(folder) });
            }
        };
        let server = Server::shared(make)?;
        server.create_database(&name, tables);
        Some(Self { dialect, name, server: Some(server), folder: None })
    }

    pub(crate) fn url(&self) -> DatabaseUrl {
        match (self.server, &self.folder) {
            (Some(server), _) => server.url(&self.name),
            (None, Some(folder)) => format!("sqlite:{}/file.db", folder.path().display()).parse().expect("a url"),
            (None, None) => unreachable!("a place is on a server or in a folder"),
        }
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.as_ref().expect("a SQLite file lies in a folder").path()
    }

    /// A grant of everything.
    pub(crate) fn grant(&self) -> SqlGrant {
        SqlGrant {
            write: true,
            fence: Some("vouch_fence".parse().expect("a name")),
            once: Some("vouch_once".parse().expect("a name")),
            ..SqlGrant::new(self.url())
        }
    }

    pub(crate) fn surroundings(&self) -> SqlSurroundings {
        match (self.server, &self.folder) {
            (Some(server), _) => server.surroundings(),
            (None, folder) => SqlSurroundings {
                sqlite_dirs: folder.iter().map(|folder| folder.path().to_owned()).collect(),
                ..SqlSurroundings::default()
            },
        }
    }

    /// The database as a binding with this grant has it.
    pub(crate) fn open(&self, grant: &SqlGrant) -> Database {
        let password = if self.server.is_some() { password() } else { DatabasePassword::default() };
        Database::open(grant, password, &self.surroundings()).expect("a grant that can be used")
    }

    /// The same with every right.
    pub(crate) fn database(&self) -> Database {
        self.open(&self.grant())
    }

    /// A connection of the service that owns the database.
    pub(crate) async fn service(&self) -> Service {
        Service::connect(self).await
    }

    /// A statement that is the same everywhere but for its placeholders, written as `?`.
    pub(crate) fn statement(&self, text: &str, params: impl Into<Vec<Value>>) -> Statement {
        Statement::new(self.text(text), params)
    }

    /// The text of one.
    pub(crate) fn text(&self, text: &str) -> String {
        if self.dialect != Dialect::Postgres {
            return text.to_owned();
        }
        let mut parts = text.split('?');
        let mut numbered = parts.next().unwrap_or_default().to_owned();
        for (before, part) in parts.enumerate() {
            numbered += &format!("${}{part}", before + 1);
        }
        numbered
    }

    /// What a query answers, by way of the crate itself.
    pub(crate) async fn count(&self, text: &str) -> i64 {
        let answer = self.database().run(&Statement::new(text, []), ample()).await.expect("a count");
        match answer.rows[0][0] {
            Value::Integer(count) => count,
            ref other => panic!("{other:?} is no count"),
        }
    }
}

/// A call that has all the time it needs.
pub(crate) fn ample() -> SqlCall {
    SqlCall::within(AMPLE)
}

pub(crate) fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}
