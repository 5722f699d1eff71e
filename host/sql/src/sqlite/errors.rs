//! What SQLite's result codes mean to a caller.
//!
//! Its most common code (1, *error*) is the statement's fault: a syntax error, a missing table. Which constraint was
//! violated stands in the extended code; the trigger that makes a row of the fence final counts among *others*.

use rusqlite::{Error, ErrorCode, ffi};

use crate::{
    connection::Access,
    error::{Constraint, ConstraintViolation, MEND_STATEMENT, MEND_VALUE, SqlError, StatementFault},
    mask::Mask,
};

/// What an error means for a statement.
///
/// Some of these errors undo the whole transaction; that is seen by the state of the connection, not by the code.
pub(super) fn error_of(error: &Error, access: Access, mask: &Mask) -> SqlError {
    let (failure, message) = match error {
        Error::SqliteFailure(failure, message) => (*failure, message.as_deref()),
        Error::SqlInputError { error, msg, .. } => (*error, Some(msg.as_str())),
        Error::InvalidParameterCount(given, wanted) => {
            return SqlError::Invalid(format!(
                "the statement has {wanted} placeholders and the call {given} parameters; give one for each"
            ));
        }
        Error::MultipleStatement => {
            return SqlError::Invalid("the text holds more than one statement; use run-all for several".to_owned());
        }
        other => return SqlError::Invalid(format!("{}; {MEND_STATEMENT}", mask.apply(&other.to_string()))),
    };
    let text = mask.apply(message.unwrap_or("no more is known of it"));
    match failure.code {
        ErrorCode::ConstraintViolation => {
            SqlError::Conflict(ConstraintViolation { kind: kind_of(failure.extended_code), name: None, text })
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::SchemaChanged => {
            SqlError::Aborted(format!("{text}; run it again, another connection has the database"))
        }
        ErrorCode::ReadOnly if !access.writes() => SqlError::NotGranted(format!(
            "{text}; the grant of this database only reads: set `\"write\": true` in the binding"
        )),
        ErrorCode::ReadOnly => SqlError::Unavailable(
            "the SQLite file is read-only for the broker; let its user write the file and its folder".to_owned(),
        ),
        ErrorCode::OperationInterrupted => {
            SqlError::TimedOut("the statement ran past its deadline; ask for less, or raise the deadline".to_owned())
        }
        ErrorCode::AuthorizationForStatementDenied => {
            SqlError::Invalid(format!("{text}; only reading and changing rows is let through"))
        }
        ErrorCode::TooBig => SqlError::TooLarge(format!("{text}; ask for less, or send less")),
        ErrorCode::TypeMismatch => SqlError::BadValue(format!("{text}; {MEND_VALUE}")),
        ErrorCode::CannotOpen
        | ErrorCode::SystemIoFailure
        | ErrorCode::DiskFull
        | ErrorCode::DatabaseCorrupt
        | ErrorCode::NotADatabase
        | ErrorCode::PermissionDenied
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::OutOfMemory => SqlError::Unavailable(format!("{text}; see to the SQLite file and its disk")),
        _ => SqlError::Invalid(format!("{text}; {MEND_STATEMENT}")),
    }
}

/// What an error means for a commit. Of a failing disk nothing is concluded.
pub(super) fn fault_at_commit(error: &Error, access: Access, mask: &Mask) -> StatementFault {
    match error_of(error, access, mask) {
        error @ (SqlError::Aborted(_) | SqlError::Conflict(_)) => StatementFault::Said(error),
        _ => StatementFault::connection_lost(),
    }
}

/// What an error means for opening the file.
pub(super) fn at_connect(error: &Error) -> SqlError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            SqlError::Aborted("the SQLite file is busy; run it again".to_owned())
        }
        _ => SqlError::Unavailable(
            "the SQLite file cannot be opened; see whether it is one, and whether the broker's user may".to_owned(),
        ),
    }
}

/// Which kind of constraint an extended code is of.
fn kind_of(extended_code: i32) -> Constraint {
    match extended_code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            Constraint::Unique
        }
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => Constraint::ForeignKey,
        ffi::SQLITE_CONSTRAINT_CHECK => Constraint::Check,
        ffi::SQLITE_CONSTRAINT_NOTNULL => Constraint::NotNull,
        _ => Constraint::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: i32, access: Access) -> String {
        let error = Error::SqliteFailure(ffi::Error::new(code), Some("m".to_owned()));
        error_of(&error, access, &Mask::default()).to_string().split(':').next().unwrap().to_owned()
    }

    #[test]
    fn every_code_of_the_fences_table_means_what_it_says() {
        for (code, meaning) in [
            (ffi::SQLITE_CONSTRAINT_PRIMARYKEY, "conflict"),
            (ffi::SQLITE_CONSTRAINT_TRIGGER, "conflict"),
            (ffi::SQLITE_BUSY, "aborted"),
            (ffi::SQLITE_BUSY_SNAPSHOT, "aborted"),
            (ffi::SQLITE_LOCKED, "aborted"),
            (ffi::SQLITE_READONLY, "unavailable"),
            (ffi::SQLITE_CANTOPEN, "unavailable"),
            (ffi::SQLITE_INTERRUPT, "timed out"),
            (ffi::SQLITE_ERROR, "invalid"),
            (ffi::SQLITE_AUTH, "invalid"),
            (ffi::SQLITE_TOOBIG, "too large"),
        ] {
            assert_eq!(said(code, Access::Keyed), meaning, "{code}");
        }
        assert_eq!(said(ffi::SQLITE_READONLY, Access::Read), "not granted");
    }

    #[test]
    fn a_failing_disk_leaves_a_commit_in_doubt() {
        let fault = |code| {
            let error = Error::SqliteFailure(ffi::Error::new(code), None);
            fault_at_commit(&error, Access::Keyed, &Mask::default())
        };
        assert!(matches!(fault(ffi::SQLITE_BUSY), StatementFault::Said(SqlError::Aborted(_))));
        assert!(matches!(fault(ffi::SQLITE_IOERR), StatementFault::Lost(_)));
        assert!(matches!(fault(ffi::SQLITE_FULL), StatementFault::Lost(_)));
    }
}
