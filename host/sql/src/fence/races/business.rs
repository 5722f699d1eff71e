//! The business transaction: an order row and the fence row, or neither.

use crate::{
    dialect::Dialect,
    places::Place,
    service::{Refused, Service},
};

/// How far a business transaction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has not begun.
    Before,
    /// It inserted the order.
    OrderRow,
    /// And the fence row.
    FenceRow,
    /// It asks for its commit, while the check goes on.
    CommitSent,
    /// It committed.
    Committed,
    /// It changed its mind.
    RolledBack,
}

impl Stage {
    pub(super) const ALL: [Self; 6] =
        [Self::Before, Self::OrderRow, Self::FenceRow, Self::CommitSent, Self::Committed, Self::RolledBack];
}

/// How the fence row is inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insert {
    /// As the manual says.
    Plain,
    /// As it forbids.
    Upsert,
}

/// What became of it.
pub(super) struct Ended {
    /// The fence row was there already, or somebody held it.
    pub(super) found_the_key: bool,
}

/// A service with one business transaction.
pub(super) struct Business {
    service: Service,
    dialect: Dialect,
    insert: Insert,
    pub(super) key: String,
    /// A statement of it was refused, so it rolled back and does no more.
    refused: Option<Refused>,
}

impl Business {
    pub(super) async fn new(place: &Place, level: &str, insert: Insert, key: &str) -> Self {
        let mut service = place.service().await;
        match place.dialect {
            Dialect::Postgres => {
                drop(
                    service.must(&format!("set session characteristics as transaction isolation level {level}")).await,
                );
            }
            // Where the check is stopped in its transaction nothing comes of waiting for it.
            Dialect::Sqlite => drop(service.must("pragma busy_timeout = 50").await),
            _ => drop(service.must(&format!("set session transaction isolation level {level}")).await),
        }
        Self { service, dialect: place.dialect, insert, key: key.to_owned(), refused: None }
    }

    async fn run(&mut self, text: &str) {
        if self.refused.is_some() {
            return;
        }
        if let Err(refused) = self.service.run(text).await {
            self.refused = Some(refused);
            // Refused as well where the database rolled back itself.
            let _ = self.service.run("rollback").await;
        }
    }

    async fn order_row(&mut self) {
        // A snapshot of SQLite that is read first is outdated by any other writer: the service must say that it writes.
        self.run(if self.dialect == Dialect::Sqlite { "begin immediate" } else { "begin" }).await;
        self.run(&format!("insert into orders (id) values ('{}')", self.key)).await;
    }

    async fn fence_row(&mut self) {
        let plain = format!("insert into vouch_fence (fence_key, outcome) values ('{}', 'committed')", self.key);
        let upsert = match self.dialect {
            Dialect::Postgres | Dialect::Sqlite => "on conflict (fence_key) do update set outcome = 'committed'",
            _ => "on duplicate key update outcome = 'committed'",
        };
        let text = if self.insert == Insert::Upsert { format!("{plain} {upsert}") } else { plain };
        self.run(&text).await;
    }

    /// Goes there from the beginning.
    pub(super) async fn go_to(&mut self, stage: Stage) {
        if stage == Stage::Before {
            return;
        }
        self.order_row().await;
        if stage == Stage::OrderRow {
            return;
        }
        self.fence_row().await;
        match stage {
            Stage::Committed => self.run("commit").await,
            Stage::RolledBack => self.run("rollback").await,
            _ => {}
        }
    }

    /// Goes on from there to the end.
    pub(super) async fn finish(&mut self, from: Stage) -> Ended {
        if from == Stage::Before {
            self.order_row().await;
        }
        if matches!(from, Stage::Before | Stage::OrderRow) {
            self.fence_row().await;
        }
        if !matches!(from, Stage::Committed | Stage::RolledBack) {
            self.run("commit").await;
        }
        Ended { found_the_key: self.refused.take().is_some() }
    }

    /// All of it.
    pub(super) async fn run_all(&mut self) -> Ended {
        self.finish(Stage::Before).await
    }
}
