//! Looking through transactions, in steps.

use std::sync::Arc;

use vouch_broker::{HalfPosition, Millis, NotDone, State};

use super::Transactions;
use super::view::{TransactionRow, ended_row, open_row};
use crate::turns::{STEP, blocking};
use crate::{PAGE_MAX, TransactionMark, TransactionQuery, TransactionState, TransactionView};
use vouch_leader::Leader;

impl Transactions {
    /// Transactions, open ones in the order in which they were opened, ended ones in the order of their ends; at most
    /// [`PAGE_MAX`]. Waits for its turn: few search at a time. The last row says where the next page begins.
    ///
    /// # Errors
    /// [`Refusal::UnknownTransaction`](vouch_broker::Refusal::UnknownTransaction) if the page before ended with a transaction of
    /// another shard; [`NothingStored::Stopping`](vouch_broker::NothingStored::Stopping) when the node ends meanwhile.
    pub async fn list(&self, query: TransactionQuery) -> Result<Vec<TransactionView>, NotDone> {
        let _turn = self.turns.take().await?;
        let now = self.clock.now();
        let limit = query.limit.clamp(1, PAGE_MAX);
        if let Some(TransactionMark::Open(after) | TransactionMark::Ended(after)) = query.after {
            self.shard.signals().half_of(after)?;
        }
        let mut at = Some(ListPosition::begin(&query));
        let query = Arc::new(query);
        let mut rows = Vec::new();
        while let Some(from) = at.filter(|_| rows.len() < limit) {
            let (query, room) = (query.clone(), limit - rows.len());
            let step = move |state: &State, leader: &mut Leader| step(state, leader, &query, from, room, now);
            let (more, next) = self.shard.show(step).await?;
            rows.extend(more);
            at = next;
        }
        let log = self.log.clone();
        // The half of each is read and verified: not on a thread that serves calls.
        blocking(move || rows.into_iter().map(|row| row.view(&log)).collect()).await
    }
}

/// Where a list of transactions goes on.
#[derive(Clone, Copy)]
enum ListPosition {
    Open(Option<HalfPosition>),
    Ended(Option<HalfPosition>),
}

impl ListPosition {
    /// Where a list begins, or goes on behind the page before.
    fn begin(query: &TransactionQuery) -> Self {
        let ended_only = matches!(query.state, Some(TransactionState::Committed | TransactionState::RolledBack));
        match query.after {
            None if ended_only => Self::Ended(None),
            None => Self::Open(None),
            Some(TransactionMark::Open(_)) if ended_only => Self::Ended(None),
            Some(TransactionMark::Open(after)) => Self::Open(Some(after.half)),
            Some(TransactionMark::Ended(after)) => Self::Ended(Some(after.half)),
        }
    }
}

/// Looks at the next transactions; up to `room` rows of them, and where to go on.
fn step(
    state: &State,
    leader: &Leader,
    query: &TransactionQuery,
    from: ListPosition,
    room: usize,
    now: Millis,
) -> (Vec<TransactionRow>, Option<ListPosition>) {
    let topic = query.topic.as_ref().map(|name| state.topics().named(name).ok().map(|topic| topic.id));
    let in_topic = |id| topic.is_none_or(|wanted| wanted == Some(id));
    let old = |at: Millis| query.older_than.is_none_or(|age| u128::from(now.ms_since(at)) >= age.as_millis());
    let wanted = |row: &TransactionRow| query.state.is_none_or(|state| state == row.state);
    let open_only = matches!(
        query.state,
        Some(TransactionState::Open | TransactionState::Parked | TransactionState::WaitingForChecker)
    );
    let mut rows = Vec::new();
    let mut seen = 0;
    match from {
        ListPosition::Open(after) => {
            for (id, open) in state.open_transactions().iter(after) {
                if in_topic(open.topic) && old(open.opened_at) {
                    rows.extend(Some(open_row(state, leader, id, open, now)).filter(wanted));
                }
                seen += 1;
                if seen == STEP || rows.len() == room {
                    return (rows, Some(ListPosition::Open(Some(id))));
                }
            }
            (rows, Some(ListPosition::Ended(None)).filter(|_| !open_only))
        }
        ListPosition::Ended(after) => {
            for (id, ended) in state.outcomes().iter_after(after) {
                if in_topic(ended.topic) && old(ended.at) {
                    rows.extend(Some(ended_row(state, leader, id, ended)).filter(wanted));
                }
                seen += 1;
                if seen == STEP || rows.len() == room {
                    return (rows, Some(ListPosition::Ended(Some(id))));
                }
            }
            (rows, None)
        }
    }
}
