//! A proxy that does to connections what a bad network does.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// From whom bytes come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Dialer,
    Acceptor,
}

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Pass,
    /// They wait in the proxy, and in the buffers before it.
    Hold,
    /// They vanish.
    Swallow,
}

/// What is done once, to one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    None,
    /// The connection ends behind so many bytes, both ways.
    Cut(From, usize),
    /// One bit of the byte at this place is flipped.
    Flip(From, usize),
}

struct Shared {
    target: Mutex<SocketAddr>,
    dialer: watch::Sender<Rule>,
    acceptor: watch::Sender<Rule>,
    /// The connections with numbers up to this stand still, both ways.
    frozen: watch::Sender<u64>,
    /// How many connections were made.
    made: AtomicU64,
    /// How often connections were cut.
    cuts: watch::Sender<u64>,
    /// For the next connections, each one.
    faults: Mutex<VecDeque<Fault>>,
    /// What dialers sent, of the last connection.
    said: Mutex<Vec<u8>>,
}

/// A proxy in front of one address.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) address: String,
    shared: Arc<Shared>,
}

impl Proxy {
    pub(crate) async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let rule = || watch::channel(Rule::Pass).0;
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            dialer: rule(),
            acceptor: rule(),
            frozen: watch::channel(0).0,
            made: AtomicU64::new(0),
            cuts: watch::channel(0).0,
            faults: Mutex::default(),
            said: Mutex::default(),
        });
        tokio::spawn(accept(listener, shared.clone()));
        Self { address, shared }
    }

    /// What becomes of the bytes of one side, from now on.
    pub(crate) fn rule(&self, from: From, rule: Rule) {
        let side = if from == From::Dialer { &self.shared.dialer } else { &self.shared.acceptor };
        side.send_replace(rule);
    }

    /// Lets the connections that are there stand still; later ones are not touched.
    pub(crate) fn freeze(&self) {
        self.shared.frozen.send_replace(self.shared.made.load(Relaxed));
    }

    /// Lets all go on.
    pub(crate) fn thaw(&self) {
        self.shared.frozen.send_replace(0);
    }

    /// Ends all connections, and what is in them is lost.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Does this to the next connection that has nothing planned yet.
    pub(crate) fn plan(&self, fault: Fault) {
        self.shared.faults.lock().unwrap().push_back(fault);
    }

    /// What the dialer of the last connection sent.
    pub(crate) fn said(&self) -> Vec<u8> {
        self.shared.said.lock().unwrap().clone()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((dialer, _)) = listener.accept().await {
        let fault = shared.faults.lock().unwrap().pop_front().unwrap_or(Fault::None);
        shared.said.lock().unwrap().clear();
        tokio::spawn(carry(dialer, shared.clone(), fault));
    }
}

async fn carry(dialer: TcpStream, shared: Arc<Shared>, fault: Fault) {
    let number = shared.made.fetch_add(1, Relaxed) + 1;
    let mut cuts = shared.cuts.subscribe();
    let target = *shared.target.lock().unwrap();
    let Ok(acceptor) = TcpStream::connect(target).await else { return };
    let (from_dialer, to_dialer) = dialer.into_split();
    let (from_acceptor, to_acceptor) = acceptor.into_split();
    let up = pump(from_dialer, to_acceptor, (From::Dialer, number), &shared, fault);
    let down = pump(from_acceptor, to_dialer, (From::Acceptor, number), &shared, fault);
    tokio::select! {
        _ = cuts.changed() => {}
        // Whoever closes closes both ways, once what it sent is through.
        () = up => {}
        () = down => {}
    }
}

async fn pump(
    mut read: OwnedReadHalf,
    mut write: OwnedWriteHalf,
    (from, number): (From, u64),
    shared: &Shared,
    fault: Fault,
) {
    let mut frozen = shared.frozen.subscribe();
    let mut rule = if from == From::Dialer { &shared.dialer } else { &shared.acceptor }.subscribe();
    let (mut buffer, mut passed) = (vec![0; 16 << 10], 0);
    let cut = match fault {
        Fault::Cut(side, at) if side == from => at,
        _ => usize::MAX,
    };
    while passed < cut {
        let _ = rule.wait_for(|rule| *rule != Rule::Hold).await;
        let most = buffer.len().min(cut - passed);
        let Ok(length @ 1..) = read.read(&mut buffer[..most]).await else { return };
        let _ = frozen.wait_for(|frozen| *frozen < number).await;
        let Ok(now) = rule.wait_for(|rule| *rule != Rule::Hold).await.map(|rule| *rule) else { return };
        let bytes = &mut buffer[..length];
        if let Fault::Flip(side, at) = fault
            && side == from
            && (passed..passed + length).contains(&at)
        {
            bytes[at - passed] ^= 0x10;
        }
        passed += length;
        if from == From::Dialer {
            shared.said.lock().unwrap().extend_from_slice(bytes);
        }
        if now == Rule::Pass && write.write_all(bytes).await.is_err() {
            return;
        }
    }
}
