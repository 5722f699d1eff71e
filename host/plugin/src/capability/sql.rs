//! `vouch:plugin/sql`: the databases that the binding grants, in the words of the WIT interface.

use vouch_sql::{
    Constraint as Constrained, ConstraintViolation, Database, Fenced, Once, RowSet, SqlCall, SqlError, Statement, Value,
};

use crate::{
    bindings::{
        host::Level,
        sql::{self, Host},
    },
    guest::CallState,
    handed::takes,
    log::LogSource,
};

/// What is said where a fence is held that no database holds.
const HELD_BY_THE_HOST: &str = "close-fence answers held: what this component says of transactions is not what their producers \
    said of the last ten that it was asked about; vouch binding test NAME --ended 50 lists them";

/// An answer for the guest, or the end of it.
type Answer<T> = wasmtime::Result<Result<T, sql::SqlError>>;

impl CallState {
    /// The database that the binding calls so, and by when it must answer.
    fn database(&self, name: &str) -> Result<(Database, SqlCall), SqlError> {
        match self.sql.databases.get(name) {
            Some(granted) => Ok((granted.database.clone(), self.sql.call)),
            None => Err(SqlError::NotGranted(format!(
                "the binding grants no database `{name}`; name it in \"sql\" of its grants"
            ))),
        }
    }

    /// What a database answered, for the guest. One that was not there is nobody's fault in here.
    fn told<T, U>(&self, answer: Result<T, SqlError>, to_wit: impl FnOnce(T) -> U) -> Answer<U> {
        if let Some(dry) = &self.sql.dry {
            let refused = answer.as_ref().err();
            let stays_so = refused.filter(|error| matches!(error, SqlError::Invalid(_) | SqlError::NotGranted(_)));
            dry.answered(stays_so.map(SqlError::to_string));
        }
        Ok(answer.map(to_wit).map_err(|error| {
            if matches!(error, SqlError::Unavailable(_) | SqlError::TimedOut(_) | SqlError::InDoubt(_)) {
                self.trouble().note(|| format!("a database: {error}"));
            }
            error_to_wit(error)
        }))
    }

    /// Notes what a dry call asks of a database.
    fn asks<'a>(&self, database: &str, what: &str, statements: impl IntoIterator<Item = &'a sql::Statement>) {
        let Some(dry) = &self.sql.dry else { return };
        let mut text = format!("{database}: {what}");
        for statement in statements {
            text.push_str(" | ");
            text.push_str(&statement.text);
        }
        dry.asked(text);
    }
}

impl Host for CallState {
    async fn run(&mut self, database: String, statement: sql::Statement) -> Answer<sql::RowSet> {
        takes(weight(&database, [], [&statement]))?;
        self.asks(&database, "run", [&statement]);
        let answer = match self.database(&database) {
            Ok((database, call)) => database.run(&statement_of(statement), call).await,
            Err(refused) => Err(refused),
        };
        self.told(answer, rows_to_wit)
    }

    async fn run_all(&mut self, database: String, statements: Vec<sql::Statement>) -> Answer<Vec<sql::RowSet>> {
        takes(weight(&database, [], &statements))?;
        self.asks(&database, "run-all", &statements);
        let answer = match self.database(&database) {
            Ok((database, call)) => database.run_all(&statements_of(statements), call).await,
            Err(refused) => Err(refused),
        };
        self.told(answer, all_to_wit)
    }

    async fn run_once(&mut self, database: String, key: String, statements: Vec<sql::Statement>) -> Answer<sql::Once> {
        takes(weight(&database, [&key], &statements))?;
        self.asks(&database, "run-once", &statements);
        let answer = match self.database(&database) {
            Ok((database, call)) => database.run_once(&key, &statements_of(statements), call).await,
            Err(refused) => Err(refused),
        };
        self.told(answer, |once| match once {
            Once::Done(rows) => sql::Once::Done(all_to_wit(rows)),
            Once::Already => sql::Once::Already,
        })
    }

    async fn read_fence(&mut self, database: String, keys: Vec<String>) -> Answer<Vec<sql::Fenced>> {
        takes(weight(&database, &keys, []))?;
        self.asks(&database, "read-fence", []);
        let answer = match self.database(&database) {
            Ok((database, call)) => database.read_fence(&keys, call).await,
            Err(refused) => Err(refused),
        };
        self.told(answer, |all| all.into_iter().map(fenced_to_wit).collect())
    }

    async fn close_fence(&mut self, database: String, key: String, also: Vec<sql::Statement>) -> Answer<sql::Fenced> {
        takes(weight(&database, [&key], &also))?;
        self.asks(&database, "close-fence", &also);
        let answer = match self.database(&database) {
            Ok(_) if self.sql.holds_fences => {
                self.log.write(Level::Warn, LogSource::Host, HELD_BY_THE_HOST.to_owned());
                Ok(Fenced::Held)
            }
            Ok((database, call)) => database.close_fence(&key, &statements_of(also), call).await,
            Err(refused) => Err(refused),
        };
        self.told(answer, fenced_to_wit)
    }
}

/// Bytes that a guest handed over with a call.
fn weight<'a>(
    database: &str,
    keys: impl IntoIterator<Item = &'a String>,
    statements: impl IntoIterator<Item = &'a sql::Statement>,
) -> usize {
    let value = |value: &sql::Value| match value {
        sql::Value::Text(text) => text.len(),
        sql::Value::Bytes(bytes) => bytes.len(),
        sql::Value::Null | sql::Value::Boolean(_) | sql::Value::Integer(_) | sql::Value::Real(_) => 0,
    };
    let own = size_of::<sql::Value>();
    let statement =
        |each: &sql::Statement| each.text.len() + each.params.iter().map(|param| own + value(param)).sum::<usize>();
    database.len()
        + keys.into_iter().map(|key| size_of::<String>() + key.len()).sum::<usize>()
        + statements.into_iter().map(|each| size_of::<sql::Statement>() + statement(each)).sum::<usize>()
}

fn statements_of(statements: Vec<sql::Statement>) -> Vec<Statement> {
    statements.into_iter().map(statement_of).collect()
}

fn statement_of(sql::Statement { text, params }: sql::Statement) -> Statement {
    let value = |value| match value {
        sql::Value::Null => Value::Null,
        sql::Value::Boolean(yes) => Value::Boolean(yes),
        sql::Value::Integer(number) => Value::Integer(number),
        sql::Value::Real(number) => Value::Real(number),
        sql::Value::Text(text) => Value::Text(text),
        sql::Value::Bytes(bytes) => Value::Bytes(bytes),
    };
    Statement { text, params: params.into_iter().map(value).collect() }
}

fn all_to_wit(all: Vec<RowSet>) -> Vec<sql::RowSet> {
    all.into_iter().map(rows_to_wit).collect()
}

fn rows_to_wit(RowSet { columns, rows, affected }: RowSet) -> sql::RowSet {
    let value = |value| match value {
        Value::Null => sql::Value::Null,
        Value::Boolean(yes) => sql::Value::Boolean(yes),
        Value::Integer(number) => sql::Value::Integer(number),
        Value::Real(number) => sql::Value::Real(number),
        Value::Text(text) => sql::Value::Text(text),
        Value::Bytes(bytes) => sql::Value::Bytes(bytes),
    };
    let rows = rows.into_iter().map(|row| row.into_iter().map(value).collect()).collect();
    sql::RowSet { columns, rows, affected }
}

fn fenced_to_wit(fenced: Fenced) -> sql::Fenced {
    match fenced {
        Fenced::Committed => sql::Fenced::Committed,
        Fenced::RolledBack => sql::Fenced::RolledBack,
        Fenced::Missing => sql::Fenced::Missing,
        Fenced::Held => sql::Fenced::Held,
    }
}

fn error_to_wit(error: SqlError) -> sql::SqlError {
    match error {
        SqlError::NotGranted(text) => sql::SqlError::NotGranted(text),
        SqlError::Invalid(text) => sql::SqlError::Invalid(text),
        SqlError::BadValue(text) => sql::SqlError::BadValue(text),
        SqlError::Conflict(ConstraintViolation { kind, name, text }) => {
            let kind = match kind {
                Constrained::Unique => sql::Constraint::Unique,
                Constrained::ForeignKey => sql::Constraint::ForeignKey,
                Constrained::Check => sql::Constraint::Check,
                Constrained::NotNull => sql::Constraint::NotNull,
                Constrained::Other => sql::Constraint::Other,
            };
            sql::SqlError::Conflict(sql::Violation { kind, name, text })
        }
        SqlError::Aborted(text) => sql::SqlError::Aborted(text),
        SqlError::TooLarge(text) => sql::SqlError::TooLarge(text),
        SqlError::TimedOut(text) => sql::SqlError::TimedOut(text),
        SqlError::Unavailable(text) => sql::SqlError::Unavailable(text),
        SqlError::InDoubt(text) => sql::SqlError::InDoubt(text),
    }
}
