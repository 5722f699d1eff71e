//! Where that is done which only a leader can do: here, or by the node that leads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{sleep, timeout, timeout_at};
use vouch_broker::{Generation, NotDone, NothingStored, Refusal};
use vouch_cluster::NodeId;
use vouch_commitlog::LogPosition;
use vouch_shard::Shard;
use vouch_transport::CallFailed;

use super::call::{ForwardedAnswer, ForwardedAsk, ForwardedCall, decode_answer};
use super::came_here::CameHere;
use super::context::CallContext;
use crate::peers::{ClientAnswer, Speaking};

/// How long a call waits for a leader: an election takes less, where a majority is there.
const LEADER_WITHIN: Duration = Duration::from_millis(2_500);
/// How long a leader has for a call whose client does not say how long it waits.
const DONE_WITHIN: Duration = Duration::from_secs(10);
/// The most bytes of a call: less than a frame, which holds it with what stands before it.
const CALL_MAX_BYTES: usize = (64 << 20) - 64;
/// What a node answered before another one led is here by so much later.
const ANSWERED_WITHIN: Duration = Duration::from_millis(500);
/// How long an answer waits until this node has applied what it speaks of.
const APPLIED_WITHIN: Duration = Duration::from_millis(2_500);
/// Between two looks whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Between two attempts, where nothing tells of a change.
const AGAIN: Duration = Duration::from_millis(50);

/// Knows who leads, and asks that node.
pub(crate) struct Leaders {
    me: NodeId,
    leads: watch::Receiver<Option<NodeId>>,
    /// `None`: there is no other node.
    speaking: Option<Arc<Speaking>>,
    /// What consumers here got of late.
    pub(super) came_here: CameHere,
}

impl Leaders {
    /// Of this node; `leads` says who leads, as it knows.
    pub(crate) fn new(me: NodeId, leads: watch::Receiver<Option<NodeId>>, speaking: Option<Arc<Speaking>>) -> Self {
        Self { me, leads, speaking, came_here: CameHere::new(Instant::now()) }
    }

    /// Whether another node may lead.
    pub(crate) fn has_others(&self) -> bool {
        self.speaking.is_some()
    }

    /// Who leads, as this node knows.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        *self.leads.borrow()
    }

    /// Since when this node remembers what came to its consumers.
    pub(crate) fn remembers_since(&self) -> Instant {
        self.came_here.began
    }

    /// Batches that came to consumers of this node since then, or of late.
    pub(crate) fn came_here(&self, since: Option<Instant>) -> Vec<Generation> {
        self.came_here.since(since)
    }

    /// Resolves when another node leads, and what this one answered before would be here.
    async fn is_replaced(&self, node: NodeId) {
        let mut leads = self.leads.clone();
        let replaced = leads.wait_for(|leader| leader.is_some_and(|leader| leader != node)).await.is_ok();
        if !replaced {
            // The shard is gone: the call itself tells.
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(ANSWERED_WITHIN).await;
    }

    /// This node.
    pub(crate) fn me(&self) -> NodeId {
        self.me
    }

    /// Asks one node what it alone can say, whoever leads.
    ///
    /// # Errors
    /// What it refuses; it is not reached, or answers something else.
    pub(crate) async fn ask_node<T>(
        &self,
        node: NodeId,
        ask: ForwardedAsk<'_>,
        within: Duration,
        take: impl Fn(ForwardedAnswer) -> Option<T>,
    ) -> Result<T, NotDone> {
        let speaking = self.speaking.as_ref().ok_or(NothingStored::NotLeading { leader: None })?;
        let call = EncodedCall::of(&CallContext::current(), ask)?;
        let answer = asked(speaking, node, &call, Instant::now() + within).await.map_err(|why| match why {
            NotDone::NothingStored(NothingStored::NotLeading { .. }) => {
                NotDone::Unknown(format!("node {node} is not reached, or stops"))
            }
            why => why,
        })?;
        take(answer).ok_or_else(|| NotDone::Unknown(format!("node {node} answered something else")))
    }

    /// Resolves when everything before this position is applied here, unless this node is far behind or stops.
    pub(crate) async fn applied_here(&self, shard: &Shard, position: LogPosition) {
        let applied = async {
            while position > LogPosition::START
                && let Ok(standing) = shard.standing().await
                && standing.applied < position
            {
                sleep(LOOK_EVERY).await;
            }
        };
        let _ = timeout(APPLIED_WITHIN, applied).await;
    }

    /// Whether this node leads.
    pub(crate) fn is_here(&self) -> bool {
        self.leader() == Some(self.me)
    }

    /// Does something where it can be done: `here`, or by the node that leads, which is asked `ask`. Where nobody leads, or the
    /// leader is not reached, it is tried again for a while, for as long as certainly nothing was stored.
    ///
    /// # Errors
    /// Those of `here`, wherever that was; [`NothingStored::NotLeading`] where no leader was found in time;
    /// [`NotDone::Unknown`] where another node may have done it, and did not say.
    pub(crate) async fn done<'a, T, F: Future<Output = Result<T, NotDone>>>(
        &self,
        here: impl Fn() -> F,
        ask: impl Fn() -> ForwardedAsk<'a>,
        take: impl Fn(ForwardedAnswer) -> Option<T>,
    ) -> Result<T, NotDone> {
        self.done_within(DONE_WITHIN, here, ask, take).await
    }

    /// The same for what takes this long by itself.
    pub(crate) async fn done_within<'a, T, F: Future<Output = Result<T, NotDone>>>(
        &self,
        within: Duration,
        here: impl Fn() -> F,
        ask: impl Fn() -> ForwardedAsk<'a>,
        take: impl Fn(ForwardedAnswer) -> Option<T>,
    ) -> Result<T, NotDone> {
        let Some(speaking) = &self.speaking else { return here().await };
        let context = CallContext::current();
        // Another node asks: it is done here, or not at all.
        if CallContext::is_passed_on() {
            return here().await;
        }
        let (until, mut leads, mut call, mut patience) = (context.until(within), self.leads.clone(), None, None);
        loop {
            let leader = *leads.borrow_and_update();
            let tried = match leader {
                // One whose disk hangs answers nothing; who asked hears of that in time.
                Some(node) if node == self.me => match timeout_at(until.into(), here()).await {
                    Ok(done) => done,
                    Err(_) if ask().only_looks() => Err(NothingStored::NotLeading { leader: Some(node.0) }.into()),
                    Err(_) => Err(NotDone::Unknown(format!("node {node} leads, and did not do it in time"))),
                },
                Some(node) => {
                    // Once, however often it is asked.
                    let call = match &call {
                        Some(call) => call,
                        None => call.insert(EncodedCall::of(&context, ask())?),
                    };
                    let asked = async {
                        tokio::select! {
                            biased;
                            answer = asked(speaking, node, call, until) => answer,
                            () = self.is_replaced(node) => Err(call.unanswered(node, "another node leads since")),
                        }
                    };
                    asked.await.and_then(|answer| {
                        take(answer).ok_or_else(|| NotDone::Unknown(format!("node {node} answered something else")))
                    })
                }
                None => Err(NothingStored::NotLeading { leader: None }.into()),
            };
            let not_leading = matches!(tried, Err(NotDone::NothingStored(NothingStored::NotLeading { .. })));
            let now = Instant::now();
            let patience = *patience.get_or_insert_with(|| context.until(LEADER_WITHIN));
            // Nobody lets a node in that was removed: its clients go elsewhere.
            if !not_leading || now >= patience || speaking.removal.was_heard() {
                return tried;
            }
            // Whether it changed or not, it is tried again.
            let _ = timeout_at(patience.min(now + AGAIN).into(), leads.changed()).await;
        }
    }
}

/// A call as it is sent.
struct EncodedCall {
    bytes: Bytes,
    only_looks: bool,
}

impl EncodedCall {
    /// # Errors
    /// It is longer than what goes to another node at once.
    fn of(context: &CallContext, ask: ForwardedAsk<'_>) -> Result<Self, NotDone> {
        let only_looks = ask.only_looks();
        let bytes = ForwardedCall { context: context.clone(), ask }.encode();
        if bytes.len() > CALL_MAX_BYTES {
            return Err(NotDone::Refused(Refusal::Invalid(format!(
                "a request of {} bytes is too long to be passed on to the node that leads, {CALL_MAX_BYTES} are the most; send \
                 less at once, or send it to that node (`vouch cluster status`)",
                bytes.len()
            ))));
        }
        Ok(Self { bytes, only_looks })
    }

    /// What is known where a node that was asked does not answer.
    fn unanswered(&self, node: NodeId, why: &str) -> NotDone {
        match self.only_looks {
            true => NothingStored::NotLeading { leader: Some(node.0) }.into(),
            false => NotDone::Unknown(format!("node {node} led and was asked: {why}")),
        }
    }
}

/// Asks the node that leads, and reads what it answers.
async fn asked(
    speaking: &Speaking,
    node: NodeId,
    call: &EncodedCall,
    deadline: Instant,
) -> Result<ForwardedAnswer, NotDone> {
    let nothing_stored = || NotDone::from(NothingStored::NotLeading { leader: Some(node.0) });
    let answer = speaking.nodes.ask_for_client(node, call.bytes.clone(), deadline.into()).await;
    match answer {
        Ok(ClientAnswer::Answered(bytes)) => match decode_answer(&bytes) {
            // That one stops, or its disk failed: another will lead.
            Ok(Err(NotDone::NothingStored(NothingStored::Stopping | NothingStored::Poisoned(_)))) => {
                Err(nothing_stored())
            }
            Ok(answer) => answer,
            Err(why) => Err(call.unanswered(node, &why.to_string())),
        },
        Ok(ClientAnswer::NothingStored(why)) => {
            tracing::debug!(%node, why, "the node that leads does not take a call");
            Err(nothing_stored())
        }
        Err(CallFailed::NotSent(why)) => {
            tracing::debug!(%node, why, "the node that leads is not reached");
            Err(nothing_stored())
        }
        Err(CallFailed::NoRoom(why)) => Err(NothingStored::TooMany(format!("{why}; try again in a moment")).into()),
        Err(CallFailed::Unknown(why)) => Err(call.unanswered(node, &why)),
    }
}

#[cfg(test)]
#[path = "leaders_tests.rs"]
mod tests;
