//! Databases that are away, go away, or do not answer.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::net::{TcpListener, TcpStream};
use vouch_sql::{Database, Dialect, Fenced, Once, SqlCall, SqlError, SqlGrant, Statement};

use crate::{
    places::{Place, ample, text},
    proxy::{Mishap, Proxy},
    servers::{Make, Server, password},
};

const SERVERS: [Dialect; 2] = [Dialect::Postgres, Dialect::MariaDb];

/// Short, where the deadline is what is waited for.
const SHORT: Duration = Duration::from_millis(400);
/// What an answer may come after its deadline on a machine that is busy.
const SLACK: Duration = Duration::from_millis(1_500);

/// What is said for committing, and in no other command.
fn commit(dialect: Dialect) -> &'static str {
    if dialect == Dialect::Postgres { "commit\0" } else { "; commit" }
}

/// The database by way of this port.
fn by_way_of(place: &Place, port: u16) -> Database {
    let server = place.server.expect("a server");
    place.open(&SqlGrant { url: server.tcp_url("127.0.0.1", port, &place.name), ..place.grant() })
}

#[tokio::test]
async fn a_database_that_accepts_and_never_answers_is_unavailable_by_the_deadline() {
    for dialect in SERVERS {
        let Some(place) = Place::new(dialect) else { continue };
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let database = by_way_of(&place, silent.local_addr().unwrap().port());
        let began = Instant::now();
        let answer = database.run(&Statement::new("select 1", []), SqlCall::within(SHORT)).await;
        assert!(matches!(answer, Err(SqlError::Unavailable(_))), "{answer:?}");
        let closed = database.close_fence("a", &[], SqlCall::within(SHORT)).await;
        assert!(matches!(closed, Err(SqlError::Unavailable(_))), "{closed:?}");
        assert!(began.elapsed() < 2 * SHORT + SLACK, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn where_nobody_listens_the_database_is_unavailable_at_once() {
    for dialect in SERVERS {
        let Some(place) = Place::new(dialect) else { continue };
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
        let began = Instant::now();
        let answer = by_way_of(&place, port).run(&Statement::new("select 1", []), ample()).await;
        assert!(matches!(answer, Err(SqlError::Unavailable(_))), "{answer:?}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

/// A door to a server that may be shut: then whoever comes is sent away, and counted.
struct Door {
    port: u16,
    sent_away: Arc<AtomicU32>,
    is_shut: Arc<AtomicBool>,
}

impl Door {
    async fn shut_before(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let door = Self { port, sent_away: Arc::default(), is_shut: Arc::new(AtomicBool::new(true)) };
        let (sent_away, is_shut) = (door.sent_away.clone(), door.is_shut.clone());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                if is_shut.load(Ordering::SeqCst) {
                    sent_away.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                tokio::spawn(async move {
                    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await.expect("a server");
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        door
    }
}

#[tokio::test]
async fn a_database_that_refuses_is_tried_now_and_then_however_many_ask_and_found_again_within_a_second() {
    for dialect in SERVERS {
        let Some(place) = Place::new(dialect) else { continue };
        let door = Door::shut_before(place.server.unwrap().port).await;
        let database = by_way_of(&place, door.port);
        let statement = Statement::new("select 1", []);
        let began = Instant::now();
        let mut told = None;
        for _ in 0..500 {
            let answer = database.run(&statement, ample()).await;
            assert!(matches!(answer, Err(SqlError::Unavailable(_))), "{dialect:?}: {answer:?}");
            assert_eq!(told.get_or_insert_with(|| answer.clone()), &answer, "{dialect:?}: without an attempt, too");
        }
        // Three at first, and then one in each tenth of a second at most.
        let most = 3 + u32::try_from(began.elapsed().as_millis() / 100).unwrap();
        let tried = door.sent_away.load(Ordering::SeqCst);
        assert!((3..=most).contains(&tried), "{dialect:?}: tried {tried} times in {:?}", began.elapsed());
        door.is_shut.store(false, Ordering::SeqCst);
        let opened = Instant::now();
        while database.run(&statement, ample()).await.is_err() {
            assert!(opened.elapsed() < Duration::from_secs(1) + SLACK, "{dialect:?}: it is not found");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // What a new binding or a new password meets is not what others met.
        door.is_shut.store(true, Ordering::SeqCst);
        database.close_idle(Duration::ZERO);
        for _ in 0..5 {
            assert!(database.run(&statement, ample()).await.is_err());
        }
        door.is_shut.store(false, Ordering::SeqCst);
        assert!(by_way_of(&place, door.port).run(&statement, ample()).await.is_ok(), "{dialect:?}");
    }
}

#[tokio::test]
async fn a_database_that_falls_silent_is_given_up_at_the_deadline() {
    for dialect in SERVERS {
        let Some(place) = Place::new(dialect) else { continue };
        let proxy = Proxy::start(place.server.unwrap().port, "silence", Mishap::Silence).await;
        let database = by_way_of(&place, proxy.port);
        let statement = Statement::new("select 'silence'", []);
        assert!(database.run(&statement, ample()).await.is_ok());
        proxy.arm();
        let began = Instant::now();
        let answer = database.run(&statement, SqlCall::within(SHORT)).await;
        assert!(matches!(answer, Err(SqlError::TimedOut(_))), "{dialect:?}: {answer:?}");
        assert!(began.elapsed() < SHORT + SLACK, "{:?}", began.elapsed());
        assert!(database.run(&statement, ample()).await.is_ok());
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_in_doubt_and_the_key_tells() {
    for dialect in SERVERS {
        for mishap in [Mishap::CutBefore, Mishap::CutAfter] {
            let Some(place) = Place::new(dialect) else { continue };
            let proxy = Proxy::start(place.server.unwrap().port, commit(dialect), mishap).await;
            let database = by_way_of(&place, proxy.port);
            let insert = |id: &str| [place.statement("insert into orders (id) values (?)", [text(id)])];
            let happened = i64::from(mishap == Mishap::CutAfter);

            proxy.arm();
            let answer = database.run_all(&insert("a"), ample()).await;
            assert!(matches!(answer, Err(SqlError::InDoubt(_))), "{dialect:?} {mishap:?}: {answer:?}");
            assert_eq!(place.count("select count(*) from orders").await, happened);

            proxy.arm();
            let answer = database.run_once("key", &insert("b"), ample()).await;
            assert!(matches!(answer, Err(SqlError::InDoubt(_))), "{dialect:?} {mishap:?}: {answer:?}");
            let again = database.run_once("key", &insert("b"), ample()).await;
            match mishap {
                Mishap::CutAfter => assert_eq!(again, Ok(Once::Already)),
                _ => assert!(matches!(again, Ok(Once::Done(_))), "{again:?}"),
            }
            assert_eq!(place.count("select count(*) from orders where id = 'b'").await, 1);

            proxy.arm();
            let answer = database.close_fence("m", &[], ample()).await;
            assert!(matches!(answer, Err(SqlError::Unavailable(_))), "{dialect:?} {mishap:?}: {answer:?}");
            let read = database.read_fence(&["m".to_owned()], ample()).await;
            let wanted = if mishap == Mishap::CutAfter { Fenced::RolledBack } else { Fenced::Missing };
            assert_eq!(read, Ok(vec![wanted]), "{dialect:?}");
            assert_eq!(database.close_fence("m", &[], ample()).await, Ok(Fenced::RolledBack));
        }
    }
}

#[tokio::test]
async fn a_commit_that_is_not_answered_by_the_deadline_is_in_doubt() {
    for dialect in SERVERS {
        let Some(place) = Place::new(dialect) else { continue };
        let proxy = Proxy::start(place.server.unwrap().port, commit(dialect), Mishap::Silence).await;
        let database = by_way_of(&place, proxy.port);
        proxy.arm();
        let insert = [Statement::new("insert into orders (id) values ('a')", [])];
        let answer = database.run_all(&insert, SqlCall::within(SHORT)).await;
        assert!(matches!(answer, Err(SqlError::InDoubt(_))), "{dialect:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_killed_is_found_again_without_a_restart() {
    for make in [Make::Postgres, Make::MariaDb] {
        let Some(mut server) = Server::start(make) else { continue };
        server.create_database("killed", "create table t (a int);");
        let database =
            Database::open(&SqlGrant::new(server.url("killed")), password(), &server.surroundings()).unwrap();
        let ready = Statement::new("select 1", []);
        assert!(database.run(&ready, ample()).await.is_ok());
        // Killed in the middle of a query: the connection has answered once, and waits for this one.
        let long = if make == Make::Postgres { "select pg_sleep(60)" } else { "select sleep(60)" };
        let asking = tokio::spawn({
            let database = database.clone();
            async move { database.run(&Statement::new(long, []), ample()).await }
        });
        until_it_runs(&database, make).await;
        let server = tokio::task::spawn_blocking(move || {
            server.kill();
            server
        });
        let mut server = server.await.unwrap();
        let answer = asking.await.unwrap();
        assert!(matches!(answer, Err(SqlError::Unavailable(_))), "{make:?}: {answer:?}");
        let began = Instant::now();
        let away = database.run(&ready, SqlCall::within(SHORT)).await;
        assert!(matches!(away, Err(SqlError::Unavailable(_))), "{make:?}: {away:?}");
        assert!(began.elapsed() < SHORT + SLACK, "{:?}", began.elapsed());
        let server = tokio::task::spawn_blocking(move || {
            server.run();
            server
        });
        let _server = server.await.unwrap();
        assert!(database.run(&ready, ample()).await.is_ok(), "{make:?}");
    }
}

/// Waits until the database itself says that the long query runs.
async fn until_it_runs(database: &Database, make: Make) {
    let query = match make {
        Make::Postgres => {
            "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'"
        }
        Make::MariaDb => "select count(*) from information_schema.processlist where info like 'select sleep%'",
    };
    loop {
        let running = database.run(&Statement::new(query, []), ample()).await.expect("the database answers");
        if running.rows[0][0] != vouch_sql::Value::Integer(0) {
            return;
        }
    }
}

#[tokio::test]
async fn a_connection_that_the_server_closed_meanwhile_is_replaced_unseen() {
    for dialect in SERVERS {
        let Some(place) = Place::new(dialect) else { continue };
        let database = place.database();
        let (who, kill) = match dialect {
            Dialect::Postgres => ("select pg_backend_pid()", "select pg_terminate_backend(#, 5000)"),
            _ => ("select connection_id()", "kill #"),
        };
        let who = Statement::new(who, []);
        let vouch_sql::Value::Integer(before) = database.run(&who, ample()).await.unwrap().rows[0][0] else { panic!() };
        place.service().await.must(&kill.replace('#', &before.to_string())).await;
        let after = database.run(&who, ample()).await.unwrap();
        assert_ne!(after.rows[0][0], vouch_sql::Value::Integer(before), "{dialect:?}");
        assert_eq!(database.close_fence("a", &[], ample()).await, Ok(Fenced::RolledBack));
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_yet_is_unavailable_until_it_is() {
    let Some(place) = Place::new(Dialect::Sqlite) else { return };
    let file = place.folder().join("file.db");
    let away = place.folder().join("away.db");
    std::fs::rename(&file, &away).unwrap();
    let database = place.database();
    let answer = database.run(&Statement::new("select 1", []), ample()).await;
    assert!(matches!(answer, Err(SqlError::Unavailable(_))), "{answer:?}");
    std::fs::rename(&away, &file).unwrap();
    assert!(database.run(&Statement::new("select 1", []), ample()).await.is_ok());
}

#[tokio::test]
async fn a_file_that_is_put_in_the_place_of_another_is_the_one_that_counts() {
    let Some(place) = Place::new(Dialect::Sqlite) else { return };
    let (file, backup) = (place.folder().join("file.db"), place.folder().join("backup.db"));
    std::fs::copy(&file, &backup).unwrap();
    let database = place.database();
    assert_eq!(database.close_fence("a", &[], ample()).await, Ok(Fenced::RolledBack));
    std::fs::rename(&backup, &file).unwrap();
    assert_eq!(database.read_fence(&["a".to_owned()], ample()).await, Ok(vec![Fenced::Missing]));
    assert_eq!(database.close_fence("b", &[], ample()).await, Ok(Fenced::RolledBack));
    assert_eq!(place.count("select count(*) from vouch_fence").await, 1);
}
