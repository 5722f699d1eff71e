//! A client's connection to a broker of one or several nodes: it stays with one node, and goes on with the next when that is lost.
//!
//! It is the same client wherever it goes, so what it sends again, under the same id, is stored once. That is what the official
//! Java client does with several addresses in its access point.

use std::time::{Duration, Instant};

use clap::Args;
use tokio::sync::Mutex;

use super::event::{DemoEvent, DemoMoment};
use crate::failure::ProblemAnswer;
use crate::rpc::{Headers, MessagingStub, RpcRole, RpcSession};

/// How long a call goes from node to node. An election takes a second or two.
const GIVE_UP_AFTER: Duration = Duration::from_secs(20);
/// Between two rounds in which no node took the client in.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Where the nodes of the broker are.
#[derive(Debug, Args)]
pub(crate) struct BrokerArgs {
    /// Address of a node's gRPC service; the first one is tried first.
    #[arg(long = "broker", required = true, value_name = "ADDR")]
    brokers: Vec<String>,
}

/// One client of the broker.
pub(super) struct BrokerLink {
    /// Who it is, as the transcript names it.
    who: &'static str,
    brokers: Vec<String>,
    role: RpcRole,
    headers: Headers,
    connected: Mutex<Connected>,
}

/// Where the client is just now.
struct Connected {
    /// At which of its addresses.
    at: usize,
    session: RpcSession,
}

impl BrokerLink {
    /// Connects to the first of the nodes.
    ///
    /// # Errors
    /// As [`RpcSession::open`].
    pub(super) async fn open(who: &'static str, args: BrokerArgs, role: RpcRole) -> anyhow::Result<Self> {
        let headers = Headers::numbered(0);
        let first = args.brokers.first().map_or("", String::as_str);
        let session = RpcSession::open_as(headers.clone(), first, role.clone()).await?;
        let connected = Mutex::new(Connected { at: 0, session });
        Ok(Self { who, brokers: args.brokers, role, headers, connected })
    }

    /// Makes a call; by the next node, where this one is lost or can do nothing just now. `work` must bear to be done twice.
    ///
    /// # Errors
    /// What the call says that no other node would say otherwise; or the last failure, after [`GIVE_UP_AFTER`].
    pub(super) async fn call<T, F>(&self, work: impl Fn(MessagingStub) -> F) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<T>>,
    {
        let give_up_at = Instant::now() + GIVE_UP_AFTER;
        loop {
            let (at, client) = self.current().await;
            match work(client).await {
                Err(error) if self.has_others() && may_pass(&error) && Instant::now() < give_up_at => {
                    self.move_on(at).await;
                }
                done => return done,
            }
        }
    }

    /// Says goodbye.
    pub(super) async fn close(&self) {
        self.connected.lock().await.session.say_goodbye().await;
    }

    fn has_others(&self) -> bool {
        self.brokers.len() > 1
    }

    async fn current(&self) -> (usize, MessagingStub) {
        let connected = self.connected.lock().await;
        (connected.at, connected.session.client.clone())
    }

    /// Connects to the next node that takes the client in, unless another call did so already. Where none does, there is a pause
    /// instead.
    async fn move_on(&self, left: usize) {
        let mut connected = self.connected.lock().await;
        if connected.at != left {
            return;
        }
        for step in 1..=self.brokers.len() {
            let next = (left + step) % self.brokers.len();
            let address = &self.brokers[next];
            if let Ok(session) = RpcSession::open_as(self.headers.clone(), address, self.role.clone()).await {
                *connected = Connected { at: next, session };
                self.tell(&self.brokers[left], address);
                return;
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }

    /// Tells the stage. The node that was left may be dead, or know of none that leads.
    fn tell(&self, left: &str, next: &str) {
        if left != next {
            DemoEvent {
                who: self.who.to_owned(),
                order: String::new(),
                what: DemoMoment::Moved,
                text: format!("gets no further with {left}, goes on with {next}"),
                transaction: None,
            }
            .tell();
        }
    }
}

/// Whether another node may say otherwise.
fn may_pass(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ProblemAnswer>().is_some_and(ProblemAnswer::may_pass)
}
