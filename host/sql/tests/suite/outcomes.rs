//! Every row of the fence's outcome table, on each database.

use std::time::Duration;

use vouch_sql::{Database, Dialect, Fenced, Once, SqlCall, SqlError, SqlGrant, Statement};

use crate::{
    places::{AMPLE, DIALECTS, Place, ample, text},
    servers::{Make, Server, password},
};

/// What the service of a business transaction runs first.
pub(crate) fn committed(key: &str) -> String {
    format!("insert into vouch_fence (fence_key, outcome) values ('{key}', 'committed')")
}

fn keys(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

#[tokio::test]
async fn a_missing_row_is_closed_once_and_for_ever() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        let database = place.database();
        assert_eq!(database.read_fence(&keys(&["a"]), ample()).await, Ok(vec![Fenced::Missing]));
        let dry = SqlCall::dry_within(AMPLE);
        assert_eq!(database.close_fence("a", &[], dry).await, Ok(Fenced::RolledBack), "{dialect:?}");
        assert_eq!(database.read_fence(&keys(&["a"]), ample()).await, Ok(vec![Fenced::Missing]));
        assert_eq!(database.close_fence("a", &[], ample()).await, Ok(Fenced::RolledBack));
        assert_eq!(database.close_fence("a", &[], ample()).await, Ok(Fenced::RolledBack));
        let mut service = place.service().await;
        assert!(service.run(&committed("a")).await.is_err());
        service.must(&committed("b")).await;
        assert_eq!(database.close_fence("b", &[], ample()).await, Ok(Fenced::Committed));
        let read = database.read_fence(&keys(&["b", "c", "a", "b"]), ample()).await;
        let wanted = vec![Fenced::Committed, Fenced::Missing, Fenced::RolledBack, Fenced::Committed];
        assert_eq!(read, Ok(wanted), "{dialect:?}");
    }
}

#[tokio::test]
async fn what_else_is_to_happen_happens_with_the_closing_row_or_not_at_all() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        let database = place.database();
        place.service().await.must("insert into orders (id) values ('o')").await;
        let cancel = [place.statement("update orders set state = 'CANCELLED' where id = ?", [text("o")])];
        assert_eq!(database.close_fence("a", &cancel, SqlCall::dry_within(AMPLE)).await, Ok(Fenced::RolledBack));
        assert_eq!(place.count("select count(*) from orders where state = 'CANCELLED'").await, 0);
        assert_eq!(database.close_fence("a", &cancel, ample()).await, Ok(Fenced::RolledBack));
        assert_eq!(place.count("select count(*) from orders where state = 'CANCELLED'").await, 1);
        // A second closing finds the row and runs nothing.
        place.service().await.must("update orders set state = 'NEW'").await;
        assert_eq!(database.close_fence("a", &cancel, ample()).await, Ok(Fenced::RolledBack));
        assert_eq!(place.count("select count(*) from orders where state = 'CANCELLED'").await, 0);
        // What fails takes the row with it.
        let again = [place.statement("insert into orders (id) values (?)", [text("o")])];
        let conflict = database.close_fence("b", &again, ample()).await;
        assert!(matches!(conflict, Err(SqlError::Conflict(_))), "{dialect:?}: {conflict:?}");
        assert_eq!(database.read_fence(&keys(&["b"]), ample()).await, Ok(vec![Fenced::Missing]));
        let reading = place.open(&SqlGrant { write: false, ..place.grant() });
        let refused = reading.close_fence("b", &cancel, ample()).await;
        assert!(matches!(refused, Err(SqlError::NotGranted(_))), "{refused:?}");
        assert_eq!(reading.close_fence("b", &[], ample()).await, Ok(Fenced::RolledBack), "{dialect:?}");
    }
}

#[tokio::test]
async fn a_row_that_an_open_transaction_has_is_held() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        let database = place.database();
        let mut service = place.service().await;
        service.must("begin").await;
        service.must(&committed("a")).await;
        // However little time there is: the default deadline of a binding leaves 900 ms.
        for within in [AMPLE, Duration::from_millis(900)] {
            let closed = database.close_fence("a", &[], SqlCall::within(within)).await;
            assert_eq!(closed, Ok(Fenced::Held), "{dialect:?}, within {within:?}");
        }
        let read = database.read_fence(&keys(&["a"]), ample()).await.unwrap();
        assert!(matches!(read[0], Fenced::Missing | Fenced::Held), "{dialect:?}: {read:?}");
        service.must("rollback").await;
        assert_eq!(database.close_fence("a", &[], ample()).await, Ok(Fenced::RolledBack));
    }
}

#[tokio::test]
async fn a_key_that_an_open_transaction_notes_aborts_the_one_that_runs_once() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        let database = place.database();
        let mut service = place.service().await;
        service.must("begin").await;
        service.must("insert into vouch_once (once_key) values ('a')").await;
        let answer = database.run_once("a", &[], ample()).await;
        assert!(matches!(answer, Err(SqlError::Aborted(_))), "{dialect:?}: {answer:?}");
        service.must("rollback").await;
        assert!(matches!(database.run_once("a", &[], ample()).await, Ok(Once::Done(_))), "{dialect:?}");
    }
}

#[tokio::test]
async fn a_deadlock_holds_one_of_the_two_and_both_agree() {
    for dialect in [Dialect::Postgres, Dialect::MariaDb] {
        let Some(place) = Place::new(dialect) else { continue };
        let mut service = place.service().await;
        service.must("insert into orders (id) values ('o')").await;
        service.must("begin").await;
        service.must("update orders set state = 'PAID'").await;
        // The check has the key and wants the order; the service has the order and wants the key.
        let check = tokio::spawn({
            let database = place.database();
            let cancel = [place.statement("update orders set state = 'CANCELLED' where id = ?", [text("o")])];
            async move { database.close_fence("a", &cancel, ample()).await }
        });
        let mut watch = place.service().await;
        let running = match dialect {
            Dialect::Postgres => {
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            }
            _ => {
                "select count(*) from information_schema.processlist where info like 'update orders%' and db = database()"
            }
        };
        while watch.must(running).await.as_deref() == Some("0") {}
        let inserted = service.run(&committed("a")).await;
        let _ = service.run(if inserted.is_ok() { "commit" } else { "rollback" }).await;
        let closed = check.await.unwrap();
        match inserted {
            Ok(_) => assert!(matches!(closed, Ok(Fenced::Held | Fenced::Committed)), "{dialect:?}: {closed:?}"),
            Err(_) => assert_eq!(closed, Ok(Fenced::RolledBack), "{dialect:?}"),
        }
        let states = place.count("select count(*) from orders where state = 'CANCELLED'").await;
        assert_eq!(states, i64::from(closed == Ok(Fenced::RolledBack)), "{dialect:?}");
    }
}

#[tokio::test]
async fn a_closing_that_runs_past_its_deadline_is_timed_out_and_undone() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        let endless = match dialect {
            Dialect::Postgres => "select pg_sleep(100)",
            Dialect::Sqlite => "with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) from r",
            _ => "select sleep(100)",
        };
        let short = SqlCall::within(std::time::Duration::from_millis(500));
        let closed = place.database().close_fence("a", &[Statement::new(endless, [])], short).await;
        assert!(matches!(closed, Err(SqlError::TimedOut(_))), "{dialect:?}: {closed:?}");
        let read = place.database().read_fence(&keys(&["a"]), ample()).await;
        assert_eq!(read, Ok(vec![Fenced::Missing]), "{dialect:?}");
    }
}

#[tokio::test]
async fn a_replica_or_a_database_that_only_reads_is_unavailable_for_closing() {
    for make in [Make::Postgres, Make::MariaDb] {
        let Some(mut server) = Server::start(make) else { continue };
        let dialect = if make == Make::Postgres { Dialect::Postgres } else { Dialect::MariaDb };
        server.create_database("replica", &vouch_sql::fence_tables(dialect, false));
        match make {
            Make::Postgres => server.restart_as_standby(),
            Make::MariaDb => server.administer("replica", "set global read_only = 1"),
        }
        let fence = Some("vouch_fence".parse().unwrap());
        let grant = SqlGrant { write: true, fence, ..SqlGrant::new(server.url("replica")) };
        let database = Database::open(&grant, password(), &server.surroundings()).unwrap();
        let read = database.read_fence(&keys(&["a"]), ample()).await;
        assert_eq!(read, Ok(vec![Fenced::Missing]), "{make:?}");
        for answer in [
            database.close_fence("a", &[], ample()).await.map(|_| ()),
            database.run(&Statement::new(committed("a"), []), ample()).await.map(|_| ()),
        ] {
            assert!(
                matches!(&answer, Err(SqlError::Unavailable(text)) if text.contains("primary")),
                "{make:?}: {answer:?}"
            );
        }
        let warnings = database.examine_fence(ample()).await.unwrap().warnings;
        assert!(warnings.iter().any(|text| text.contains("replica")), "{make:?}: {warnings:?}");
    }
    let Some(place) = Place::new(Dialect::Sqlite) else { return };
    // A file of a format that this version may read and not write.
    let path = place.folder().join("file.db");
    let mut file = std::fs::read(&path).unwrap();
    file[18] = 3;
    std::fs::write(&path, file).unwrap();
    let closed = place.database().close_fence("a", &[], ample()).await;
    assert!(matches!(&closed, Err(SqlError::Unavailable(text)) if text.contains("read-only")), "{closed:?}");
}

#[tokio::test]
async fn a_missing_table_or_column_is_invalid() {
    for dialect in DIALECTS {
        let Some(place) = Place::empty(dialect, "create table vouch_fence (fence_key varchar(255) primary key)") else {
            continue;
        };
        let database = place.database();
        let column = database.close_fence("a", &[], ample()).await;
        assert!(matches!(column, Err(SqlError::Invalid(_))), "{dialect:?}: {column:?}");
        let other = place.open(&SqlGrant { fence: Some("not_there".parse().unwrap()), ..place.grant() });
        for answer in [
            other.close_fence("a", &[], ample()).await.map(|_| ()),
            other.read_fence(&keys(&["a"]), ample()).await.map(|_| ()),
        ] {
            assert!(matches!(answer, Err(SqlError::Invalid(_))), "{dialect:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_table_that_takes_no_closing_row_is_invalid_and_never_held() {
    let tables = "create table vouch_fence (fence_key varchar(255) primary key, outcome varchar(16) not null \
                  check (outcome = 'committed'))";
    for dialect in DIALECTS {
        let Some(place) = Place::empty(dialect, tables) else { continue };
        let closed = place.database().close_fence("a", &[], ample()).await;
        assert!(matches!(closed, Err(SqlError::Invalid(_))), "{dialect:?}: {closed:?}");
    }
}

#[tokio::test]
async fn keys_are_kept_to_the_last_byte_or_refused_before_they_are_sent() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        let database = place.database();
        let longest = "k".repeat(255);
        assert_eq!(database.close_fence(&longest, &[], ample()).await, Ok(Fenced::RolledBack));
        let too_long = "k".repeat(256);
        for answer in [
            database.close_fence(&too_long, &[], ample()).await.map(|_| ()),
            database.read_fence(std::slice::from_ref(&too_long), ample()).await.map(|_| ()),
        ] {
            assert!(matches!(answer, Err(SqlError::TooLarge(_))), "{answer:?}");
        }
        // Neither case nor spaces nor accents make two keys one.
        for key in ["Key", "key", "key ", "kéy", "KEY"] {
            let read = database.read_fence(&keys(&[key]), ample()).await;
            assert_eq!(read, Ok(vec![Fenced::Missing]), "{dialect:?} {key:?}");
            assert_eq!(database.close_fence(key, &[], ample()).await, Ok(Fenced::RolledBack), "{dialect:?} {key:?}");
        }
        let many = vec!["a".to_owned(); 1_001];
        assert!(matches!(database.read_fence(&many, ample()).await, Err(SqlError::TooLarge(_))));
        assert_eq!(database.read_fence(&many[..1_000], ample()).await, Ok(vec![Fenced::Missing; 1_000]));
    }
}

#[tokio::test]
async fn a_final_row_cannot_be_turned_by_an_upsert() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        assert_eq!(place.database().close_fence("a", &[], ample()).await, Ok(Fenced::RolledBack));
        let upsert = match dialect {
            Dialect::MariaDb => format!("{} on duplicate key update outcome = 'committed'", committed("a")),
            _ => format!("{} on conflict (fence_key) do update set outcome = 'committed'", committed("a")),
        };
        let mut service = place.service().await;
        let refused = service.run(&upsert).await;
        assert!(refused.is_err(), "{dialect:?}");
        assert!(service.run("update vouch_fence set outcome = 'committed'").await.is_err(), "{dialect:?}");
        assert_eq!(place.database().close_fence("a", &[], ample()).await, Ok(Fenced::RolledBack));
    }
}
