//! Emptying the fence table of old rows.
//!
//! How old is for the caller to know: a `committed` row may go when its transaction has ended, a `rolled_back` one when no
//! business transaction can come any more. The time is told by the database, when it noted the row.

use std::time::{Duration, SystemTime};

use crate::{
    call::SqlCall,
    connection::{Access, Connector},
    dialect::Dialect,
    error::SqlError,
    granted::Granted,
    table::TableName,
    transaction::{CommitFault, Transaction},
    value::{Statement, Value},
};

/// Rows that one database transaction deletes at most, so that none is long.
pub const CLEANED_AT_A_TIME: u64 = 1_000;

impl<K: Connector> Granted<K> {
    /// Deletes the oldest rows that were noted before this time, [`CLEANED_AT_A_TIME`] at most, and says how many: call it
    /// again until that is 0. A dry call counts all of them and deletes none.
    pub(crate) async fn clean_fence(&self, noted_before: SystemTime, call: SqlCall) -> Result<u64, SqlError> {
        let table = self.fence()?;
        let access = if call.dry { Access::Read } else { Access::Keyed };
        let mut transaction = Transaction::begin(&self.pool, access, call).await?;
        let dialect = transaction.dialect();
        let text = if call.dry { counting(table, dialect) } else { deleting(table, dialect) };
        let before = Value::Text(moment(noted_before, dialect));
        let answer = match transaction.run_own(&Statement::new(text, [before])).await {
            Ok(answer) => answer,
            Err(error) => {
                transaction.roll_back().await;
                return Err(error);
            }
        };
        let counted = match answer.rows.first().and_then(|row| row.first()) {
            Some(Value::Integer(count)) => u64::try_from(*count).unwrap_or(0),
            _ => answer.affected,
        };
        transaction.commit().await.map_err(CommitFault::into_error)?;
        Ok(counted)
    }
}

/// The oldest rows first, so that an index on the time finds them. MySQL deletes from no table that it selects from, but
/// knows a limit; the others do not.
fn deleting(table: &TableName, dialect: Dialect) -> String {
    let (table, before) = (table.quoted(dialect), before(dialect));
    let oldest = format!("where noted_at < {before} order by noted_at limit {CLEANED_AT_A_TIME}");
    if dialect.is_mysql() {
        format!("delete from {table} {oldest}")
    } else {
        format!("delete from {table} where fence_key in (select fence_key from {table} {oldest})")
    }
}

/// How many there are, for a dry call.
fn counting(table: &TableName, dialect: Dialect) -> String {
    format!("select count(*) from {} where noted_at < {}", table.quoted(dialect), before(dialect))
}

/// The placeholder for the time.
fn before(dialect: Dialect) -> String {
    dialect.placeholder(1)
}

/// The time as the database reads it: in UTC, which every connection is set to, with milliseconds.
fn moment(time: SystemTime, dialect: Dialect) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let clock = format!("{hour:02}:{minute:02}:{second:02}.{:03}", since.subsec_millis());
    // MySQL reads no zone.
    if dialect.is_mysql() {
        format!("{year:04}-{month:02}-{day:02} {clock}")
    } else {
        format!("{year:04}-{month:02}-{day:02}T{clock}Z")
    }
}

/// Year, month and day of a day counted from 1970-01-01, by the calendar of years that begin in March: the day that a leap
/// year has more is the last one then.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    /// From 0000-03-01 to 1970-01-01.
    const DAYS_BEFORE_1970: u64 = 719_468;
    let days = days + DAYS_BEFORE_1970;
    let of_era = days % DAYS_OF_400_YEARS;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + days / DAYS_OF_400_YEARS * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_each_database_reads_them() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1_000 + 7);
        assert_eq!(moment(at(0), Dialect::Sqlite), "1970-01-01T00:00:00.007Z");
        assert_eq!(moment(at(951_868_799), Dialect::Postgres), "2000-02-29T23:59:59.007Z");
        assert_eq!(moment(at(951_868_800), Dialect::MariaDb), "2000-03-01 00:00:00.007");
        assert_eq!(moment(at(1_735_689_599), Dialect::Sqlite), "2024-12-31T23:59:59.007Z");
        assert_eq!(moment(at(4_107_542_400), Dialect::Sqlite), "2100-03-01T00:00:00.007Z");
    }

    #[test]
    fn rows_go_a_thousand_at_a_time() {
        let table: TableName = "f".parse().unwrap();
        assert_eq!(deleting(&table, Dialect::MySql), "delete from `f` where noted_at < ? order by noted_at limit 1000");
        assert_eq!(
            deleting(&table, Dialect::Postgres),
            "delete from \"f\" where fence_key in (select fence_key from \"f\" where noted_at < $1 order by noted_at limit 1000)"
        );
    }
}
