//! A connector whose connections stop at a named point, until they are told to go on.

use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use crate::{
    call::SqlCall,
    connection::{Access, Allowance, Author, Connector, SqlConnection, TriedStatement},
    dialect::Dialect,
    error::{SqlError, StatementFault},
    grant::DatabasePassword,
    value::{RowSet, Statement},
};

/// Where a check that closes can be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// It is about to read.
    BeforeRead,
    /// It read no row, and has not begun its own transaction.
    BeforeBegin,
    /// It began, and has not inserted.
    BeforeInsert,
    /// It inserted, and has not committed.
    AfterInsert,
    /// It committed, and nobody knows yet.
    AfterCommit,
}

impl Point {
    /// Those of its own transaction.
    pub(super) const ALL: [Self; 4] = [Self::BeforeBegin, Self::BeforeInsert, Self::AfterInsert, Self::AfterCommit];
}

/// Where to stop next, if anywhere.
#[derive(Clone, Default)]
pub(super) struct Steps(Arc<Mutex<Option<Stop>>>);

struct Stop {
    at: Point,
    reached: oneshot::Sender<()>,
    go: oneshot::Receiver<()>,
}

impl Steps {
    /// The next one that comes there stops: the first half tells when, the other lets it go.
    pub(super) fn stop_at(&self, at: Point) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let (reached, is_reached) = oneshot::channel();
        let (let_go, go) = oneshot::channel();
        *self.0.lock().unwrap() = Some(Stop { at, reached, go });
        (is_reached, let_go)
    }

    async fn come_to(&self, point: Point) {
        let stop = self.0.lock().unwrap().take_if(|stop| stop.at == point);
        if let Some(stop) = stop {
            let _ = stop.reached.send(());
            let _ = stop.go.await;
        }
    }
}

/// Makes connections that stop.
pub(super) struct Stepped<K> {
    pub(super) inner: K,
    pub(super) steps: Steps,
}

/// A connection that stops.
pub(super) struct SteppedConnection<C> {
    inner: C,
    steps: Steps,
}

impl<K: Connector> Connector for Stepped<K> {
    type Connection = SteppedConnection<K::Connection>;
    const READS_LIKE: Dialect = K::READS_LIKE;

    async fn connect(&self, password: &DatabasePassword) -> Result<Self::Connection, SqlError> {
        Ok(SteppedConnection { inner: self.inner.connect(password).await?, steps: self.steps.clone() })
    }
}

impl<C: SqlConnection> SqlConnection for SteppedConnection<C> {
    fn dialect(&self) -> Dialect {
        self.inner.dialect()
    }

    fn is_clean(&self) -> bool {
        self.inner.is_clean()
    }

    async fn begin(&mut self, access: Access, call: SqlCall) -> Result<(), StatementFault> {
        match access {
            Access::Read => self.steps.come_to(Point::BeforeRead).await,
            Access::Keyed => self.steps.come_to(Point::BeforeBegin).await,
            Access::One | Access::Several => {}
        }
        self.inner.begin(access, call).await
    }

    async fn run(
        &mut self,
        statement: &Statement,
        author: Author,
        allowance: &mut Allowance,
        call: SqlCall,
    ) -> Result<RowSet, StatementFault> {
        let is_insert = statement.text.starts_with("insert into");
        if is_insert {
            self.steps.come_to(Point::BeforeInsert).await;
        }
        let answer = self.inner.run(statement, author, allowance, call).await?;
        if is_insert {
            self.steps.come_to(Point::AfterInsert).await;
        }
        Ok(answer)
    }

    async fn prepare(&mut self, text: &str) -> Result<TriedStatement, StatementFault> {
        self.inner.prepare(text).await
    }

    async fn commit(&mut self) -> Result<(), StatementFault> {
        self.inner.commit().await?;
        self.steps.come_to(Point::AfterCommit).await;
        Ok(())
    }

    async fn roll_back(&mut self) -> Result<(), StatementFault> {
        self.inner.roll_back().await
    }
}
