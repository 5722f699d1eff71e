//! Statements that mean no good, and calls that want more than there is.

use std::{
    num::NonZeroU16,
    time::{Duration, Instant},
};

use vouch_sql::{Dialect, SqlCall, SqlError, SqlGrant, Statement, Value};

use crate::places::{AMPLE, DIALECTS, Place, ample, text};

const SHORT: Duration = Duration::from_millis(500);
/// What an answer may come after its deadline on a machine that is busy.
const SLACK: Duration = Duration::from_millis(1_500);

#[tokio::test]
async fn a_query_that_never_ends_is_ended_at_the_database_too() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        let database = place.database();
        let endless: &[&str] = match dialect {
            Dialect::Postgres => &[
                "select pg_sleep(100)",
                "select count(*) from generate_series(1, 100000) a, generate_series(1, 100000) b, generate_series(1, 100000) c",
            ],
            Dialect::Sqlite => {
                &["with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) from r"]
            }
            _ => &["select sleep(100)", "select count(*) from seq_1_to_1000000000 a, seq_1_to_1000000000 b"],
        };
        for query in endless {
            let began = Instant::now();
            let answer = database.run(&Statement::new(*query, []), SqlCall::within(SHORT)).await;
            assert!(matches!(answer, Err(SqlError::TimedOut(_))), "{dialect:?} {query}: {answer:?}");
            assert!(began.elapsed() < SHORT + SLACK, "{:?}", began.elapsed());
            let running = match dialect {
                Dialect::Postgres => {
                    "select count(*) from pg_stat_activity where datname = current_database() and state = 'active' and pid <> pg_backend_pid()"
                }
                Dialect::Sqlite => continue,
                _ => {
                    "select count(*) from information_schema.processlist where db = database() and info is not null and id <> connection_id()"
                }
            };
            // It ends a moment after it said that it would.
            let ended = async { while place.count(running).await > 0 {} };
            assert!(tokio::time::timeout(AMPLE, ended).await.is_ok(), "{dialect:?} {query}");
        }
        // Each statement of a call gets what is left of its time.
        let slow = match dialect {
            Dialect::Postgres => "select pg_sleep(0.3)",
            Dialect::Sqlite => continue,
            _ => "select sleep(0.3)",
        };
        let began = Instant::now();
        let answer = database.run_all(&vec![Statement::new(slow, []); 5], SqlCall::within(SHORT)).await;
        assert!(matches!(answer, Err(SqlError::TimedOut(_))), "{dialect:?}: {answer:?}");
        assert!(began.elapsed() < SHORT + SLACK, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn nothing_of_one_call_is_left_in_the_session_for_the_next() {
    let one = NonZeroU16::MIN;
    let Some(place) = Place::new(Dialect::Postgres) else { return };
    let database = place.open(&SqlGrant { pool: one, ..place.grant() });
    let ask = async |text: &str| {
        let answer = database.run(&Statement::new(text, []), ample()).await;
        answer.unwrap_or_else(|error| panic!("{text}: {error}")).rows[0][0].clone()
    };
    let session = ask("select pg_backend_pid()").await;
    ask("select set_config('vouch.left', 'behind', false)").await;
    ask("select set_config('timezone', 'Asia/Tokyo', false)").await;
    ask("select set_config('statement_timeout', '0', false)").await;
    ask("select pg_advisory_lock(7)").await;
    assert_eq!(ask("select coalesce(current_setting('vouch.left', true), '')").await, text(""));
    assert_eq!(ask("select current_setting('timezone')").await, text("UTC"));
    assert_eq!(place.count("select count(*) from pg_locks where locktype = 'advisory'").await, 0);
    assert_eq!(ask("select pg_backend_pid()").await, session, "the session was cleared, not closed");

    let Some(place) = Place::new(Dialect::MariaDb) else { return };
    let database = place.open(&SqlGrant { pool: one, ..place.grant() });
    let ask = async |text: &str| {
        let answer = database.run(&Statement::new(text, []), ample()).await;
        answer.unwrap_or_else(|error| panic!("{text}: {error}")).rows[0][0].clone()
    };
    let session = ask("select connection_id()").await;
    ask("select @left := 'behind'").await;
    ask("select get_lock('left', 0)").await;
    assert_eq!(ask("select @left").await, Value::Null);
    assert_eq!(ask("select is_free_lock('left')").await, Value::Integer(1));
    assert_eq!(ask("select connection_id()").await, session, "the session was cleared, not closed");
    assert_eq!(ask("select @@innodb_lock_wait_timeout").await, Value::Integer(1), "and set up again");
}

#[tokio::test]
async fn a_transaction_that_only_reads_cannot_be_talked_into_writing() {
    let Some(place) = Place::new(Dialect::Postgres) else { return };
    let reading = place.open(&SqlGrant { write: false, ..place.grant() });
    for attempt in [
        "select set_config('transaction_read_only', 'off', true)",
        "with off as (select set_config('transaction_read_only', 'off', true)) insert into orders (id) select set_config from off",
        "select set_config('default_transaction_read_only', 'off', false)",
        "with a as (insert into orders (id) values ('a') returning id) select * from a",
        "select nextval('pg_catalog.pg_class_oid_index')",
        "select lo_create(0)",
    ] {
        let _ = reading.run(&Statement::new(attempt, []), ample()).await;
        let insert = reading.run(&Statement::new("insert into orders (id) values ('b')", []), ample()).await;
        assert!(matches!(insert, Err(SqlError::NotGranted(_))), "{attempt}: {insert:?}");
    }
    assert_eq!(place.count("select count(*) from orders").await, 0);
}

#[tokio::test]
async fn a_commit_within_a_statement_is_noticed_or_impossible() {
    if let Some(place) = Place::new(Dialect::Postgres) {
        let mut service = place.service().await;
        service
            .must("create function sneak() returns int language plpgsql as $$ begin insert into orders (id) values ('s'); commit; return 1; end $$")
            .await;
        let answer = place.database().run(&Statement::new("select sneak()", []), ample()).await;
        assert!(matches!(answer, Err(SqlError::Invalid(_))), "{answer:?}");
        assert_eq!(place.count("select count(*) from orders").await, 0);
    }
    let Some(place) = Place::new(Dialect::Sqlite) else { return };
    let database = place.database();
    let insert = |how: &str| Statement::new(format!("insert {how} into orders (id) values ('a')"), []);
    database.run(&insert(""), ample()).await.unwrap();
    // The second statement ends the transaction of the first one: the third must not run by itself.
    let third = Statement::new("insert into orders (id) values ('c')", []);
    let first = Statement::new("insert into orders (id) values ('b')", []);
    let answer = database.run_all(&[first, insert("or rollback"), third], ample()).await;
    assert!(matches!(answer, Err(SqlError::Conflict(_))), "{answer:?}");
    assert_eq!(place.count("select count(*) from orders").await, 1);
}

#[tokio::test]
async fn sqlite_lets_nobody_out_of_its_file() {
    let Some(place) = Place::new(Dialect::Sqlite) else { return };
    let database = place.database();
    for attempt in [
        "select load_extension('x')",
        "select * from pragma_database_list",
        "select * from pragma_query_only(0)",
        "insert into sqlite_master values ('table', 'x', 'x', 0, '')",
        "update sqlite_master set sql = ''",
        "select writefile('/tmp/x', 'y')",
        "with a as (select 1) select * from pragma_table_info('orders')",
    ] {
        let answer = database.run(&Statement::new(attempt, []), ample()).await;
        assert!(matches!(answer, Err(SqlError::Invalid(_))), "{attempt}: {answer:?}");
    }
    let large = database.run(&Statement::new("select zeroblob(1000000000)", []), ample()).await;
    assert!(matches!(large, Err(SqlError::TooLarge(_))), "{large:?}");
}

#[tokio::test]
async fn connections_are_lent_in_the_order_of_asking_and_no_longer_than_the_deadline() {
    for dialect in [Dialect::Postgres, Dialect::MariaDb] {
        let Some(place) = Place::new(dialect) else { continue };
        let database = place.open(&SqlGrant { pool: NonZeroU16::MIN, ..place.grant() });
        // A lock of the service holds the only connection for as long as the test wants.
        let mut service = place.service().await;
        service.must("insert into orders (id) values ('held')").await;
        service.must("begin").await;
        service.must("update orders set state = 'HELD'").await;
        let holding = tokio::spawn({
            let database = database.clone();
            async move { database.run(&Statement::new("update orders set amount = 1", []), ample()).await }
        });
        let waiting = match dialect {
            Dialect::Postgres => {
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            }
            _ => "select count(*) from information_schema.processlist where info like 'update orders set amount%'",
        };
        let mut other = place.service().await;
        while other.must(waiting).await.as_deref() == Some("0") {}
        let late = database.run(&Statement::new("select 1", []), SqlCall::within(Duration::from_millis(50))).await;
        assert!(matches!(&late, Err(SqlError::Unavailable(text)) if text.contains("pool")), "{dialect:?}: {late:?}");
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        for number in 0..8 {
            let mut ask = Box::pin({
                let (database, done) = (database.clone(), done.clone());
                async move {
                    database.run(&Statement::new("select 1", []), ample()).await.unwrap();
                    done.send(number).unwrap();
                }
            });
            // Asked once here, so that it stands in the queue before the next one does.
            assert!(futures_now_or_never(&mut ask).is_none());
            tokio::spawn(ask);
        }
        service.must("rollback").await;
        assert!(holding.await.unwrap().is_ok());
        for number in 0..8 {
            assert_eq!(order.recv().await, Some(number), "{dialect:?}");
        }
    }
}

/// Polls a future once.
fn futures_now_or_never<T>(future: &mut std::pin::Pin<Box<impl Future<Output = T>>>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn only_so_many_calls_wait_for_a_connection() {
    let Some(place) = Place::new(Dialect::Postgres) else { return };
    let database = place.open(&SqlGrant { pool: NonZeroU16::MIN, ..place.grant() });
    let calls: Vec<_> = (0..70)
        .map(|_| {
            let database = database.clone();
            tokio::spawn(async move {
                database.run(&Statement::new("select pg_sleep(0.5)", []), SqlCall::within(SHORT)).await
            })
        })
        .collect();
    let mut refused_at_once = 0;
    for call in calls {
        let answer = call.await.unwrap();
        refused_at_once +=
            i32::from(matches!(answer, Err(SqlError::Unavailable(text)) if text.contains("too many calls wait")));
    }
    assert_eq!(refused_at_once, 70 - 1 - 64);
}

#[tokio::test]
async fn a_call_that_its_caller_gives_up_takes_its_connection_along_and_leaves_nothing() {
    for dialect in [Dialect::Postgres, Dialect::MariaDb] {
        let Some(place) = Place::new(dialect) else { continue };
        let database = place.open(&SqlGrant { pool: NonZeroU16::MIN, ..place.grant() });
        let sleep = if dialect == Dialect::Postgres { "select pg_sleep(100)" } else { "select sleep(100)" };
        let statements = [Statement::new("insert into orders (id) values ('a')", []), Statement::new(sleep, [])];
        let given_up = tokio::time::timeout(Duration::from_millis(200), database.run_all(&statements, ample())).await;
        assert!(given_up.is_err());
        assert!(database.run(&Statement::new("select 1", []), ample()).await.is_ok(), "{dialect:?}");
        assert_eq!(place.count("select count(*) from orders").await, 0);
    }
}
