//! What watches a SQLite connection: which actions a statement may contain, and when it has run too long.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use rusqlite::{
    Connection,
    hooks::{AuthAction, AuthContext, Authorization},
};
use tokio::time::Instant;

/// Instructions of SQLite's machine between two looks at the clock: some 20 µs.
const LOOK_EVERY: i32 = 1_000;

/// Functions that reach out of the database.
const FUNCTIONS: [&str; 4] = ["load_extension", "fts3_tokenizer", "readfile", "writefile"];

/// Set on one connection, and told before each statement whose it is and how long it may run.
#[derive(Clone, Default)]
pub(super) struct Guard(Arc<Watched>);

#[derive(Default)]
struct Watched {
    /// The statement is a guest's.
    is_guest: AtomicBool,
    /// When to interrupt it; `None` for never.
    deadline: Mutex<Option<Instant>>,
}

impl Guard {
    /// Watches this connection from now on.
    pub(super) fn set_on(connection: &Connection) -> rusqlite::Result<Self> {
        let guard = Self::default();
        let (asked, clock) = (guard.clone(), guard.clone());
        connection.authorizer(Some(move |context: AuthContext<'_>| asked.allows(&context)))?;
        connection.progress_handler(LOOK_EVERY, Some(move || clock.is_late()))?;
        Ok(guard)
    }

    /// The next statement is a guest's.
    pub(super) fn set_guest(&self, is_guest: bool) {
        self.0.is_guest.store(is_guest, Ordering::Relaxed);
    }

    /// The next statement is interrupted then.
    pub(super) fn set_deadline(&self, deadline: Option<Instant>) {
        *self.0.deadline.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }

    /// Whether the statement at hand is to be interrupted.
    fn is_late(&self) -> bool {
        let deadline = *self.0.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Asked when a statement is prepared, for each thing that it would do. What this crate runs itself is not asked about.
    fn allows(&self, context: &AuthContext<'_>) -> Authorization {
        if !self.0.is_guest.load(Ordering::Relaxed) || is_harmless(context.action) {
            Authorization::Allow
        } else {
            Authorization::Deny
        }
    }
}

/// Reading and changing rows; what is not on this list is not harmless.
fn is_harmless(action: AuthAction<'_>) -> bool {
    match action {
        AuthAction::Select
        | AuthAction::Read { .. }
        | AuthAction::Insert { .. }
        | AuthAction::Update { .. }
        | AuthAction::Delete { .. }
        | AuthAction::Recursive => true,
        AuthAction::Function { function_name } => {
            !FUNCTIONS.iter().any(|forbidden| function_name.eq_ignore_ascii_case(forbidden))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_reads_and_changes_rows_and_does_nothing_else() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("create table t (a unique)").unwrap();
        let guard = Guard::set_on(&connection).unwrap();
        connection.execute_batch("pragma query_only = off").unwrap();
        guard.set_guest(true);
        for allowed in [
            "select count(*) from t",
            "insert into t values (abs(-1))",
            "update t set a = 2",
            "with recursive r(n) as (select 1 union all select n + 1 from r where n < 3) select * from r",
            "delete from t",
        ] {
            assert!(connection.prepare(allowed).is_ok(), "{allowed}");
        }
        for forbidden in [
            "attach 'x' as y",
            "pragma query_only = off",
            "select * from pragma_database_list",
            "create table u (a)",
            "create temp table u (a)",
            "create trigger v after insert on t begin select 1; end",
            "drop table t",
            "begin",
            "commit",
            "savepoint a",
            "select load_extension('x')",
            "reindex t",
            "analyze",
            "vacuum into 'x'",
        ] {
            assert!(connection.execute_batch(forbidden).is_err(), "{forbidden}");
        }
    }

    #[test]
    fn a_statement_that_runs_too_long_is_interrupted() {
        let connection = Connection::open_in_memory().unwrap();
        let guard = Guard::set_on(&connection).unwrap();
        guard.set_deadline(Some(Instant::now()));
        let endless = "with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) from r";
        let error = connection.query_row(endless, [], |_| Ok(())).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::OperationInterrupted));
    }
}
