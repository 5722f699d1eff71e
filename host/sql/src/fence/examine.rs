//! Looks whether a fence table can be trusted before a binding stands on it.
//!
//! Refused is what makes the fence decide nothing, or wrongly: a key that is not unique by itself at once (a deferred
//! constraint is checked at COMMIT, when it is too late to be held), a key that takes others for its own, an engine that
//! does not roll back, a table that a crash empties. Warned of is what may take back an answered commit.

use crate::{
    call::SqlCall,
    connection::{Access, Connector},
    dialect::Dialect,
    error::SqlError,
    granted::Granted,
    table::TableName,
    transaction::Transaction,
    value::{RowSet, Statement, Value},
};

/// What was found at a fence table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FenceExamination {
    /// Reasons for which it must not be used: with them the fence decides nothing, or wrongly.
    pub refusals: Vec<String>,
    /// Reasons for which a crash or a change of the primary may take a row back that was answered.
    pub warnings: Vec<String>,
}

/// Columns that the statements of the fence name.
const COLUMNS: [&str; 3] = ["fence_key", "outcome", "noted_at"];

/// Columns with their types, whether their collation tells all texts apart, and how long the table lasts.
const POSTGRES_COLUMNS: &str = "select a.attname, t.typname, coalesce(c.collisdeterministic, true), r.relpersistence::text \
     from pg_attribute a join pg_class r on r.oid = a.attrelid join pg_type t on t.oid = a.atttypid \
     left join pg_collation c on c.oid = a.attcollation \
     where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped";
/// An index over nothing but the key, over all rows, checked at once.
const POSTGRES_UNIQUE: &str = "select 1 from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0] \
     where i.indrelid = to_regclass($1) and a.attname = 'fence_key' and i.indnkeyatts = 1 and i.indisunique \
     and i.indimmediate and i.indisvalid and i.indpred is null";
/// Each column is a warning, or NULL.
const POSTGRES_SETTINGS: &str = "select case when current_setting('synchronous_commit') = 'off' \
       then 'synchronous_commit is off: a crash may take back what was committed; set it on' end, \
     case when current_setting('fsync') = 'off' then 'fsync is off: a crash may take back what was committed; set it on' end, \
     case when pg_is_in_recovery() then 'this is a replica; name the primary in the url' end";

/// The engine of the table.
const MYSQL_TABLE: &str = "select engine from information_schema.tables \
     where table_schema = coalesce(?, database()) and table_name = ?";
/// Columns with their collations.
const MYSQL_COLUMNS: &str = "select column_name, coalesce(collation_name, 'binary') from information_schema.columns \
     where table_schema = coalesce(?, database()) and table_name = ?";
/// An index over nothing but the whole key.
const MYSQL_UNIQUE: &str = "select 1 from information_schema.statistics \
     where table_schema = coalesce(?, database()) and table_name = ? group by index_name \
     having max(non_unique) = 0 and count(*) = 1 and max(column_name) = 'fence_key' and max(sub_part) is null";
const MYSQL_SETTINGS: &str = "select case when @@innodb_flush_log_at_trx_commit <> 1 \
       then 'innodb_flush_log_at_trx_commit is not 1: a crash may take back what was committed; set it to 1' end, \
     case when @@global.read_only then 'this is a replica, or read-only; name the primary in the url' end";

const SQLITE_COLUMNS: &str = "select name from pragma_table_info(?)";
/// An index over nothing but the key, over all rows, with how it compares.
const SQLITE_UNIQUE: &str = "select max(x.coll) from pragma_index_list(?) l, pragma_index_xinfo(l.name) x \
     where l.\"unique\" = 1 and l.partial = 0 and x.key = 1 group by l.name having count(*) = 1 and max(x.name) = 'fence_key'";
const SQLITE_SETTINGS: &str = "select case when synchronous < 2 \
     then 'synchronous is below full: a crash may take back what was committed' end from pragma_synchronous()";

impl<K: Connector> Granted<K> {
    /// Looks at the fence table and at what the database promises of a commit.
    ///
    /// What is set for the connections of others cannot be seen: a service that commits with `synchronous_commit = off`, or
    /// writes a SQLite file below `synchronous = full`, can lose its own row in a crash.
    pub(crate) async fn examine_fence(&self, call: SqlCall) -> Result<FenceExamination, SqlError> {
        let table = self.fence()?;
        let mut transaction = Transaction::begin(&self.pool, Access::Read, call).await?;
        let found = match transaction.dialect() {
            Dialect::Postgres => postgres(&mut transaction, table).await,
            Dialect::MySql | Dialect::MariaDb => mysql(&mut transaction, table).await,
            Dialect::Sqlite => sqlite(&mut transaction, table).await,
        };
        transaction.roll_back().await;
        found
    }
}

/// PostgreSQL: by its catalogue, which names the table by its search path as a statement does.
async fn postgres<K: Connector>(
    transaction: &mut Transaction<K>,
    table: &TableName,
) -> Result<FenceExamination, SqlError> {
    let name = [Value::Text(table.quoted(Dialect::Postgres))];
    let mut found = FenceExamination::default();
    let columns = transaction.run_own(&Statement::new(POSTGRES_COLUMNS, name.clone())).await?;
    found.columns(table, &columns);
    if let Some(key) = columns.rows.iter().find(|row| is_text(row.first(), "fence_key")) {
        if !matches!(key.get(1), Some(Value::Text(kind)) if kind == "varchar" || kind == "text") {
            found.refuse(table, "its fence_key must be varchar(255) or text: other types ignore case, or pad");
        }
        if key.get(2) == Some(&Value::Boolean(false)) {
            found.refuse(table, "the collation of its fence_key takes different keys for equal; use \"C\"");
        }
        if !is_text(key.get(3), "p") {
            found.refuse(
                table,
                "it is unlogged or temporary, so that a crash empties it; create it as an ordinary table",
            );
        }
    }
    let unique = transaction.run_own(&Statement::new(POSTGRES_UNIQUE, name)).await?;
    found.unique(table, !columns.rows.is_empty(), !unique.rows.is_empty());
    found.settings(&transaction.run_own(&Statement::new(POSTGRES_SETTINGS, [])).await?);
    Ok(found)
}

/// MySQL and MariaDB: by the information schema, in the database of the url unless another is named.
async fn mysql<K: Connector>(
    transaction: &mut Transaction<K>,
    table: &TableName,
) -> Result<FenceExamination, SqlError> {
    let schema = table.schema().map_or(Value::Null, |schema| Value::Text(schema.to_owned()));
    let name = [schema, Value::Text(table.name().to_owned())];
    let mut found = FenceExamination::default();
    let engine = transaction.run_own(&Statement::new(MYSQL_TABLE, name.clone())).await?;
    if engine.rows.first().is_some_and(|row| !is_text(row.first(), "InnoDB")) {
        found.refuse(table, "its engine is not InnoDB, which alone rolls back; run: ALTER TABLE … ENGINE = InnoDB");
    }
    let columns = transaction.run_own(&Statement::new(MYSQL_COLUMNS, name.clone())).await?;
    found.columns(table, &columns);
    let key = columns.rows.iter().find(|row| is_text(row.first(), "fence_key"));
    let is_exact = |collation: &str| ["binary", "_bin", "_cs"].iter().any(|end| collation.ends_with(end));
    if key.is_some_and(|row| !matches!(row.get(1), Some(Value::Text(collation)) if is_exact(collation))) {
        found.refuse(table, "its fence_key ignores case; make it varbinary(255)");
    }
    let unique = transaction.run_own(&Statement::new(MYSQL_UNIQUE, name)).await?;
    found.unique(table, !columns.rows.is_empty(), !unique.rows.is_empty());
    found.settings(&transaction.run_own(&Statement::new(MYSQL_SETTINGS, [])).await?);
    Ok(found)
}

/// SQLite: by the pragmas that read like tables, which guests may not use.
async fn sqlite<K: Connector>(
    transaction: &mut Transaction<K>,
    table: &TableName,
) -> Result<FenceExamination, SqlError> {
    let name = [Value::Text(table.name().to_owned())];
    let mut found = FenceExamination::default();
    let columns = transaction.run_own(&Statement::new(SQLITE_COLUMNS, name.clone())).await?;
    found.columns(table, &columns);
    let unique = transaction.run_own(&Statement::new(SQLITE_UNIQUE, name)).await?;
    found.unique(table, !columns.rows.is_empty(), !unique.rows.is_empty());
    if unique.rows.first().is_some_and(|row| !is_text(row.first(), "BINARY")) {
        found.refuse(table, "its fence_key ignores case or spaces; declare it without COLLATE");
    }
    found.settings(&transaction.run_own(&Statement::new(SQLITE_SETTINGS, [])).await?);
    Ok(found)
}

impl FenceExamination {
    /// Notes a reason against it.
    fn refuse(&mut self, table: &TableName, why: &str) {
        self.refusals.push(format!("the fence table {table}: {why}"));
    }

    /// Refuses a missing table, or one without a column that is needed.
    fn columns(&mut self, table: &TableName, columns: &RowSet) {
        if columns.rows.is_empty() {
            self.refuse(table, "it is not there; create it as `vouch sql fence-table` prints it");
            return;
        }
        for column in COLUMNS {
            if !columns.rows.iter().any(|row| is_text(row.first(), column)) {
                self.refuse(
                    table,
                    &format!("it has no column {column}; create it as `vouch sql fence-table` prints it"),
                );
            }
        }
    }

    /// Refuses a table whose key several rows may have.
    fn unique(&mut self, table: &TableName, is_there: bool, is_unique: bool) {
        if is_there && !is_unique {
            self.refuse(table, "nothing makes its fence_key unique by itself, at once; make it the primary key");
        }
    }

    /// Each setting that is not as it should be says so itself.
    fn settings(&mut self, settings: &RowSet) {
        self.warnings.extend(settings.rows.iter().flatten().filter_map(|value| match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }));
    }
}

/// Whether it is this text; MySQL's catalogue tells some of it as bytes.
fn is_text(value: Option<&Value>, wanted: &str) -> bool {
    match value {
        Some(Value::Text(text)) => text == wanted,
        Some(Value::Bytes(bytes)) => bytes == wanted.as_bytes(),
        _ => false,
    }
}
