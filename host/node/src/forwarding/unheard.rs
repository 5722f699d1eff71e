//! A receive that another node serves, and what becomes of messages that are lost on the way here.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::call::ForwardedAsk;
use super::leaders::Leaders;

/// How often the leader is told, if it does not hear.
const TELLS: u32 = 10;
/// Before it is told again.
const AGAIN: Duration = Duration::from_secs(1);

/// A receive whose answer is awaited. Dropped before that is heard, whatever it got is given back.
pub(crate) struct UnheardReceive {
    /// Names it at the leader.
    pub(crate) ticket: u64,
    leaders: Option<Arc<Leaders>>,
}

impl UnheardReceive {
    pub(crate) fn begin(leaders: &Arc<Leaders>) -> Self {
        let may_be_there = leaders.has_others() && !leaders.is_here();
        Self { ticket: rand::random(), leaders: may_be_there.then(|| leaders.clone()) }
    }

    /// It is known what became of it.
    pub(crate) fn is_heard(mut self) {
        self.leaders = None;
    }
}

impl Drop for UnheardReceive {
    fn drop(&mut self) {
        let (Some(leaders), Ok(runtime)) = (self.leaders.take(), Handle::try_current()) else { return };
        let ticket = self.ticket;
        runtime.spawn(async move {
            for _ in 0..TELLS {
                match leaders.by_another(ForwardedAsk::GiveBack { ticket }).await {
                    // Another node led when it was asked: the next one knows only of the leases.
                    Some(Ok(_)) | None => return,
                    Some(Err(why)) => tracing::debug!(%why, "what a receive got is not given back yet"),
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
    }
}
