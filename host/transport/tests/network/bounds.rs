//! How much there may be at once.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use vouch_transport::{CallFailed, DialedBy, Lane, PeerHandlers};

use crate::calls::{Echo, request};
use crate::group::collector;
use crate::node::{PATIENCE, Setup, eventually, listen, node, soon, until_down, until_up};

fn is_busy(outcome: &Result<Bytes, CallFailed>, words: &str) -> bool {
    matches!(outcome, Err(CallFailed::NoRoom(why)) if why.contains(words))
}

/// Both sides, each of which is made the narrower one: calls at once, and bytes of them.
#[tokio::test]
async fn calls_over_the_bound_of_either_side_are_not_sent_and_say_that_it_is_busy() {
    for (narrow, words) in [(1, "under way here"), (2, "under way there")] {
        for (count, bytes) in [(2, 1000), (100, 8)] {
            let (mut one, mut two) = (Setup::of(1), Setup::of(2));
            let bounds = if narrow == 1 { &mut one.bounds } else { &mut two.bounds };
            (bounds.peer_calls, bounds.peer_calls_bytes) = (count, bytes);
            let (one, two, echo) = (one.start(), two.start(), Echo::default());
            let listener = listen(&two, PeerHandlers::default().calls(echo.clone())).await;
            one.peers().set(2, &listener.local_addr().to_string());
            let caller = one.caller(2);
            until_up(caller.watch()).await;
            let waiting: Vec<_> = (1..=2)
                .map(|_| {
                    let caller = caller.clone();
                    tokio::spawn(async move { caller.call(request("wait"), soon()).await })
                })
                .collect();
            eventually("two are under way", || echo.seen.lock().unwrap().len() == 2).await;
            let third = caller.call(request("x"), soon()).await;
            assert!(is_busy(&third, words), "{narrow} {count} {bytes}: {third:?}");
            for (number, waits) in waiting.into_iter().enumerate() {
                echo.go.notify_one();
                assert_eq!(waits.await.unwrap().unwrap(), "wait", "{number}");
            }
            // What was answered makes room, as soon as the other end has written its answer.
            let again = async { while caller.call(request("x"), soon()).await.is_err() {} };
            timeout(PATIENCE, again).await.unwrap();
            assert!(echo.seen.lock().unwrap().iter().filter(|seen| *seen == "x").count() == 1);
        }
    }
}

#[tokio::test]
async fn a_lane_that_nobody_handles_is_closed_and_a_connection_too_many_is_refused() {
    let mut setup = Setup::of(2);
    setup.bounds.peer_connections = 2;
    let (one, two) = (node(1), setup.start());
    let (handlers, _received) = collector();
    let listener = listen(&two, handlers).await;
    one.peers().set(2, &listener.local_addr().to_string());
    let links = [one.group(2, 0), one.group(2, 1)];
    for link in &links {
        until_up(link.watch()).await;
    }
    let third = one.group(2, 2);
    until_down(third.watch(), "node 1 has 2 connections here already, which is the most").await;
    let [first, _second] = links;
    drop(first);
    until_up(third.watch()).await;
    drop(third);
    let caller = one.caller(2);
    until_down(caller.watch(), "closed the connection").await;
    let told = || two.counts()[&(1, DialedBy::Peer, Lane::Calls)].last_error.clone().unwrap_or_default();
    eventually("it says why", || told() == "nobody handles the lane calls here").await;
}

/// Whoever says nothing has a few seconds, and only so many may say nothing at once.
#[tokio::test]
async fn strangers_are_few_and_leave_soon() {
    let mut setup = Setup::of(2);
    setup.bounds.strangers = 2;
    setup.timing.handshake = Duration::from_millis(300);
    let (one, two) = (node(1), setup.start());
    let (handlers, _received) = collector();
    let listener = listen(&two, handlers).await;
    let address = listener.local_addr();
    let mut silent = Vec::new();
    for _ in 0..6 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"VOUCH").await.unwrap();
        silent.push(stream);
    }
    // The peers get their turn.
    one.peers().set(2, &address.to_string());
    let link = one.group(2, 0);
    until_up(link.watch()).await;
    let refused = two.refused();
    assert!(refused >= 4, "those before it were closed, two at a time: {refused}");
    for mut stream in silent {
        let mut rest = Vec::new();
        // Closed or reset: over either way.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.is_empty());
    }
    assert!(link.state().is_up(), "who is known stays");
    // Who is known is no stranger any more, and makes room for the next.
    let more: Vec<_> = (1..6).map(|shard| one.group(2, shard)).collect();
    for link in more {
        until_up(link.watch()).await;
    }
}

/// Of answers that nobody takes, no more than the bound is kept; those behind them come all the same.
#[tokio::test]
async fn answers_that_wait_for_their_callers_are_bounded() {
    let mut setup = Setup::of(1);
    setup.bounds.answers_bytes = 100;
    let (one, two, echo) = (setup.start(), node(2), Echo::default());
    let listener = listen(&two, PeerHandlers::default().calls(echo.clone())).await;
    one.peers().set(2, &listener.local_addr().to_string());
    let caller = one.caller(2);
    until_up(caller.watch()).await;
    let large = || vec![Bytes::from(vec![b'x'; 101])];
    let failed = caller.call(large(), soon()).await.unwrap_err();
    assert!(matches!(&failed, CallFailed::Unknown(why) if why.contains("no room for its answer")), "{failed}");
    assert_eq!(caller.call(vec![Bytes::from(vec![b'x'; 100])], soon()).await.unwrap().len(), 100);
}

/// Of large datagrams of one peer so many bytes are read and not handled, on all its connections; small ones pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_large_datagram_waits_until_another_of_its_peer_is_handled_and_small_ones_do_not() {
    let mut setup = Setup::of(2);
    // It is made the least that works: one frame.
    setup.bounds.group_received_bytes = 0;
    let (one, two) = (node(1), setup.start());
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let handlers = PeerHandlers::default().group(move |_, shard, datagram| {
        let _ = tell.send((shard, datagram.len()));
        if shard == 0 {
            let _ = gone.lock().unwrap().recv();
        }
    });
    let listener = listen(&two, handlers).await;
    one.peers().set(2, &listener.local_addr().to_string());
    let links = [0, 1, 2].map(|shard| one.group(2, shard));
    let large = Bytes::from(vec![0; 40 << 20]);
    crate::group::send(&links[0], &large).await;
    assert_eq!(told.recv().await, Some((0, 40 << 20)));
    crate::group::send(&links[1], &large).await;
    // As much of it as the buffers on the way take is under way now, and stays there.
    for _ in 0..50 {
        crate::group::send(&links[2], &Bytes::from_static(b"small")).await;
        assert_eq!(told.recv().await, Some((2, 5)));
    }
    let read = || two.counts()[&(1, DialedBy::Peer, Lane::Group(1))].bytes_received;
    assert!(read() < 1000, "it was read: {}", read());
    go.send(()).unwrap();
    assert_eq!(told.recv().await, Some((1, 40 << 20)));
}
