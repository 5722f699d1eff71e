//! What PostgreSQL's error codes (SQLSTATE) mean to a caller.
//!
//! The first two letters are the class; a few codes mean something else than their class. An error that ends the
//! connection (severity FATAL) decides nothing, whatever its code: in a COMMIT it may have come after the fact.

use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::ErrorResponseBody;

use crate::{
    connection::Access,
    error::{Constraint, ConstraintViolation, MEND_STATEMENT, MEND_VALUE, SqlError, StatementFault},
    mask::Mask,
};

/// An error as the server tells it.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerError {
    pub(super) code: String,
    message: String,
    constraint: Option<String>,
    /// The connection ends with it.
    is_fatal: bool,
}

impl ServerError {
    /// Reads the fields that are used here; others may hold values of rows.
    pub(super) fn of(body: &ErrorResponseBody) -> Self {
        let mut error = Self::default();
        let mut fields = body.fields();
        while let Ok(Some(field)) = fields.next() {
            let value = || String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'C' => error.code = value(),
                b'M' => error.message = value(),
                b'n' => error.constraint = Some(value()),
                b'V' => error.is_fatal = matches!(value().as_str(), "FATAL" | "PANIC"),
                _ => {}
            }
        }
        error
    }

    /// What it means for a statement, or for the end of a database transaction.
    pub(super) fn fault(&self, access: Access, mask: &Mask) -> StatementFault {
        let is_of_the_wire = self.code.starts_with("08") && self.code != "08P01";
        if self.is_fatal || is_of_the_wire || matches!(self.code.as_str(), "57P01" | "57P02" | "57P03") {
            return StatementFault::connection_lost();
        }
        StatementFault::Said(self.error(access, mask))
    }

    /// The one table of codes. What is not in it is the statement's fault: a code for something passing would be retried in
    /// vain, one for something lasting would never be told to anybody.
    fn error(&self, access: Access, mask: &Mask) -> SqlError {
        let text = format!("{} ({})", mask.apply(&self.message), self.code);
        let class = self.code.get(..2).unwrap_or_default();
        let violates = |kind| {
            let name = self.constraint.clone();
            SqlError::Conflict(ConstraintViolation { kind, name, text: text.clone() })
        };
        match (self.code.as_str(), class) {
            ("23505", _) => violates(Constraint::Unique),
            ("23503" | "23001", _) => violates(Constraint::ForeignKey),
            ("23514", _) | (_, "44") => violates(Constraint::Check),
            ("23502", _) => violates(Constraint::NotNull),
            // P0 is what a trigger or a function raises.
            (_, "23" | "P0") => violates(Constraint::Other),
            ("55P03" | "55006" | "72000", _) | (_, "40") => {
                SqlError::Aborted(format!("{text}; run it again, the database undid it"))
            }
            ("25006", _) if !access.writes() => SqlError::NotGranted(format!(
                "{text}; the grant of this database only reads: set `\"write\": true` in the binding"
            )),
            ("25006", _) => read_only_server(&text),
            ("57014", _) => SqlError::TimedOut(format!("{text}; ask for less, or raise the deadline")),
            ("08P01", _) => SqlError::Invalid(format!("{text}; give one parameter for each placeholder")),
            (_, "22" | "21") => SqlError::BadValue(format!("{text}; {MEND_VALUE}")),
            (_, "54") => SqlError::BadValue(format!("{text}; it is more than the database takes")),
            (_, "53" | "58" | "XX" | "57" | "28") => {
                SqlError::Unavailable(format!("{text}; let the database's administrator see to it"))
            }
            _ => SqlError::Invalid(format!("{text}; {MEND_STATEMENT}")),
        }
    }

    /// What it means for beginning a database transaction.
    pub(super) fn fault_at_begin(&self, access: Access, mask: &Mask) -> StatementFault {
        if self.code == "0A000" && access.writes() {
            return StatementFault::Said(read_only_server(&self.code));
        }
        self.fault(access, mask)
    }

    /// What it means for connecting. The server's own words name users and addresses, so they are not passed on.
    pub(super) fn at_connect(&self) -> SqlError {
        let what = match (self.code.as_str(), self.code.get(..2).unwrap_or_default()) {
            ("28P01", _) => "the database refused the password; set the secret anew",
            (_, "28") => "the database refused the user or where it comes from; see its pg_hba.conf",
            ("3D000", _) => "there is no database of this name; correct the url",
            ("53300", _) => "the database has no connection left; lower `pool`, or raise its max_connections",
            ("57P03", _) => "the database is starting or stopping; try again",
            ("42704" | "22023", _) => {
                "the database does not know a setting of the connection; it must be version 13 or later"
            }
            _ => "the database refused the connection; see its log",
        };
        SqlError::Unavailable(format!("{what} ({})", self.code))
    }
}

/// Nothing can be changed there, whoever asks.
fn read_only_server(text: &str) -> SqlError {
    SqlError::Unavailable(format!("this is a replica, or read-only; name the primary in the url ({text})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: &str, access: Access) -> String {
        let error = ServerError { code: code.to_owned(), message: "m".to_owned(), ..ServerError::default() };
        match error.fault(access, &Mask::default()) {
            StatementFault::Said(error) => error.to_string().split(':').next().unwrap().to_owned(),
            StatementFault::Lost(_) => "lost".to_owned(),
        }
    }

    #[test]
    fn every_code_of_the_fences_table_means_what_it_says() {
        for (code, meaning) in [
            ("23505", "conflict"),
            ("55P03", "aborted"),
            ("40P01", "aborted"),
            ("40001", "aborted"),
            ("25006", "unavailable"),
            ("57014", "timed out"),
            ("42P01", "invalid"),
            ("42501", "invalid"),
            ("42703", "invalid"),
            ("22P02", "bad value"),
            ("08P01", "invalid"),
            ("08006", "lost"),
            ("57P01", "lost"),
            ("P0001", "conflict"),
            ("", "invalid"),
        ] {
            assert_eq!(said(code, Access::Keyed), meaning, "{code}");
        }
        assert_eq!(said("25006", Access::Read), "not granted");
        let feature = ServerError { code: "0A000".to_owned(), ..ServerError::default() };
        let begun = feature.fault_at_begin(Access::Keyed, &Mask::default());
        assert!(matches!(begun, StatementFault::Said(SqlError::Unavailable(text)) if text.contains("primary")));
    }

    #[test]
    fn an_error_that_ends_the_connection_decides_nothing() {
        let fatal = ServerError { code: "23505".to_owned(), is_fatal: true, ..ServerError::default() };
        assert!(matches!(fatal.fault(Access::Keyed, &Mask::default()), StatementFault::Lost(_)));
    }
}
