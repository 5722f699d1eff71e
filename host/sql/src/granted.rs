//! A grant with its pool: what every call checks before it asks for a connection.
//!
//! Whatever can be refused without the database is refused here, so that it costs no connection and is refused in the same
//! words during an outage.

use std::sync::Arc;

use crate::{
    connection::{Allowance, Connector},
    error::SqlError,
    gate,
    grant::SqlGrant,
    pool::Pool,
    table::TableName,
    value::Statement,
};

/// Longest key of a fence or once table, in bytes.
pub const MAX_KEY: usize = 255;

/// One database of one binding.
pub(crate) struct Granted<K: Connector> {
    pub(crate) pool: Arc<Pool<K>>,
    pub(crate) grant: SqlGrant,
}

impl<K: Connector> Granted<K> {
    /// Statements of a guest: few enough, small enough, and of a kind that is let through.
    pub(crate) fn admit(&self, statements: &[Statement]) -> Result<(), SqlError> {
        let limits = self.grant.limits;
        if statements.len() > limits.statements {
            return Err(SqlError::TooLarge(format!(
                "{} statements in one call: at most {} fit",
                statements.len(),
                limits.statements
            )));
        }
        for statement in statements {
            if statement.params.len() > limits.params {
                return Err(SqlError::TooLarge(format!(
                    "{} parameters in one statement: at most {} fit",
                    statement.params.len(),
                    limits.params
                )));
            }
            gate::admit(K::READS_LIKE, &statement.text)?;
        }
        if statements.iter().map(Statement::size).sum::<usize>() > limits.bytes {
            return Err(SqlError::TooLarge(format!("more than {} bytes of statements and parameters", limits.bytes)));
        }
        Ok(())
    }

    /// Statements that may write.
    pub(crate) fn admit_writing(&self, statements: &[Statement]) -> Result<(), SqlError> {
        if !statements.is_empty() && !self.grant.write {
            return Err(SqlError::NotGranted(
                "the grant of this database only reads; set `\"write\": true` in the binding".to_owned(),
            ));
        }
        self.admit(statements)
    }

    /// The fence table.
    pub(crate) fn fence(&self) -> Result<&TableName, SqlError> {
        self.grant.fence.as_ref().ok_or_else(|| {
            SqlError::NotGranted(
                "the grant of this database names no fence table; set `fence` in the binding".to_owned(),
            )
        })
    }

    /// The table of `run_once`.
    pub(crate) fn once(&self) -> Result<&TableName, SqlError> {
        self.grant.once.as_ref().ok_or_else(|| {
            SqlError::NotGranted("the grant of this database names no once table; set `once` in the binding".to_owned())
        })
    }

    /// What one call may answer.
    pub(crate) fn allowance(&self) -> Allowance {
        Allowance::new(self.grant.limits)
    }
}

/// A key that every database keeps as it is: none is cut, and none is taken for another.
///
/// # Errors
/// [`SqlError::TooLarge`] above [`MAX_KEY`] bytes, [`SqlError::BadValue`] if empty or with a NUL in it.
pub(crate) fn check_key(key: &str) -> Result<(), SqlError> {
    if key.len() > MAX_KEY {
        return Err(SqlError::TooLarge(format!("a key of {} bytes: at most {MAX_KEY} fit", key.len())));
    }
    if key.is_empty() || key.contains('\0') {
        return Err(SqlError::BadValue("a key must not be empty, and holds no NUL character".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bounded_in_bytes_and_never_cut() {
        assert_eq!(check_key(&"a".repeat(MAX_KEY)), Ok(()));
        assert!(matches!(check_key(&"a".repeat(MAX_KEY + 1)), Err(SqlError::TooLarge(_))));
        assert!(matches!(check_key(&"é".repeat(128)), Err(SqlError::TooLarge(_))));
        assert!(matches!(check_key(""), Err(SqlError::BadValue(_))));
        assert!(matches!(check_key("a\0"), Err(SqlError::BadValue(_))));
    }
}
