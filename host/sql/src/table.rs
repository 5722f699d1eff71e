//! Names of the tables that a grant names.
//!
//! They are the only words of a binding that become part of a statement's text, as no database takes a name as a parameter.

use std::{fmt, str::FromStr};

use crate::dialect::Dialect;

/// A table, with its schema if one is named: `vouch_fence`, `billing.vouch_fence`.
///
/// Only letters, digits and `_`, so that quoting it is all that a statement needs; a capital letter is kept, as quoting
/// makes it significant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    schema: Option<String>,
    name: String,
}

/// Why a text names no table. Show it to whoever wrote the grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot name the table: use ASCII letters, digits and `_`, beginning with a letter or `_`, at most {max} \
     characters, after a schema and a dot if needed",
    max = TableName::MAX_LENGTH
)]
pub struct TableNameError(String);

impl TableName {
    /// Longest name of a table or a schema: what PostgreSQL keeps of one.
    pub const MAX_LENGTH: usize = 63;

    /// The name as it stands in a statement.
    pub(crate) fn quoted(&self, dialect: Dialect) -> String {
        let quote = if dialect.is_mysql() { '`' } else { '"' };
        match &self.schema {
            Some(schema) => format!("{quote}{schema}{quote}.{quote}{}{quote}", self.name),
            None => format!("{quote}{}{quote}", self.name),
        }
    }

    /// The schema, if one is named.
    pub(crate) fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// The name without its schema.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for TableName {
    type Err = TableNameError;

    fn from_str(text: &str) -> Result<Self, TableNameError> {
        let is_identifier = |part: &str| {
            part.len() <= Self::MAX_LENGTH
                && part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                && part.chars().all(|each| each.is_ascii_alphanumeric() || each == '_')
        };
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        if is_identifier(name) && schema.is_none_or(is_identifier) {
            Ok(Self { schema: schema.map(str::to_owned), name: name.to_owned() })
        } else {
            Err(TableNameError(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_with_or_without_its_schema_and_quoted_by_the_databases_rule() {
        let bare: TableName = "vouch_fence".parse().unwrap();
        assert_eq!(bare.quoted(Dialect::Postgres), r#""vouch_fence""#);
        let full: TableName = "billing.Fence2".parse().unwrap();
        assert_eq!(full.quoted(Dialect::MariaDb), "`billing`.`Fence2`");
        assert_eq!(full.quoted(Dialect::Sqlite), r#""billing"."Fence2""#);
        assert_eq!(full.to_string(), "billing.Fence2");
    }

    #[test]
    fn what_could_leave_the_quotes_names_no_table() {
        for text in ["", ".", "a.", ".a", "a.b.c", "a b", "a\"b", "a`b", "1a", "täfel", "a;b", "a'b", "a--"] {
            assert!(text.parse::<TableName>().is_err(), "{text}");
        }
        assert!("a".repeat(63).parse::<TableName>().is_ok());
        assert!("a".repeat(64).parse::<TableName>().is_err());
    }
}
