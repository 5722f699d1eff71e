//! The order service's database: one SQLite file. Every step opens it anew, as over a network.
//!
//! Besides the orders it holds the fence: what became of each message, written once. An order passes it in the database
//! transaction that writes its row; the question what became of a message closes it where no order did. So an answer
//! stays true, however late the row comes.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

/// Status of an order that is paid.
pub(crate) const PAID: &str = "paid";
/// Status of an order whose payment is not there yet.
pub(crate) const AWAITING_PAYMENT: &str = "awaiting-payment";
/// What is said of an order that was not placed with the message that was asked about, and never will be.
pub(crate) const CANCELLED: &str = "cancelled";

/// The order's row is written.
const COMMITTED: &str = "committed";
/// Somebody was told that there is none.
const ROLLED_BACK: &str = "rolled_back";

/// Makes the file and its tables.
pub(crate) fn create(path: &Path) -> rusqlite::Result<()> {
    let database = Connection::open(path)?;
    database.execute_batch(
        "CREATE TABLE orders (id TEXT PRIMARY KEY, item TEXT NOT NULL, status TEXT NOT NULL) STRICT;
         CREATE TABLE fence (message TEXT PRIMARY KEY, outcome TEXT NOT NULL) STRICT;",
    )
}

/// Writes a new order and passes the fence of its message; on disk when this returns. Fails if somebody was told before
/// that the order will not be.
pub(crate) fn insert(path: &Path, message: &str, id: &str, item: &str, status: &str) -> rusqlite::Result<()> {
    let mut database = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute("INSERT INTO fence (message, outcome) VALUES (?1, ?2)", params![message, COMMITTED])?;
    transaction.execute("INSERT INTO orders (id, item, status) VALUES (?1, ?2, ?3)", params![id, item, status])?;
    transaction.commit()
}

/// The status of the order that was placed with this message; [`CANCELLED`] if there is none, and there never will be:
/// this closes the fence.
pub(crate) fn settled_status(path: &Path, message: &str, id: &str) -> rusqlite::Result<String> {
    let mut database = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let outcome = transaction
        .query_row("SELECT outcome FROM fence WHERE message = ?1", params![message], |row| row.get::<_, String>(0))
        .optional()?;
    let status = match outcome.as_deref() {
        Some(COMMITTED) => {
            transaction.query_row("SELECT status FROM orders WHERE id = ?1", params![id], |row| row.get(0))?
        }
        Some(_) => CANCELLED.to_owned(),
        None => {
            transaction
                .execute("INSERT INTO fence (message, outcome) VALUES (?1, ?2)", params![message, ROLLED_BACK])?;
            CANCELLED.to_owned()
        }
    };
    transaction.commit()?;
    Ok(status)
}

/// The payment arrived. Returns whether there is such an order.
pub(crate) fn pay(path: &Path, id: &str) -> rusqlite::Result<bool> {
    let database = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    Ok(database.execute("UPDATE orders SET status = ?2 WHERE id = ?1", params![id, PAID])? == 1)
}

/// The status of an order; `None` if there is no such order.
pub(crate) fn status(path: &Path, id: &str) -> rusqlite::Result<Option<String>> {
    let database = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    database.query_row("SELECT status FROM orders WHERE id = ?1", params![id], |row| row.get(0)).optional()
}

/// Ids and statuses of all orders.
pub(crate) fn all(path: &Path) -> rusqlite::Result<Vec<(String, String)>> {
    let database = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut query = database.prepare("SELECT id, status FROM orders ORDER BY id")?;
    query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// What went wrong, in a few words: SQLite repeats itself, and adds the path.
pub(crate) fn brief(error: &rusqlite::Error) -> String {
    let text = error.to_string();
    text.split(": ").next().unwrap_or(&text).to_owned()
}

/// Never creates the file: a database that is away must fail.
fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_written_paid_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.db");
        create(&path).unwrap();
        insert(&path, "m1", "A-1", "lamp", AWAITING_PAYMENT).unwrap();
        assert!(insert(&path, "m2", "A-1", "lamp", PAID).is_err(), "an id is taken once");
        assert_eq!(status(&path, "A-1").unwrap().as_deref(), Some(AWAITING_PAYMENT));
        assert!(pay(&path, "A-1").unwrap());
        assert!(!pay(&path, "A-2").unwrap());
        assert_eq!(status(&path, "A-2").unwrap(), None);
        assert_eq!(all(&path).unwrap(), [("A-1".to_owned(), PAID.to_owned())]);
    }

    #[test]
    fn a_row_that_comes_after_the_question_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.db");
        create(&path).unwrap();
        assert_eq!(settled_status(&path, "m1", "A-1").unwrap(), CANCELLED);
        assert!(insert(&path, "m1", "A-1", "lamp", PAID).is_err(), "it was said that there is none");
        assert_eq!(status(&path, "A-1").unwrap(), None);
        // Ordered again, with another message.
        insert(&path, "m2", "A-1", "lamp", PAID).unwrap();
        assert_eq!(settled_status(&path, "m2", "A-1").unwrap(), PAID);
        assert_eq!(settled_status(&path, "m1", "A-1").unwrap(), CANCELLED, "an answer stays true");
    }

    #[test]
    fn a_database_that_is_away_fails_and_is_not_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.db");
        assert_eq!(brief(&status(&path, "A-1").unwrap_err()), "unable to open database file");
        assert!(insert(&path, "m1", "A-1", "lamp", PAID).is_err());
        assert!(settled_status(&path, "m1", "A-1").is_err());
        assert!(!path.exists());
    }
}
