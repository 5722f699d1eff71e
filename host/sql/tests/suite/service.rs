//! The other side: the service that owns the database, with a client of its own that knows nothing of this crate.

use bytes::BytesMut;
use mysql_async::prelude::Queryable as _;
use postgres_protocol::message::{backend::Message, frontend};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};
use vouch_sql::Dialect;

use crate::places::Place;

/// A connection of the service.
pub(crate) enum Service {
    Postgres(Postgres),
    MariaDb(mysql_async::Conn),
    /// In a thread that may block, as a lock is waited for there.
    Sqlite(Option<rusqlite::Connection>),
}

/// A client that knows text commands only.
pub(crate) struct Postgres {
    stream: UnixStream,
    incoming: BytesMut,
}

/// What a database refuses with: SQLSTATE, an error number, or a code of SQLite.
pub(crate) type Refused = String;

impl Service {
    pub(crate) async fn connect(place: &Place) -> Self {
        match place.dialect {
            Dialect::Postgres => {
                let server = place.server.expect("a server");
                Self::Postgres(Postgres::connect(&server.socket(), &place.name).await)
            }
            Dialect::Sqlite => {
                let file = rusqlite::Connection::open(place.folder().join("file.db")).expect("a SQLite file");
                file.busy_timeout(std::time::Duration::from_secs(5)).expect("a time-out");
                Self::Sqlite(Some(file))
            }
            _ => {
                let socket = place.server.expect("a server").socket().display().to_string();
                let options = mysql_async::OptsBuilder::default()
                    .user(Some("root"))
                    .db_name(Some(&place.name))
                    .socket(Some(socket))
                    .stmt_cache_size(0);
                Self::MariaDb(mysql_async::Conn::new(options).await.expect("a connection"))
            }
        }
    }

    /// Runs a command; the first field of the first row, if there is one.
    pub(crate) async fn run(&mut self, text: &str) -> Result<Option<String>, Refused> {
        match self {
            Self::Postgres(client) => client.run(text).await,
            Self::MariaDb(connection) => {
                let first: Result<Option<mysql_async::Row>, _> = connection.query_first(text).await;
                match first {
                    Ok(row) => Ok(row.and_then(|row| row.get::<Option<String>, _>(0)).flatten()),
                    Err(mysql_async::Error::Server(error)) => Err(error.code.to_string()),
                    Err(error) => Err(error.to_string()),
                }
            }
            Self::Sqlite(file) => {
                let (connection, text) = (file.take().expect("one command at a time"), text.to_owned());
                let run = move || {
                    let answer = in_sqlite(&connection, &text);
                    (connection, answer)
                };
                let (connection, answer) = tokio::task::spawn_blocking(run).await.expect("a thread that ends");
                *file = Some(connection);
                answer
            }
        }
    }

    /// Runs a command that must not be refused.
    pub(crate) async fn must(&mut self, text: &str) -> Option<String> {
        self.run(text).await.unwrap_or_else(|refused| panic!("{text}: {refused}"))
    }
}

fn in_sqlite(connection: &rusqlite::Connection, text: &str) -> Result<Option<String>, Refused> {
    let code = |error: rusqlite::Error| match error {
        rusqlite::Error::SqliteFailure(error, _) => error.extended_code.to_string(),
        other => other.to_string(),
    };
    let mut prepared = connection.prepare(text).map_err(code)?;
    let mut rows = prepared.query([]).map_err(code)?;
    let mut first = None;
    while let Some(row) = rows.next().map_err(code)? {
        let field: rusqlite::types::Value = row.get(0).map_err(code)?;
        first.get_or_insert(match field {
            rusqlite::types::Value::Text(text) => text,
            rusqlite::types::Value::Integer(number) => number.to_string(),
            other => format!("{other:?}"),
        });
    }
    Ok(first)
}

impl Postgres {
    async fn connect(socket: &std::path::Path, database: &str) -> Self {
        let stream = UnixStream::connect(socket).await.expect("the server listens");
        let mut client = Self { stream, incoming: BytesMut::new() };
        let mut startup = BytesMut::new();
        let parameters = [("user", "postgres"), ("database", database)];
        frontend::startup_message(parameters, &mut startup).expect("a startup message");
        client.stream.write_all(&startup).await.expect("it is sent");
        client.heard().await.expect("let in");
        client
    }

    async fn run(&mut self, text: &str) -> Result<Option<String>, Refused> {
        let mut query = BytesMut::new();
        frontend::query(text, &mut query).expect("a query");
        self.stream.write_all(&query).await.map_err(|error| error.to_string())?;
        self.heard().await
    }

    async fn heard(&mut self) -> Result<Option<String>, Refused> {
        use fallible_iterator::FallibleIterator as _;
        let (mut first, mut refused) = (None, None);
        loop {
            let Some(message) = Message::parse(&mut self.incoming).expect("a message") else {
                if self.stream.read_buf(&mut self.incoming).await.map_err(|error| error.to_string())? == 0 {
                    return Err("ended".to_owned());
                }
                continue;
            };
            match message {
                Message::DataRow(body) => {
                    let range = body.ranges().next().expect("a row").flatten();
                    let field = range.map(|range| String::from_utf8_lossy(&body.buffer()[range]).into_owned());
                    first = first.or(field);
                }
                Message::ErrorResponse(body) => {
                    let code = body.fields().find(|field| Ok(field.type_() == b'C')).expect("fields").expect("a code");
                    refused = Some(String::from_utf8_lossy(code.value_bytes()).into_owned());
                }
                Message::ReadyForQuery(_) => return refused.map_or(Ok(first), Err),
                _ => {}
            }
        }
    }
}
