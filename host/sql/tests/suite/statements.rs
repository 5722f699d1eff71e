//! Running statements: values, limits, what is granted, what is kept.

use vouch_sql::{Constraint, Dialect, Once, SqlCall, SqlError, SqlGrant, SqlLimits, Statement, Value};

use crate::places::{DIALECTS, Place, ample, text};

#[tokio::test]
async fn values_go_there_and_come_back() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        let database = place.database();
        let values = vec![
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Real(0.1),
            text("é'\"\\ \u{1f600}; --"),
            Value::Bytes(vec![0, 1, 255]),
        ];
        let (number, real, bytes) = match dialect {
            Dialect::Postgres => ("bigint", "double precision", "bytea"),
            Dialect::Sqlite => ("integer", "real", "blob"),
            _ => ("bigint", "double", "blob"),
        };
        let mut service = place.service().await;
        let table = format!("create table kinds (a varchar(10), b {number}, c {real}, d varchar(40), e {bytes})");
        service.must(&table).await;
        if dialect == Dialect::Postgres {
            service.must("grant all on kinds to public").await;
        }
        let inserted = database
            .run(&place.statement("insert into kinds values (?, ?, ?, ?, ?)", values.clone()), ample())
            .await
            .unwrap();
        assert_eq!(inserted.affected, 1);
        let read = database.run(&Statement::new("select a, b, c, d, e from kinds", []), ample()).await.unwrap();
        assert_eq!(read.columns, ["a", "b", "c", "d", "e"]);
        assert_eq!((read.rows, read.affected), (vec![values], 0), "{dialect:?}");
    }
}

#[tokio::test]
async fn moments_are_told_in_utc_and_decimals_are_not_rounded() {
    for (dialect, query, wanted) in [
        (
            Dialect::Postgres,
            "select timestamptz '2024-05-06 07:08:09.5+02', date '2024-05-06', 12345678901234567890.10::numeric, \
             interval '1 day 2 hours', true, '{\"a\":1}'::jsonb, 'a'::text::bytea",
            vec![
                text("2024-05-06T05:08:09.5Z"),
                text("2024-05-06"),
                text("12345678901234567890.10"),
                text("P1DT2H"),
                Value::Boolean(true),
                text("{\"a\": 1}"),
                Value::Bytes(b"a".to_vec()),
            ],
        ),
        (
            Dialect::MariaDb,
            "select from_unixtime(0), cast('2024-05-06' as date), cast(12345678901234567890.10 as decimal(30, 2)), \
             cast('10:11:12' as time), true, cast('a' as binary)",
            vec![
                text("1970-01-01T00:00:00"),
                text("2024-05-06"),
                text("12345678901234567890.10"),
                text("10:11:12"),
                Value::Integer(1),
                Value::Bytes(b"a".to_vec()),
            ],
        ),
    ] {
        let Some(place) = Place::new(dialect) else { continue };
        let read = place.database().run(&Statement::new(query, []), ample()).await.unwrap();
        assert_eq!(read.rows, [wanted], "{dialect:?}");
    }
}

#[tokio::test]
async fn a_grant_to_read_changes_nothing() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        let reading = place.open(&SqlGrant { write: false, ..place.grant() });
        let writes = [
            "insert into orders (id) values ('a')",
            "with a as (select 'a' as id) insert into orders (id) select id from a",
            "delete from orders",
        ];
        for write in writes.iter().filter(|write| dialect != Dialect::MariaDb || !write.starts_with("with")) {
            let refused = reading.run(&Statement::new(*write, []), ample()).await;
            assert!(matches!(refused, Err(SqlError::NotGranted(_))), "{dialect:?} {write}: {refused:?}");
        }
        let several = reading.run_all(&[Statement::new("select 1", [])], ample()).await;
        assert!(matches!(several, Err(SqlError::NotGranted(_))), "{several:?}");
        let bare = place.open(&SqlGrant::new(place.url()));
        let fence = bare.read_fence(&["a".to_owned()], ample()).await;
        assert!(matches!(fence, Err(SqlError::NotGranted(_))), "{fence:?}");
        let once = bare.run_once("a", &[], ample()).await;
        assert!(matches!(once, Err(SqlError::NotGranted(_))), "{once:?}");
        assert_eq!(place.count("select count(*) from orders").await, 0);
    }
}

#[tokio::test]
async fn several_statements_happen_all_or_not_at_all() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        let database = place.database();
        let insert = |id: &str| place.statement("insert into orders (id) values (?)", [text(id)]);
        let done = database.run_all(&[insert("a"), insert("b")], ample()).await.unwrap();
        assert_eq!(done.iter().map(|answer| answer.affected).sum::<u64>(), 2);
        let conflict = database.run_all(&[insert("c"), insert("a")], ample()).await;
        let Err(SqlError::Conflict(violation)) = conflict else { panic!("{dialect:?}: {conflict:?}") };
        assert_eq!(violation.kind, Constraint::Unique);
        assert_eq!(place.count("select count(*) from orders").await, 2);
        let dry = SqlCall::dry_within(crate::places::AMPLE);
        assert_eq!(database.run_all(&[insert("d")], dry).await.unwrap()[0].affected, 1);
        assert_eq!(database.run(&insert("e"), dry).await.unwrap().affected, 1);
        assert_eq!(place.count("select count(*) from orders").await, 2);
        let check = place.statement("insert into orders (id, amount) values (?, ?)", [text("f"), Value::Integer(-1)]);
        let conflict = database.run(&check, ample()).await;
        assert!(matches!(&conflict, Err(SqlError::Conflict(found)) if found.kind == Constraint::Check), "{conflict:?}");
    }
}

#[tokio::test]
async fn what_runs_once_runs_once() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        let database = place.database();
        let insert = [place.statement("insert into orders (id) values (?)", [text("a")])];
        let dry = SqlCall::dry_within(crate::places::AMPLE);
        assert!(matches!(database.run_once("key", &insert, dry).await, Ok(Once::Done(_))));
        let done = database.run_once("key", &insert, ample()).await;
        assert!(matches!(&done, Ok(Once::Done(answers)) if answers[0].affected == 1), "{dialect:?}: {done:?}");
        assert_eq!(database.run_once("key", &insert, ample()).await, Ok(Once::Already));
        assert_eq!(database.run_once("key", &insert, dry).await, Ok(Once::Already));
        // Under another key the same statement conflicts, and the key is not noted.
        let conflict = database.run_once("other", &insert, ample()).await;
        assert!(matches!(conflict, Err(SqlError::Conflict(_))), "{conflict:?}");
        assert_eq!(place.count("select count(*) from vouch_once").await, 1);
        assert_eq!(place.count("select count(*) from orders").await, 1);
        let long = database.run_once(&"k".repeat(256), &insert, ample()).await;
        assert!(matches!(long, Err(SqlError::TooLarge(_))), "{long:?}");
    }
}

#[tokio::test]
async fn an_answer_has_no_more_rows_and_bytes_than_the_limits_allow() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        let limits = SqlLimits { rows: 3, bytes: 100_000, ..SqlLimits::default() };
        let database = place.open(&SqlGrant { limits, ..place.grant() });
        let rows = |count: usize| {
            let rows: Vec<String> = (0..count).map(|n| format!("select {n} as n")).collect();
            Statement::new(rows.join(" union all "), [])
        };
        assert_eq!(database.run(&rows(3), ample()).await.unwrap().rows.len(), 3);
        let many = database.run(&rows(4), ample()).await;
        assert!(matches!(many, Err(SqlError::TooLarge(_))), "{dialect:?}: {many:?}");
        let wide = |length: usize| match dialect {
            Dialect::Sqlite => format!("select hex(zeroblob({}))", length / 2),
            _ => format!("select repeat('a', {length})"),
        };
        assert!(database.run(&Statement::new(wide(90_000), []), ample()).await.is_ok());
        for length in [100_000, 10_000_000] {
            let large = database.run(&Statement::new(wide(length), []), ample()).await;
            assert!(matches!(large, Err(SqlError::TooLarge(_))), "{dialect:?}: {:?}", large.err());
        }
        // All statements of a call share the limits.
        let shared = database.run_all(&[rows(2), rows(2)], ample()).await;
        assert!(matches!(shared, Err(SqlError::TooLarge(_))), "{shared:?}");
        let sent = place.statement("select ?", [Value::Bytes(vec![0; 100_000])]);
        assert!(matches!(database.run(&sent, ample()).await, Err(SqlError::TooLarge(_))));
        assert!(database.run(&rows(1), ample()).await.is_ok());
    }
}

#[tokio::test]
async fn errors_are_told_apart() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        let database = place.database();
        for statement in [
            "select from where",
            "select * from not_there",
            "select not_there from orders",
            "insert into orders (not_there) values (1)",
            "drop table orders",
            "select 1; select 2",
        ] {
            let answer = database.run(&Statement::new(statement, []), ample()).await;
            assert!(matches!(answer, Err(SqlError::Invalid(_))), "{dialect:?} {statement}: {answer:?}");
        }
        let few = database.run(&place.statement("select ?", []), ample()).await;
        assert!(matches!(few, Err(SqlError::Invalid(_))), "{dialect:?}: {few:?}");
        let null = database
            .run(&place.statement("insert into orders (id, state) values ('n', ?)", [Value::Null]), ample())
            .await;
        assert!(
            matches!(&null, Err(SqlError::Conflict(found)) if found.kind == Constraint::NotNull),
            "{dialect:?}: {null:?}"
        );
        if dialect != Dialect::Sqlite {
            let long = place.statement("insert into orders (id, state) values ('n', ?)", [text(&"a".repeat(30))]);
            let long = database.run(&long, ample()).await;
            assert!(matches!(long, Err(SqlError::BadValue(_))), "{dialect:?}: {long:?}");
            let odd = place.statement("insert into orders (id, amount) values ('n', ?)", [text("many")]);
            let odd = database.run(&odd, ample()).await;
            assert!(matches!(odd, Err(SqlError::BadValue(_))), "{dialect:?}: {odd:?}");
        }
    }
}

#[tokio::test]
async fn a_statement_is_tried_without_being_run() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        let database = place.database();
        let tried = database.try_statement(&place.text("select id, state from orders where id = ?"), ample()).await;
        let tried = tried.unwrap_or_else(|error| panic!("{dialect:?}: {error}"));
        assert_eq!((tried.params, tried.columns), (1, vec!["id".to_owned(), "state".to_owned()]));
        let insert = database.try_statement(&place.text("insert into orders (id) values (?)"), ample()).await;
        assert_eq!(insert.map(|tried| tried.params), Ok(1), "{dialect:?}");
        assert_eq!(place.count("select count(*) from orders").await, 0);
        for wrong in ["select * from not_there", "commit", "select 1; select 2"] {
            let tried = database.try_statement(wrong, ample()).await;
            assert!(matches!(tried, Err(SqlError::Invalid(_))), "{dialect:?} {wrong}: {tried:?}");
        }
    }
}

#[tokio::test]
async fn a_schema_that_changes_under_a_used_connection_is_no_trouble() {
    for dialect in DIALECTS {
        let Some(place) = Place::new(dialect) else { continue };
        let database = place.open(&SqlGrant { pool: std::num::NonZeroU16::MIN, ..place.grant() });
        let all = Statement::new("select * from orders", []);
        assert_eq!(database.run(&all, ample()).await.unwrap().columns.len(), 3);
        place.service().await.must("alter table orders add column note varchar(10)").await;
        assert_eq!(database.run(&all, ample()).await.unwrap().columns.len(), 4, "{dialect:?}");
        place.service().await.must("alter table orders drop column note").await;
        let gone = database.run(&Statement::new("select note from orders", []), ample()).await;
        assert!(matches!(gone, Err(SqlError::Invalid(_))), "{dialect:?}: {gone:?}");
    }
}
