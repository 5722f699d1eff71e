//! What is let through, what is not, and that nothing makes the gate stumble.

use proptest::prelude::*;

use super::*;

const ALL: [Dialect; 4] = [Dialect::Postgres, Dialect::MySql, Dialect::MariaDb, Dialect::Sqlite];

fn admitted(dialect: Dialect, text: &str) -> bool {
    admit(dialect, text).is_ok()
}

fn everywhere(text: &str) -> bool {
    let said: Vec<bool> = ALL.iter().map(|dialect| admitted(*dialect, text)).collect();
    assert!(said.windows(2).all(|pair| pair[0] == pair[1]), "{text}: {said:?}");
    said[0]
}

#[test]
fn queries_and_changes_of_rows_are_let_through() {
    for text in [
        "select 1",
        "SELECT 1;",
        " \n\tselect 1 ; ; -- done",
        "-- why\nselect 1",
        "/* why */ select 1",
        "insert into t (a) select b from u",
        "insert into t values ('a;b', \"c;d\")",
        "insert into t values (1) on conflict (a) do update set b = (select 1)",
        "with a as (select 1) insert into t select * from a",
        "with a as (insert into t values (1) returning *) select * from a",
        "update t set a = 'it''s' where b = 1",
        "delete from t",
        "merge into t using (select 1) as u on true when matched then delete",
        "replace into t values (1)",
        "values (1), (2)",
    ] {
        assert!(everywhere(text), "{text}");
    }
}

#[test]
fn all_other_kinds_of_statements_are_refused() {
    for text in [
        "",
        ";",
        "  ",
        "-- only a comment",
        "commit",
        "rollback",
        "begin",
        "start transaction",
        "savepoint a",
        "release a",
        "set transaction read write",
        "set session x = 1",
        "create table t (a int)",
        "drop table t",
        "alter table t add b int",
        "truncate t",
        "call p()",
        "do $$ begin end $$",
        "lock tables t write",
        "copy t from program 'id'",
        "load data infile 'a' into table t",
        "attach 'a' as b",
        "pragma query_only = off",
        "vacuum",
        "grant all on t to u",
        "listen a",
        "notify a",
        "prepare a as select 1",
        "execute a",
        "explain analyze delete from t",
        "handler t open",
        "kill 1",
        "xa start 'a'",
        "discard all",
        "reset all",
        "declare c cursor for select 1",
        "fetch c",
        "table t",
        "show tables",
        "use mysql",
        "refresh materialized view v",
        "(select 1)",
        "'select'",
        "\"select\" 1",
        "selects 1",
        "select_ 1",
        "1 select",
        "$1",
    ] {
        assert!(!everywhere(text), "{text}");
    }
}

#[test]
fn only_one_statement_stands_in_a_text() {
    for text in [
        "select 1; select 2",
        "select 1; drop table t",
        "select 1;;commit",
        "select 1; /* and */ commit",
        "select 1;'a'",
        "insert into t values (';'); delete from t",
    ] {
        assert!(!everywhere(text), "{text}");
    }
}

#[test]
fn comments_that_are_run_are_refused_wherever_they_stand() {
    for text in
        ["/*! set x */ select 1", "select 1 /*!50000 into outfile 'a' */", "select /*M! 1 */ 2", "/*!*/select 1"]
    {
        assert!(!everywhere(text), "{text}");
    }
    assert!(everywhere("select '/*! no comment */'"));
    assert!(!admitted(Dialect::MySql, "select /*+ set_var(max_execution_time = 0) */ 1"));
    assert!(!admitted(Dialect::MySql, "select /*+ MAX_EXECUTION_TIME(0) */ 1"));
    assert!(admitted(Dialect::MySql, "select /*+ NO_MERGE(a) */ 1"));
}

#[test]
fn a_query_makes_no_table_file_or_variable() {
    for text in [
        "select 1 into t",
        "select 1 into outfile '/tmp/a'",
        "select a into dumpfile '/tmp/a' from t",
        "with a as (select 1) select * into temp b from a",
        "select 1 insert into t",
        "insert into t (select 1 into u)",
    ] {
        assert!(!everywhere(text), "{text}");
    }
}

#[test]
fn each_database_is_read_by_its_own_rules_of_quoting() {
    use Dialect::{MariaDb, Postgres, Sqlite};
    // A backslash hides a quote from MySQL alone; PostgreSQL wants an E before it.
    assert!(!admitted(Postgres, r"select '\'; commit; --'"));
    assert!(admitted(MariaDb, r"select '\'; commit; --'"));
    assert!(!admitted(Sqlite, r"select '\'; commit; --'"));
    assert!(admitted(Postgres, r"select E'\'; commit; --'"));
    assert!(!admitted(Postgres, r"select type'\'; commit; --'"));
    // Dollars quote in PostgreSQL.
    assert!(admitted(Postgres, "select $a$; commit; $$ $a$"));
    assert!(!admitted(Sqlite, "select $a$; commit; $a$"));
    assert!(!admitted(Postgres, "select a$$; commit; $$"));
    assert!(!admitted(Postgres, "select $1; commit; $1"));
    // Comments nest in PostgreSQL.
    assert!(admitted(Postgres, "select 1 /* /* */ ; commit */"));
    assert!(!admitted(MariaDb, "select 1 /* /* */ ; commit"));
    // Two dashes need a space in MySQL, and a # is enough.
    assert!(!admitted(MariaDb, "select 1 --1 ; commit"));
    assert!(admitted(Postgres, "select 1 --1 ; commit"));
    assert!(admitted(MariaDb, "select 1 # ; commit"));
    assert!(!admitted(Postgres, "select 1 # ; commit"));
    // Backticks and brackets quote names.
    assert!(admitted(MariaDb, "select `;` from t"));
    assert!(!admitted(Postgres, "select `;` from t"));
    assert!(admitted(Sqlite, "select [;] from t"));
    assert!(!admitted(Postgres, "select a[;] from t"));
}

#[test]
fn unfinished_quotes_and_odd_characters_are_refused() {
    for text in ["select 'a", "select \"a", "select 1 /* a", "select '\0'"] {
        assert!(!everywhere(text), "{text}");
    }
    assert!(!admitted(Dialect::Postgres, "select $a$ b"));
    assert!(!admitted(Dialect::MySql, r"select 'a\"));
    assert!(!admitted(Dialect::MySql, r"select 'a\'"));
}

#[test]
fn the_length_of_a_statement_is_bounded() {
    let text = |length: usize| format!("select {}", "1".repeat(length - "select ".len()));
    assert!(everywhere(&text(MAX_STATEMENT)));
    assert!(matches!(admit(Dialect::Sqlite, &text(MAX_STATEMENT + 1)), Err(SqlError::TooLarge(_))));
}

proptest! {
    /// Any text is answered, whatever it holds.
    #[test]
    fn no_text_makes_the_gate_stumble(text in "(select|with|;|'|\"|`|\\$|\\$a\\$|/\\*|\\*/|--|#|\\\\|\\(|\\)|into|é|[ -~]|\\PC){0,40}") {
        for dialect in ALL {
            let _ = admit(dialect, &text);
        }
    }

    /// Whatever stands before it, a second statement behind a semicolon that all see is refused.
    #[test]
    fn a_second_statement_is_always_seen(words in "[a-z0-9=<>, ()]{0,40}", second in "(commit|drop table t|select 1)") {
        for dialect in ALL {
            let text = format!("select {words}; {second}");
            prop_assert!(admit(dialect, &text).is_err());
        }
    }

    /// What is between quotes is data, whatever it says.
    #[test]
    fn what_is_quoted_is_no_statement(data in "[a-z;()/* #-]{0,40}") {
        for dialect in ALL {
            let text = format!("select '{}'", data);
            prop_assert!(admit(dialect, &text).is_ok(), "{text}");
        }
    }
}
