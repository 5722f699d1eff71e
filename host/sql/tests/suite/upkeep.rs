//! Looking at a fence table before a binding stands on it, and emptying it of old rows.

use std::time::{Duration, SystemTime};

use vouch_sql::{Dialect, FenceExamination, SqlCall, SqlGrant, Statement, Value};

use crate::{
    outcomes::committed,
    places::{AMPLE, DIALECTS, Place, ample},
    servers::{Make, Server, password},
};

async fn examined(place: &Place) -> FenceExamination {
    place.database().examine_fence(ample()).await.unwrap_or_else(|error| panic!("{:?}: {error}", place.dialect))
}

#[tokio::test]
async fn the_tables_that_are_printed_are_found_good() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        let found = examined(&place).await;
        assert_eq!(found.refusals, Vec::<String>::new(), "{dialect:?}");
        // The servers of the tests are set to be fast, which is told.
        match dialect {
            Dialect::Postgres => assert!(found.warnings.iter().any(|text| text.contains("fsync")), "{found:?}"),
            Dialect::Sqlite => assert_eq!(found.warnings, Vec::<String>::new()),
            _ => assert!(found.warnings.iter().any(|text| text.contains("innodb_flush_log")), "{found:?}"),
        }
    }
}

#[tokio::test]
async fn a_fence_that_decides_nothing_is_refused_with_the_reason() {
    let columns = "outcome varchar(16) not null, noted_at timestamp";
    for (dialect, tables, reason) in [
        (Dialect::Postgres, String::new(), "not there"),
        (Dialect::Postgres, format!("create table vouch_fence (fence_key varchar(255), {columns})"), "unique"),
        (
            Dialect::Postgres,
            format!("create table vouch_fence (fence_key varchar(255), {columns}, primary key (fence_key, outcome))"),
            "unique",
        ),
        (
            Dialect::Postgres,
            format!(
                "create table vouch_fence (fence_key varchar(255) unique deferrable initially deferred, {columns})"
            ),
            "unique",
        ),
        (
            Dialect::Postgres,
            format!("create unlogged table vouch_fence (fence_key text primary key, {columns})"),
            "unlogged",
        ),
        (
            Dialect::Postgres,
            format!("create table vouch_fence (fence_key char(255) primary key, {columns})"),
            "varchar",
        ),
        (Dialect::Postgres, "create table vouch_fence (fence_key text primary key)".to_owned(), "outcome"),
        (Dialect::MariaDb, String::new(), "not there"),
        (Dialect::MariaDb, format!("create table vouch_fence (fence_key varbinary(255), {columns})"), "unique"),
        (
            Dialect::MariaDb,
            format!("create table vouch_fence (fence_key varbinary(255) primary key, {columns}) engine = MyISAM"),
            "InnoDB",
        ),
        (
            Dialect::MariaDb,
            format!("create table vouch_fence (fence_key varchar(255) character set utf8mb4 primary key, {columns})"),
            "case",
        ),
        (
            Dialect::MariaDb,
            format!("create table vouch_fence (fence_key varbinary(255), {columns}, unique key (fence_key(10)))"),
            "unique",
        ),
        (Dialect::Sqlite, String::new(), "not there"),
        (Dialect::Sqlite, format!("create table vouch_fence (fence_key text, {columns})"), "unique"),
        (
            Dialect::Sqlite,
            format!("create table vouch_fence (fence_key text collate nocase primary key, {columns})"),
            "case",
        ),
    ] {
        let Some(place) = Place::empty(dialect, &tables) else { continue };
        let found = examined(&place).await;
        assert!(found.refusals.iter().any(|text| text.contains(reason)), "{dialect:?} {tables}: {found:?}");
    }
}

#[tokio::test]
async fn settings_under_which_a_crash_takes_rows_back_are_told() {
    let Some(server) = Server::start(Make::Postgres) else { return };
    server.create_database("kept", &vouch_sql::fence_tables(Dialect::Postgres, false));
    let grant = SqlGrant { fence: Some("vouch_fence".parse().unwrap()), ..SqlGrant::new(server.url("kept")) };
    let warned = async |settings: &str| {
        server.administer("kept", settings);
        let database = vouch_sql::Database::open(&grant, password(), &server.surroundings()).unwrap();
        database.examine_fence(ample()).await.unwrap().warnings.join(" ")
    };
    let mut before = warned("alter system set fsync = on;\n\nselect pg_reload_conf()").await;
    // The server reads its settings when it comes to it.
    while before.contains("fsync") {
        before = warned("select 1").await;
    }
    assert_eq!(before, "");
    let loose = warned("alter database kept set synchronous_commit = off").await;
    assert!(loose.contains("synchronous_commit") && !loose.contains("fsync"), "{loose}");
    // The row of the fence itself is committed as if it were on.
    let note = Statement::new("insert into how select current_setting('synchronous_commit')", []);
    server.administer("kept", "create table how (what text);\n\ngrant all on how to public");
    let grant = SqlGrant { write: true, ..grant };
    let database = vouch_sql::Database::open(&grant, password(), &server.surroundings()).unwrap();
    database.close_fence("a", &[note], ample()).await.unwrap();
    let read = database.run(&Statement::new("select what from how", []), ample()).await.unwrap();
    assert_eq!(read.rows, [[Value::Text("on".to_owned())]]);
}

#[tokio::test]
async fn old_rows_go_a_thousand_at_a_time() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        let mut service = place.service().await;
        let old = match dialect {
            Dialect::Postgres => {
                "insert into vouch_fence select 'old' || n, 'committed', '2020-01-01T00:00:00Z' from generate_series(1, 1500) n"
            }
            Dialect::Sqlite => {
                "with recursive r(n) as (select 1 union all select n + 1 from r where n < 1500) insert into vouch_fence select 'old' || n, 'committed', '2020-01-01T00:00:00.000Z' from r"
            }
            _ => {
                "insert into vouch_fence select concat('old', seq), 'committed', '2020-01-01 00:00:00' from seq_1_to_1500"
            }
        };
        service.must(old).await;
        service.must(&committed("new")).await;
        let database = place.database();
        let week_ago = SystemTime::now() - Duration::from_secs(7 * 86_400);
        assert_eq!(database.clean_fence(week_ago, SqlCall::dry_within(AMPLE)).await, Ok(1_500), "{dialect:?}");
        for deleted in [1_000, 500, 0] {
            assert_eq!(database.clean_fence(week_ago, ample()).await, Ok(deleted), "{dialect:?}");
        }
        assert_eq!(place.count("select count(*) from vouch_fence").await, 1);
        let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
        assert_eq!(database.clean_fence(tomorrow, ample()).await, Ok(1), "{dialect:?}");
    }
}

#[tokio::test]
async fn connections_that_nobody_uses_are_closed_when_that_is_said_and_made_again_when_they_are_needed() {
    for (dialect, me) in [(Dialect::Postgres, "select pg_backend_pid()"), (Dialect::MariaDb, "select connection_id()")]
    {
        let Some(place) = Place::new(dialect) else { continue };
        let database = place.database();
        let session = async || {
            let answer = database.run(&Statement::new(me, []), ample()).await.unwrap();
            let Value::Integer(session) = answer.rows[0][0] else { panic!("{answer:?}") };
            session
        };
        let first = session().await;
        let of_it = match dialect {
            Dialect::Postgres => format!("select count(*) from pg_stat_activity where pid = {first}"),
            _ => format!("select count(*) from information_schema.processlist where id = {first}"),
        };
        database.close_idle(Duration::from_secs(300));
        assert_eq!(session().await, first, "{dialect:?}: it was just used");
        database.close_idle(Duration::ZERO);
        // The server sees a moment later that it is gone.
        let until = std::time::Instant::now() + AMPLE;
        while place.count(&of_it).await > 0 {
            assert!(std::time::Instant::now() < until, "{dialect:?}: the connection stays");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_ne!(session().await, first, "{dialect:?}");
    }
}
