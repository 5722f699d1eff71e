//! Which statements are let through to a database.
//!
//! The gate is the first of several doors: the database prepares each text, which allows one statement only; transactions
//! are read-only unless the grant says `write`; the state of the transaction is compared after each statement. What it is
//! for: that a refusal is told before anything is sent, in the same words by all three databases.
//!
//! It reads no grammar. Of a text it knows the first word, that nothing but semicolons and comments stands behind the first
//! semicolon, and that no query has an INTO of its own. What is in quotes is data; where the end of a quote would be another
//! one under another setting of the server, connections set what is assumed here.

mod lexer;

#[cfg(test)]
mod tests;

use crate::{dialect::Dialect, error::SqlError};

use lexer::{Lexeme, Lexer};

/// What a statement may begin with.
const BEGINNINGS: [&str; 8] = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "MERGE", "REPLACE", "VALUES"];

/// Longest text of a statement, in bytes.
pub const MAX_STATEMENT: usize = 64 << 10;

/// Hints of MySQL by which a statement changes the limits that it runs under.
const HINTS: [&str; 2] = ["SET_VAR", "MAX_EXECUTION_TIME"];

/// Lets one statement through: a query, or a change of rows.
///
/// # Errors
/// [`SqlError::Invalid`] with what to change, [`SqlError::TooLarge`] above [`MAX_STATEMENT`].
pub fn admit(dialect: Dialect, text: &str) -> Result<(), SqlError> {
    if text.len() > MAX_STATEMENT {
        return Err(SqlError::TooLarge(format!(
            "a statement of {} bytes: at most {MAX_STATEMENT} are let through; pass values as parameters",
            text.len()
        )));
    }
    let invalid = |why: &str| Err(SqlError::Invalid(why.to_owned()));
    if text.contains('\0') {
        return invalid("the statement holds a NUL character; remove it");
    }
    let mut begun = false;
    let mut ended = false;
    // For each open parenthesis, whether a query began within it.
    let mut queries = vec![false];
    for lexeme in Lexer::new(dialect, text) {
        match lexeme {
            Lexeme::Comment(comment) => check_comment(dialect, comment)?,
            Lexeme::Unfinished => return invalid("a quote or a comment in the statement does not end; close it"),
            Lexeme::Semicolon => ended |= begun,
            _ if ended => return invalid("the text holds more than one statement; use run-all for several"),
            Lexeme::Word(word) if !begun => {
                if !BEGINNINGS.iter().any(|beginning| word.eq_ignore_ascii_case(beginning)) {
                    return invalid(&format!(
                        "statements that begin with {} are not let through; begin with one of {}",
                        word.chars().take(30).collect::<String>().to_uppercase(),
                        BEGINNINGS.join(", ")
                    ));
                }
                begun = true;
                note(&mut queries, word);
            }
            _ if !begun => return invalid(&format!("a statement begins with one of {}", BEGINNINGS.join(", "))),
            Lexeme::Word(word) if word.eq_ignore_ascii_case("into") && queries.last() == Some(&true) => {
                return invalid("SELECT … INTO makes a table, a file or a variable; leave INTO out and read the rows");
            }
            Lexeme::Word(word) => note(&mut queries, word),
            Lexeme::Opening => queries.push(false),
            Lexeme::Closing => {
                queries.pop();
            }
            Lexeme::Quoted | Lexeme::Other => {}
        }
    }
    if begun { Ok(()) } else { invalid("the statement is empty") }
}

/// A query begins in the innermost parenthesis.
fn note(queries: &mut [bool], word: &str) {
    if word.eq_ignore_ascii_case("select")
        && let Some(query) = queries.last_mut()
    {
        *query = true;
    }
}

/// MySQL and MariaDB run what some comments hold; the others are refused with them, so that a text means the same
/// everywhere.
fn check_comment(dialect: Dialect, comment: &str) -> Result<(), SqlError> {
    if comment.starts_with("/*!") || comment.starts_with("/*M!") {
        return Err(SqlError::Invalid(
            "a comment that begins with /*! or /*M! is run by some databases; write the statement without it"
                .to_owned(),
        ));
    }
    let changes_limits = |comment: &str| HINTS.iter().any(|hint| comment.to_ascii_uppercase().contains(hint));
    if dialect.is_mysql() && comment.starts_with("/*+") && changes_limits(comment) {
        return Err(SqlError::Invalid(format!(
            "the hints {} change the limits that the statement runs under; leave them out",
            HINTS.join(" and ")
        )));
    }
    Ok(())
}
