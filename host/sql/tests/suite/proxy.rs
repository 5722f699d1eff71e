//! Stands between a client and a server, and misbehaves at a given word.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// What happens when the client says the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// The connection is cut before the server hears it.
    CutBefore,
    /// The server hears it and answers, but the connection is cut instead of the answer passed on.
    CutAfter,
    /// Nothing goes on any more, in neither direction.
    Silence,
}

/// A proxy, for as long as the test runs.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    armed: Arc<AtomicBool>,
}

impl Proxy {
    /// Passes everything on until it is armed; then the mishap happens at this word, whatever its case.
    pub(crate) async fn start(to: u16, word: &'static str, mishap: Mishap) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let armed = Arc::new(AtomicBool::new(false));
        let proxy = Self { port, armed: Arc::clone(&armed) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let armed = Arc::clone(&armed);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await {
                        pass_on(client, server, word, mishap, &armed).await;
                    }
                });
            }
        });
        proxy
    }

    /// From now on the word is waited for; what happened once does not happen again.
    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }
}

async fn pass_on(mut client: TcpStream, mut server: TcpStream, word: &str, mishap: Mishap, armed: &AtomicBool) {
    let (mut from_client, mut from_server) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(length @ 1..) = read else { return };
                let said = &from_client[..length];
                let is_said = said.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()));
                if is_said && armed.swap(false, Ordering::SeqCst) {
                    match mishap {
                        Mishap::CutBefore => return,
                        Mishap::CutAfter => {
                            let _ = server.write_all(said).await;
                            // It does all that it heard before it sees that nothing more comes, and closes.
                            let _ = server.shutdown().await;
                            while server.read(&mut from_server).await.is_ok_and(|length| length > 0) {}
                            return;
                        }
                        Mishap::Silence => std::future::pending::<()>().await,
                    }
                }
                if server.write_all(said).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&from_server[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
