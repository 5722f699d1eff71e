//! Accepting connections, also when the system has no descriptor for one.
//!
//! A process that has no descriptor left must not stop listening, and must not spin either: each refusal is followed by
//! a pause, and a few descriptors are kept to be given up for probes.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

/// Pause after the system refuses a connection: trying at once would spin.
const PAUSE: Duration = Duration::from_millis(100);
/// At most so often is the same thing told about connections.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Tells of something that may happen thousands of times a second.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    told: Option<Instant>,
    times: u64,
}

impl Seldom {
    /// Calls `tell` with how often it happened since it was told last, if that is long ago.
    pub(crate) fn tell(&mut self, tell: impl FnOnce(u64)) {
        self.times += 1;
        let now = Instant::now();
        if self.told.is_none_or(|told| now - told >= TOLD_EVERY) {
            self.told = Some(now);
            tell(std::mem::take(&mut self.times));
        }
    }
}

/// The listening side of a port. Refusals of the system end nothing: they are tried again after a pause.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: TcpListener,
    /// For log lines.
    port: &'static str,
    /// Descriptors that are given up for connections when the process has no other left.
    spares: Vec<File>,
    spares_max: usize,
    resumes: Option<Instant>,
    refused: Seldom,
}

/// A connection, and whether it has the descriptor of a spare.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The connection.
    pub(crate) stream: TcpStream,
    /// Who connected.
    pub(crate) peer: SocketAddr,
    /// The process has no descriptors left: let it go soon.
    pub(crate) scarce: bool,
}

impl Acceptor {
    /// Keeps `spares` descriptors for a time without any.
    pub(crate) fn new(listener: TcpListener, port: &'static str, spares: usize) -> Self {
        let mut acceptor =
            Self { listener, port, spares: Vec::new(), spares_max: spares, resumes: None, refused: Seldom::default() };
        acceptor.keep_spares();
        acceptor
    }

    /// The next connection. `scarce` is called when there is no descriptor for one: it may let one go. Nothing is lost when
    /// this is dropped while it waits.
    pub(crate) async fn next(&mut self, mut scarce: impl FnMut()) -> Accepted {
        loop {
            if let Some(resumes) = self.resumes {
                sleep_until(resumes).await;
                self.resumes = None;
            }
            self.keep_spares();
            match self.listener.accept().await {
                Ok((stream, peer)) => return Accepted { stream, peer, scarce: self.spares.len() < self.spares_max },
                Err(error) if concerns_one(&error) => {}
                Err(error) => {
                    self.refused.tell(|times| {
                        tracing::warn!(%error, times, "connections to the {} port wait: the system refuses them", self.port);
                    });
                    if !is_scarcity(&error) {
                        self.resumes = Some(Instant::now() + PAUSE);
                    } else if self.spares.pop().is_some() {
                        // Its descriptor is free now, and the connection at the front gets it, unless somebody was faster.
                        if let Ok((stream, peer)) = self.listener.accept().await {
                            return Accepted { stream, peer, scarce: true };
                        }
                        self.resumes = Some(Instant::now() + PAUSE);
                    } else {
                        scarce();
                        self.resumes = Some(Instant::now() + PAUSE);
                    }
                }
            }
        }
    }

    /// Takes as many spares as are missing and can be had. They are files that say nothing and cost one descriptor
    /// each.
    fn keep_spares(&mut self) {
        while self.spares.len() < self.spares_max {
            let Ok(spare) = File::open("/dev/null") else { return };
            self.spares.push(spare);
        }
    }
}

/// The error is that of one connection, which is gone; the next one may be fine.
fn concerns_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// No descriptor is left, of this process or of the system.
fn is_scarcity(error: &io::Error) -> bool {
    // The same numbers on every Linux.
    /// The whole system has none.
    const ENFILE: i32 = 23;
    /// This process may have no more.
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net;
    use std::process::{Child, Command, Stdio};

    use super::*;

    const CHILD: &str = "ACCEPTS_WITHOUT_DESCRIPTORS";

    /// This test again, as a process that has used up its descriptors. It answers each connection, and lets its descriptors
    /// go when it is told to.
    fn child(spares: usize) -> (Child, String) {
        let mut child = Command::new("bash")
            .args(["-c", "ulimit -n 64 && exec \"$0\" --exact accept::tests::without_descriptors --nocapture"])
            .arg(std::env::current_exe().unwrap())
            .env(CHILD, spares.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("at ").map(str::to_owned));
        (child, address.unwrap())
    }

    async fn run_child(spares: usize) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut acceptor = Acceptor::new(listener, "test", spares);
        let (released, mut release) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || released.send(std::io::stdin().read(&mut [0])));
        let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        println!("at {address}");
        loop {
            tokio::select! {
                accepted = acceptor.next(|| ()) => {
                    let mut stream = accepted.stream.into_std().unwrap();
                    stream.set_nonblocking(false).unwrap();
                    let _ = stream.write_all(if accepted.scarce { b"scarce" } else { b"plenty" });
                }
                _ = &mut release, if !taken.is_empty() => taken.clear(),
            }
        }
    }

    fn ask(address: &str) -> String {
        let mut answer = String::new();
        let mut stream = net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Clock ticks that the process computed.
    fn ticks(child: &Child) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    #[test]
    fn without_descriptors() {
        if let Ok(spares) = std::env::var(CHILD) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run_child(spares.parse().unwrap()));
        }
        // With spares each connection is answered at once, one after the other.
        let (mut child, address) = self::child(2);
        for _ in 0..5 {
            assert_eq!(ask(&address), "scarce");
        }
        child.stdin.take().unwrap().write_all(b"x").unwrap();
        while ask(&address) != "plenty" {}
        child.kill().unwrap();
        child.wait().unwrap();
        // Without, it waits until there is one, and the process does not spin meanwhile.
        let (mut child, address) = self::child(0);
        let waits = std::thread::spawn(move || ask(&address));
        let before = ticks(&child);
        std::thread::sleep(Duration::from_secs(1));
        assert!(ticks(&child) - before < 20, "a fifth of a second computed in one second of waiting");
        assert!(!waits.is_finished());
        child.stdin.take().unwrap().write_all(b"x").unwrap();
        assert_eq!(waits.join().unwrap(), "plenty");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
