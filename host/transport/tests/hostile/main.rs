//! Bytes from strangers, and from whoever got as far as a hello.
//!
//! A test binary of its own: it looks at the memory of the whole process.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

#[allow(dead_code)]
#[path = "../network/node.rs"]
mod node;
#[allow(dead_code)]
#[path = "../network/proxy.rs"]
mod proxy;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use vouch_transport::{CertificateAuthority, PeerHandlers, PeerIdentity, PeerSecurity, Serve, Transport};

use node::{CLUSTER, Setup, eventually, listen, node, until_up};
use proxy::Proxy;

const ROUNDS: usize = 300;

struct Nothing;

impl Serve for Nothing {
    async fn serve(&self, _: PeerIdentity, request: bytes::Bytes, _: tokio::time::Instant) -> bytes::Bytes {
        panic!("a request of {} random bytes was believed", request.len())
    }
}

fn handlers() -> PeerHandlers {
    let refuses = |_, _, datagram: bytes::Bytes| panic!("{} random bytes were believed", datagram.len());
    PeerHandlers::default().group(refuses).calls(Nothing)
}

/// Bytes of memory that the process had at most.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Bytes that look right for a while: a magic, a length at its most, and noise.
fn noise(random: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0; random.random_range(1..3000)];
    random.fill_bytes(&mut bytes);
    let begins: [&[u8]; 5] =
        [b"", b"VOUCHHLO", b"VOUCHHLO\x01\0\xff\xff", b"VOUCHHLO\x01\0\x4a\x04", b"\x16\x03\x01\xff\xff\x01"];
    let begin = begins[random.random_range(0..begins.len())];
    let length = begin.len().min(bytes.len());
    bytes[..length].copy_from_slice(&begin[..length]);
    bytes
}

async fn throw(address: std::net::SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // It may be closed before it took everything.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut Vec::new())).await;
}

/// A hello that is let in, as it went over the wire.
async fn hello(two: &Transport, listener: std::net::SocketAddr, shard: Option<u32>) -> Vec<u8> {
    let (one, proxy) = (node(1), Proxy::before(listener).await);
    one.peers().set(2, &proxy.address);
    // One link only: the proxy remembers one connection.
    let (group, caller);
    let state = match shard {
        Some(shard) => {
            group = one.group(2, shard);
            group.watch()
        }
        None => {
            caller = one.caller(2);
            caller.watch()
        }
    };
    until_up(state).await;
    eventually("its hello went by", || proxy.said().len() >= 86).await;
    let said = proxy.said()[..86].to_vec();
    two.end_connections(1);
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_are_refused_and_take_no_memory() {
    let two = node(2);
    let listener = listen(&two, handlers()).await;
    let folder = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::create().unwrap();
    authority.issue(CLUSTER, 3, &[]).unwrap().save(folder.path()).unwrap();
    let file = |name: &str| folder.path().join(name);
    let security = PeerSecurity::Mutual {
        authority: file("authority.pem"),
        certificate: file("node.pem"),
        key: file("node-key.pem"),
    };
    let three = Setup { security, ..Setup::of(3) }.start();
    let secured = listen(&three, handlers()).await;
    let hellos = [hello(&two, listener.local_addr(), Some(7)).await, hello(&two, listener.local_addr(), None).await];

    let seed = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let before = peak();
    for round in 0..ROUNDS {
        let mut bytes = noise(&mut random);
        if round % 3 == 0 {
            // Known, and then noise: a header that says 64 MiB, for one.
            let mut all = hellos[round % 2].clone();
            if round % 2 == 0 && bytes.len() > 5 {
                bytes[..5].copy_from_slice(&[0, 0, 0, 4, 2]);
            }
            all.append(&mut bytes);
            bytes = all;
        }
        throw(listener.local_addr(), &bytes).await;
        throw(secured.local_addr(), &bytes).await;
    }
    let grown = peak() - before;
    // A frame that was believed would be 64 MiB alone.
    assert!(grown < 32 << 20, "{grown} bytes more, seed {seed}");
    eventually("all are counted", || two.refused() > 0 && three.refused() as usize >= ROUNDS).await;
    let damaged: u64 = two.counts().values().map(|counts| counts.bad_checksums).sum();
    assert!(damaged as usize >= ROUNDS / 4, "{damaged} frames were looked at, seed {seed}");
    // Both still serve.
    let one = node(1);
    one.peers().set(2, &listener.local_addr().to_string());
    until_up(one.group(2, 0).watch()).await;
}
