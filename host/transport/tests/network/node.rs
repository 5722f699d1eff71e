//! Nodes for tests.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use vouch_transport::{
    CertificateName, LinkState, PeerAdmission, PeerHandlers, PeerHello, PeerIdentity, PeerListener, PeerSecurity,
    Transport, TransportBounds, TransportConfig, TransportTiming,
};

pub(crate) const CLUSTER: [u8; 16] = [0xc1; 16];
/// No test waits longer for something that is to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Another life with each call.
pub(crate) fn identity(node: u64) -> PeerIdentity {
    static LIVES: AtomicU64 = AtomicU64::new(1);
    let incarnation = LIVES.fetch_add(1, Ordering::Relaxed);
    PeerIdentity { cluster: CLUSTER, cluster_incarnation: 1, node, incarnation }
}

/// Short pauses, and patience where a busy machine needs it.
pub(crate) fn timing() -> TransportTiming {
    TransportTiming {
        handshake: Duration::from_secs(5),
        stall: Duration::from_secs(10),
        ping_every: Duration::from_millis(100),
        ping_answer: Duration::from_secs(10),
        backoff_min: Duration::from_millis(2),
        backoff_max: Duration::from_millis(20),
        pull_stall: Duration::from_secs(10),
    }
}

/// Those that may connect, if not all may.
#[derive(Default)]
pub(crate) struct Known(pub(crate) Mutex<Option<BTreeSet<u64>>>);

impl PeerAdmission for Known {
    fn admit(&self, hello: &PeerHello, _: Option<&CertificateName>) -> Result<(), String> {
        let known = self.0.lock().unwrap();
        if hello.credential == "a good token" || known.as_ref().is_none_or(|known| known.contains(&hello.from.node)) {
            return Ok(());
        }
        Err(format!("node {} is no member of this cluster", hello.from.node))
    }
}

/// How a node of a test is made.
pub(crate) struct Setup {
    pub(crate) identity: PeerIdentity,
    pub(crate) security: PeerSecurity,
    pub(crate) timing: TransportTiming,
    pub(crate) bounds: TransportBounds,
    pub(crate) known: Arc<Known>,
}

impl Setup {
    pub(crate) fn of(node: u64) -> Self {
        Self {
            identity: identity(node),
            security: PeerSecurity::Insecure,
            timing: timing(),
            bounds: TransportBounds::default(),
            known: Arc::default(),
        }
    }

    pub(crate) fn start(self) -> Transport {
        let Self { identity, security, timing, bounds, known: admission } = self;
        Transport::new(TransportConfig { identity, security, admission, timing, bounds }).unwrap()
    }
}

pub(crate) fn node(number: u64) -> Transport {
    Setup::of(number).start()
}

pub(crate) async fn listen(transport: &Transport, handlers: PeerHandlers) -> PeerListener {
    transport.listen("127.0.0.1:0", handlers).await.unwrap()
}

/// Waits until a link is as it should be.
pub(crate) async fn until(mut state: watch::Receiver<LinkState>, is: impl Fn(&LinkState) -> bool) -> LinkState {
    let waits = timeout(PATIENCE, async { state.wait_for(|state| is(state)).await.map(|state| state.clone()) }).await;
    waits.unwrap_or_else(|_| panic!("it stays {:?}", state.borrow().clone())).unwrap()
}

pub(crate) async fn until_up(state: watch::Receiver<LinkState>) -> PeerIdentity {
    match until(state, LinkState::is_up).await {
        LinkState::Up(peer) => peer,
        LinkState::Down { .. } => unreachable!(),
    }
}

/// Waits until a link is down for a reason with these words.
pub(crate) async fn until_down(state: watch::Receiver<LinkState>, words: &str) -> String {
    match until(state, |state| matches!(state, LinkState::Down { why } if why.contains(words))).await {
        LinkState::Down { why } => why,
        LinkState::Up(_) => unreachable!(),
    }
}

/// Waits for something that nothing tells of: a counter, or what a handler noted.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) fn soon() -> Instant {
    Instant::now() + PATIENCE
}
