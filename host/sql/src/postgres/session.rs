//! One connection to PostgreSQL, ready for statements.

use fallible_iterator::FallibleIterator as _;
use postgres_protocol::{
    IsNull,
    message::{
        backend::{DataRowBody, Message, RowDescriptionBody},
        frontend,
    },
};

use crate::{
    call::SqlCall,
    connection::{Access, Allowance, Author, SqlConnection, TriedStatement},
    dialect::Dialect,
    error::{SqlError, StatementFault},
    mask::Mask,
    value::{RowSet, Statement},
};

use super::{
    errors::ServerError,
    values,
    wire::{Wire, WireFault},
};

/// Settings that statements are read and answered under; those of the server may be others.
const SETTINGS: &str = "set local standard_conforming_strings = on; set local intervalstyle = 'iso_8601'; \
                        set local bytea_output = 'hex'";

/// A key that is inserted must survive a crash once that was answered, even where the database is set not to care; what is
/// set to wait for more stays so.
const KEYED: &str = "; set local lock_timeout = '500ms'; select set_config('synchronous_commit', 'on', true) \
                     where current_setting('synchronous_commit') = 'off'";

/// The protocol's number for fields in text form.
const TEXT: i16 = 0;

/// What the server says of the transaction after each command.
const IN_TRANSACTION: u8 = b'T';
const IDLE: u8 = b'I';

/// A connection that was let in.
pub(crate) struct PostgresConnection {
    wire: Wire,
    mask: Mask,
    access: Access,
    /// A guest's statement ran since the session was last cleared.
    is_soiled: bool,
}

/// What a command answered besides rows.
struct Heard {
    error: Option<ServerError>,
    /// The command as the server calls it, with how many rows it was about.
    tag: String,
    status: u8,
}

impl PostgresConnection {
    /// One that said that it is ready.
    pub(super) fn new(wire: Wire, mask: Mask) -> Self {
        Self { wire, mask, access: Access::Read, is_soiled: false }
    }

    /// Writes a command without parameters behind what is to be sent.
    fn write_command(&mut self, text: &str) -> Result<(), StatementFault> {
        frontend::query(text, &mut self.wire.outgoing).map_err(|_| StatementFault::connection_lost())
    }

    /// Sends all that was written.
    async fn send(&mut self) -> Result<(), StatementFault> {
        self.wire.send().await.map_err(|_| StatementFault::connection_lost())
    }

    /// The next message. One that is too long is an answer that exceeds its limit, if there is one.
    async fn next(&mut self, allowance: Option<&Allowance>) -> Result<Message, StatementFault> {
        self.wire.next().await.map_err(|fault| match (fault, allowance) {
            (WireFault::TooLong, Some(allowance)) => StatementFault::Lost(allowance.too_many_bytes()),
            _ => StatementFault::connection_lost(),
        })
    }

    /// Reads the answer to a command that has no rows for anybody.
    async fn heard(&mut self) -> Result<Heard, StatementFault> {
        let mut heard = Heard { error: None, tag: String::new(), status: IDLE };
        loop {
            match self.next(None).await? {
                Message::ErrorResponse(body) => drop(heard.error.get_or_insert(ServerError::of(&body))),
                Message::CommandComplete(body) => heard.tag = body.tag().unwrap_or_default().to_owned(),
                Message::ReadyForQuery(body) => {
                    heard.status = body.status();
                    return Ok(heard);
                }
                _ => {}
            }
        }
    }

    /// Ends the transaction, and clears the session of what a guest may have left there: settings, locks, temporary tables.
    async fn end(&mut self, command: &str) -> Result<Heard, StatementFault> {
        // Waiting for replicas is part of a commit: a statement's time-out would break it off, but not undo it.
        self.write_command("set local statement_timeout = 0")?;
        self.write_command(command)?;
        if self.is_soiled {
            self.write_command("discard all")?;
        }
        self.send().await?;
        // A transaction that failed takes no settings; what counts is how it ends.
        self.heard().await?;
        let ended = self.heard().await?;
        if self.is_soiled && self.heard().await.is_ok_and(|cleared| cleared.error.is_none()) {
            self.is_soiled = false;
        }
        if ended.status != IDLE {
            return Err(StatementFault::connection_lost());
        }
        Ok(ended)
    }

    /// The fault in what was heard, if there is one.
    fn fault_in(&self, heard: Heard) -> Result<Heard, StatementFault> {
        match &heard.error {
            Some(error) => Err(error.fault(self.access, &self.mask)),
            None => Ok(heard),
        }
    }

    /// Writes a statement with its parameters: to be parsed, bound, described and run, and then to be ready again. It stays
    /// nameless, so that the server keeps no plan of it and a changed schema is no trouble.
    fn write_statement(&mut self, statement: &Statement, rows: usize) -> Result<(), StatementFault> {
        let outgoing = &mut self.wire.outgoing;
        let written = frontend::parse("", &statement.text, [], outgoing).is_ok()
            && frontend::bind(
                "",
                "",
                [TEXT],
                &statement.params,
                |value, out| {
                    Ok(match values::encode(value) {
                        Some(text) => {
                            out.extend_from_slice(&text);
                            IsNull::No
                        }
                        None => IsNull::Yes,
                    })
                },
                [TEXT],
                outgoing,
            )
            .is_ok()
            && frontend::describe(b'P', "", outgoing).is_ok()
            // One more than may come, so that too many are seen without being sent.
            && frontend::execute("", i32::try_from(rows.saturating_add(1)).unwrap_or(i32::MAX), outgoing).is_ok();
        if !written {
            outgoing.clear();
            return Err(SqlError::TooLarge(
                "the statement or a parameter is longer than the protocol allows".to_owned(),
            )
            .into());
        }
        frontend::sync(outgoing);
        Ok(())
    }

    /// Reads the rows of a statement, to the point where the server is ready for the next one.
    async fn rows(&mut self, allowance: &mut Allowance) -> Result<RowSet, StatementFault> {
        let mut answer = RowSet::default();
        let mut types = Vec::new();
        let mut error = None;
        let mut excess = None;
        loop {
            match self.next(Some(allowance)).await? {
                Message::RowDescription(body) => {
                    (answer.columns, types) = columns(&body)?;
                    allowance.take_columns(&answer.columns).map_err(StatementFault::Lost)?;
                }
                Message::DataRow(body) => {
                    let is_last = allowance.rows == 0;
                    let row = row(&body, &types)?;
                    match allowance.take(&row) {
                        Ok(()) => answer.rows.push(row),
                        Err(error) if is_last => excess = Some(error),
                        Err(error) => return Err(StatementFault::Lost(error)),
                    }
                }
                Message::CommandComplete(body) => answer.affected = affected(body.tag().unwrap_or_default()),
                Message::PortalSuspended => excess = excess.or_else(|| Some(allowance.too_many_rows())),
                Message::ErrorResponse(body) => drop(error.get_or_insert(ServerError::of(&body))),
                Message::ReadyForQuery(body) => {
                    if body.status() == IDLE {
                        return Err(ended_by_itself());
                    }
                    if let Some(error) = error {
                        return Err(error.fault(self.access, &self.mask));
                    }
                    return match excess {
                        Some(error) => Err(StatementFault::Said(error)),
                        None => Ok(answer),
                    };
                }
                Message::ParseComplete | Message::BindComplete | Message::NoData | Message::EmptyQueryResponse => {}
                // Copying begins no statement that the gate lets through, so this server is none of ours.
                _ => return Err(StatementFault::connection_lost()),
            }
        }
    }
}

impl SqlConnection for PostgresConnection {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn is_clean(&self) -> bool {
        !self.is_soiled
    }

    async fn begin(&mut self, access: Access, _call: SqlCall) -> Result<(), StatementFault> {
        self.access = access;
        let mode = if access.writes() { "read write" } else { "read only" };
        let keyed = if access == Access::Keyed { KEYED } else { "" };
        self.write_command(&format!("begin isolation level read committed {mode}; {SETTINGS}{keyed}"))?;
        self.send().await?;
        let heard = self.heard().await?;
        match heard.error {
            Some(error) => Err(error.fault_at_begin(access, &self.mask)),
            None if heard.status == IN_TRANSACTION => Ok(()),
            None => Err(StatementFault::connection_lost()),
        }
    }

    async fn run(
        &mut self,
        statement: &Statement,
        author: Author,
        allowance: &mut Allowance,
        call: SqlCall,
    ) -> Result<RowSet, StatementFault> {
        self.is_soiled |= author == Author::Guest;
        let time = call.share_of_the_database().as_millis();
        self.write_command(&format!("set local statement_timeout = {time}"))?;
        self.write_statement(statement, allowance.rows)?;
        self.send().await?;
        // Both are answered, whatever the first one said.
        let bounded = self.heard().await?;
        let answer = self.rows(allowance).await;
        if let Some(error) = bounded.error {
            return Err(error.fault(self.access, &self.mask));
        }
        answer
    }

    async fn prepare(&mut self, text: &str) -> Result<TriedStatement, StatementFault> {
        let outgoing = &mut self.wire.outgoing;
        let written = frontend::parse("", text, [], outgoing).is_ok() && frontend::describe(b'S', "", outgoing).is_ok();
        if !written {
            return Err(StatementFault::connection_lost());
        }
        frontend::sync(outgoing);
        self.send().await?;
        let mut tried = TriedStatement { params: 0, columns: Vec::new() };
        let mut error = None;
        loop {
            match self.next(None).await? {
                Message::ParameterDescription(body) => tried.params = body.parameters().count().unwrap_or(0),
                Message::RowDescription(body) => tried.columns = columns(&body)?.0,
                Message::ErrorResponse(body) => drop(error.get_or_insert(ServerError::of(&body))),
                Message::ReadyForQuery(_) => break,
                _ => {}
            }
        }
        match error {
            Some(error) => Err(error.fault(self.access, &self.mask)),
            None => Ok(tried),
        }
    }

    async fn commit(&mut self) -> Result<(), StatementFault> {
        let heard = self.end("commit").await?;
        let heard = self.fault_in(heard)?;
        if heard.tag == "COMMIT" {
            return Ok(());
        }
        Err(SqlError::Aborted("the database rolled back instead of committing; run it again".to_owned()).into())
    }

    async fn roll_back(&mut self) -> Result<(), StatementFault> {
        let heard = self.end("rollback").await?;
        self.fault_in(heard).map(drop)
    }
}

/// Names and types of the columns.
fn columns(body: &RowDescriptionBody) -> Result<(Vec<String>, Vec<u32>), StatementFault> {
    let fields = body.fields().map(|field| Ok((field.name().to_owned(), field.type_oid())));
    let columns: Vec<(String, u32)> = fields.collect().map_err(|_| StatementFault::connection_lost())?;
    Ok(columns.into_iter().unzip())
}

/// The fields of a row, each by the type of its column.
fn row(body: &DataRowBody, types: &[u32]) -> Result<Vec<crate::value::Value>, StatementFault> {
    let ranges: Vec<_> = body.ranges().collect().map_err(|_| StatementFault::connection_lost())?;
    let field = |range: &Option<std::ops::Range<usize>>| range.clone().and_then(|range| body.buffer().get(range));
    Ok(ranges.iter().zip(types).map(|(range, type_oid)| values::decode(*type_oid, field(range))).collect())
}

/// The number at the end of what a server calls a command: `INSERT 0 5`, `UPDATE 3`. Rows that were only read are not
/// changed.
fn affected(tag: &str) -> u64 {
    if tag.starts_with("SELECT") {
        return 0;
    }
    tag.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Something in the statement committed or rolled back: what this call still thinks of as undone may be done.
fn ended_by_itself() -> StatementFault {
    StatementFault::Lost(SqlError::Invalid(
        "the statement ended the database transaction that it ran in; leave that to the broker".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changed_rows_count_as_affected() {
        for (tag, rows) in
            [("INSERT 0 5", 5), ("UPDATE 3", 3), ("DELETE 0", 0), ("MERGE 2", 2), ("SELECT 9", 0), ("", 0)]
        {
            assert_eq!(affected(tag), rows, "{tag}");
        }
    }
}
