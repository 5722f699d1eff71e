//! TLS, passwords, and what no error text may hold.

use vouch_sql::{Database, DatabasePassword, Dialect, SqlError, SqlGrant, SqlSurroundings, Statement, TlsUse, Value};

use crate::{
    places::{DIALECTS, Place, ample},
    servers::{PASSWORD, TLS_NAME, USER, password},
};

const SERVERS: [Dialect; 2] = [Dialect::Postgres, Dialect::MariaDb];

/// Whether the connection that asks is under TLS.
fn is_secured(dialect: Dialect) -> Statement {
    Statement::new(
        match dialect {
            Dialect::Postgres => {
                "select case when ssl then 'yes' else '' end from pg_stat_ssl where pid = pg_backend_pid()"
            }
            _ => {
                "select case when variable_value <> '' then 'yes' else '' end from information_schema.session_status where variable_name = 'SSL_CIPHER'"
            }
        },
        [],
    )
}

fn has_nothing_secret(error: &SqlError) {
    let text = error.to_string();
    for secret in [PASSWORD, USER, "127.0.0.1", "localhost", "/tmp/"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn tls_holds_only_with_the_right_name_of_somebody_trusted() {
    for dialect in SERVERS {
        let Some(place) = Place::new(dialect) else { continue };
        let server = place.server.unwrap();
        let open = |host: &str, tls: TlsUse, surroundings: &SqlSurroundings| {
            let grant = SqlGrant { url: server.tcp_url(host, server.port, &place.name), tls, ..place.grant() };
            Database::open(&grant, password(), surroundings).unwrap()
        };
        let ask = is_secured(dialect);
        let trusted = server.surroundings();
        let right = open(TLS_NAME, TlsUse::Always, &trusted).run(&ask, ample()).await.unwrap();
        assert_eq!(right.rows, [[Value::Text("yes".to_owned())]], "{dialect:?}");
        let plain = open("127.0.0.1", TlsUse::UnlessLocal, &trusted).run(&ask, ample()).await.unwrap();
        assert_eq!(plain.rows, [[Value::Text(String::new())]], "{dialect:?}");
        assert!(open("127.0.0.1", TlsUse::Off, &trusted).run(&ask, ample()).await.is_ok());
        for (host, surroundings) in [("127.0.0.1", &trusted), (TLS_NAME, &SqlSurroundings::default())] {
            let wrong = open(host, TlsUse::Always, surroundings).run(&ask, ample()).await.unwrap_err();
            assert!(
                matches!(&wrong, SqlError::Unavailable(text) if text.contains("certificate")),
                "{dialect:?}: {wrong}"
            );
            has_nothing_secret(&wrong);
        }
    }
}

#[tokio::test]
async fn a_server_without_tls_gets_no_password() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("postgres://{USER}@127.0.0.1:{port}/d").parse().unwrap();
    let grant = SqlGrant { tls: TlsUse::Always, ..SqlGrant::new(url) };
    let database = Database::open(&grant, password(), &SqlSurroundings::default()).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 8];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(b"N").await.unwrap();
        let mut more = Vec::new();
        stream.read_to_end(&mut more).await.unwrap();
        more
    });
    let refused = database.run(&Statement::new("select 1", []), ample()).await.unwrap_err();
    assert!(matches!(&refused, SqlError::Unavailable(text) if text.contains("TLS")), "{refused}");
    drop(database);
    assert!(server.await.unwrap().is_empty());
}

#[tokio::test]
async fn a_new_password_holds_from_the_next_call_and_old_connections_go() {
    for dialect in SERVERS {
        let Some(place) = Place::new(dialect) else { continue };
        let wrong = DatabasePassword::new("wrong");
        let database = Database::open(&place.grant(), wrong.clone(), &place.surroundings()).unwrap();
        let who = match dialect {
            Dialect::Postgres => "select pg_backend_pid()",
            _ => "select connection_id()",
        };
        let who = Statement::new(who, []);
        let refused = database.run(&who, ample()).await.unwrap_err();
        assert!(matches!(&refused, SqlError::Unavailable(text) if text.contains("password")), "{dialect:?}: {refused}");
        has_nothing_secret(&refused);
        database.set_password(password());
        let first = database.run(&who, ample()).await.unwrap();
        database.set_password(password());
        assert_eq!(database.run(&who, ample()).await.unwrap(), first, "the same password changes nothing");
        database.set_password(wrong);
        assert!(matches!(database.run(&who, ample()).await, Err(SqlError::Unavailable(_))), "{dialect:?}");
        database.set_password(password());
        assert_ne!(database.run(&who, ample()).await.unwrap(), first, "{dialect:?}");
    }
}

#[tokio::test]
async fn no_error_names_address_user_or_password() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        let database = place.database();
        let mut service = place.service().await;
        match dialect {
            Dialect::Postgres => {
                service.must("create table closed (a int)").await;
                service.must(&format!("create table \"{USER}\" (a int check (a > 0))")).await;
                service.must(&format!("grant all on \"{USER}\" to public")).await;
            }
            Dialect::Sqlite => {}
            _ => {
                service.must("create table closed (a int)").await;
                service.must(&format!("create table {USER} (a int)")).await;
            }
        }
        for statement in [
            "select * from closed".to_owned(),
            "select * from mysql.user".to_owned(),
            "select pg_read_file('/etc/passwd')".to_owned(),
            format!("select * from {USER}.there"),
            format!("insert into {USER} values (-1, 2)"),
            format!("insert into {USER} values (-1)"),
            format!("select '{PASSWORD}' from nowhere where {USER} = 1"),
        ] {
            // A SQLite file has no users.
            let is_nobody = dialect == Dialect::Sqlite && statement.contains(USER);
            if let Err(error) = database.run(&Statement::new(statement, []), ample()).await
                && !is_nobody
            {
                has_nothing_secret(&error);
            }
        }
        let unknown = match place.server {
            Some(server) => server.url("not_there"),
            None => format!("sqlite:{}/not_there.db", place.folder().display()).parse().unwrap(),
        };
        let error =
            place.open(&SqlGrant { url: unknown, ..place.grant() }).read_fence(&["a".to_owned()], ample()).await;
        has_nothing_secret(&error.unwrap_err());
    }
}

#[tokio::test]
async fn a_file_outside_of_the_folders_is_refused_however_it_is_named() {
    let Some(place) = Place::new(Dialect::Sqlite) else { return };
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::copy(place.folder().join("file.db"), elsewhere.path().join("secret.db")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("secret.db"), place.folder().join("link.db")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), place.folder().join("links")).unwrap();
    let open = |path: String| {
        let grant = SqlGrant::new(format!("sqlite:{path}").parse().unwrap());
        Database::open(&grant, DatabasePassword::default(), &place.surroundings())
    };
    let inside = place.folder().display();
    assert!(open(format!("{inside}/file.db")).is_ok());
    for path in [
        format!("{}/secret.db", elsewhere.path().display()),
        format!("{inside}/link.db"),
        format!("{inside}/links/secret.db"),
        format!("{inside}/../{}/secret.db", elsewhere.path().file_name().unwrap().display()),
        "/etc/passwd".to_owned(),
    ] {
        assert!(open(path.clone()).is_err(), "{path}");
    }
    // A link that is put there later.
    let database = open(format!("{inside}/later.db")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("secret.db"), place.folder().join("later.db")).unwrap();
    let answer = database.run(&Statement::new("select 1", []), ample()).await;
    assert!(matches!(answer, Err(SqlError::Unavailable(_))), "{answer:?}");
}
