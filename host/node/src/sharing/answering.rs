//! What other nodes ask about sessions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use vouch_cluster::NodeId;

use super::asks::{SessionAnswer, SessionAsk, answered};
use super::there::{StreamThere, WRITTEN_WITHIN};
use crate::forwarding::HandedOutThere;
use crate::others_room::OthersRoom;
use crate::peers::{ClientAnswer, ClientAnswering, PeerNodes, ServeClients};
use crate::secrets::KeyExchange;
use crate::sessions::{CheckCommand, Question, SessionChanges, Sessions, TelemetryStream};

/// Between two looks whether a question was written.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Answers what other nodes ask about sessions.
#[derive(Clone)]
pub(crate) struct SessionCalls {
    /// Those of this node, and while it leads those of all.
    pub(crate) sessions: Arc<Sessions>,
    /// The ways to the others.
    pub(crate) nodes: Arc<PeerNodes>,
    /// How full their disks are.
    pub(crate) room: Arc<OthersRoom>,
    /// Which of them lack keys of secrets.
    pub(crate) keys: Arc<KeyExchange>,
    /// What went to their consumers a moment ago.
    pub(crate) handed_out: Arc<HandedOutThere>,
    /// Of the node, and not of its connections to others.
    pub(crate) runtime: Handle,
}

impl ServeClients for SessionCalls {
    fn serve(&self, from: NodeId, request: Bytes, deadline: Instant) -> ClientAnswering {
        let this = self.clone();
        let answering = async move {
            match rmp_serde::from_slice(&request) {
                Ok(ask) => ClientAnswer::Answered(answered(this.answer(from, ask, deadline).await)),
                Err(why) => {
                    ClientAnswer::NothingStored(format!("what it says of sessions is of another version: {why}"))
                }
            }
        };
        // A task of its own, which ends with the set: where its caller is gone.
        let mut doings = JoinSet::new();
        doings.spawn_on(answering, &self.runtime);
        Box::pin(async move {
            let answered = doings.join_next().await.and_then(Result::ok);
            answered.unwrap_or_else(|| ClientAnswer::NothingStored("the call ended by a defect".to_owned()))
        })
    }
}

impl SessionCalls {
    async fn answer(&self, from: NodeId, ask: SessionAsk, deadline: Instant) -> SessionAnswer {
        match ask {
            SessionAsk::Changed { life, changes, came, is_full, lacks_keys } => match self.sessions.leadership() {
                None => SessionAnswer::NotLeading,
                Some(now) if now != life || !self.sessions.knows_all_of(from) => SessionAnswer::TellAll,
                Some(life) => {
                    self.room.told(from, is_full);
                    self.keys.told(from, lacks_keys);
                    self.sessions.came(came, Instant::now());
                    self.heard(from, changes, life)
                }
            },
            SessionAsk::All { changes, begins, ends, came, remembers_ms, is_full, lacks_keys } => {
                match self.sessions.leadership() {
                    None => SessionAnswer::NotLeading,
                    Some(life) => {
                        if begins {
                            // What is not among all of them is not there any more.
                            self.sessions.lost(from, Instant::now());
                            // It may have been started anew since, and have lost what it was given.
                            self.sessions.doubt(self.handed_out.went_to(from), Instant::now());
                        }
                        self.room.told(from, is_full);
                        self.keys.told(from, lacks_keys);
                        self.sessions.came(came, Instant::now());
                        self.sessions.remembers(Duration::from_millis(remembers_ms), Instant::now());
                        self.heard(from, changes, life);
                        self.sessions.set_known(from, ends);
                        SessionAnswer::Heard { life }
                    }
                }
            }
            SessionAsk::Check { client_id, command } => {
                SessionAnswer::Asked(self.ask_client(&client_id, *command, deadline).await)
            }
        }
    }

    /// Takes over what a node tells; where one of its clients is not known here it is to tell all.
    fn heard(&self, from: NodeId, changes: SessionChanges, life: u64) -> SessionAnswer {
        let stream = |client_id: &str| -> Arc<dyn TelemetryStream> {
            let (nodes, client_id, runtime) = (self.nodes.clone(), client_id.to_owned(), self.runtime.clone());
            Arc::new(StreamThere { nodes, node: from, client_id, runtime })
        };
        match self.sessions.reported(from, changes, Instant::now(), stream) {
            true => SessionAnswer::Heard { life },
            // One ended here that lives there.
            false => SessionAnswer::TellAll,
        }
    }

    /// Hands a question to the streams that a client has here; whether it was written in time.
    async fn ask_client(&self, client_id: &str, command: CheckCommand, deadline: Instant) -> bool {
        let Some(question) = self.sessions.ask_here(client_id, command) else { return false };
        let withdrawn = Withdrawn(question);
        let until = deadline.min(Instant::now() + WRITTEN_WITHIN);
        while withdrawn.0.written_at().is_none() && Instant::now() < until {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        withdrawn.0.written_at().is_some()
    }
}

/// A question that is withdrawn where nobody waits for it any more.
struct Withdrawn(Question);

impl Drop for Withdrawn {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

#[cfg(test)]
#[path = "answering_tests.rs"]
mod tests;
