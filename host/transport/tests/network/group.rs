//! Datagrams: their order, and what damages them.

use std::sync::{Arc, Mutex};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;
use vouch_transport::{DialedBy, GroupLink, GroupNotSent, Lane, PeerHandlers, PeerIdentity};

use crate::node::{Setup, eventually, listen, node, until_down, until_up};
use crate::proxy::{Fault, From, Proxy, Rule};

pub(crate) type Received = mpsc::UnboundedReceiver<(PeerIdentity, u32, Bytes)>;

/// A handler that hands everything on to the test.
pub(crate) fn collector() -> (PeerHandlers, Received) {
    let (sender, received) = mpsc::unbounded_channel();
    let handlers = PeerHandlers::default().group(move |peer, shard, datagram| {
        let _ = sender.send((peer, shard, datagram));
    });
    (handlers, received)
}

/// Sends as soon as there is a connection.
pub(crate) async fn send(link: &GroupLink, datagram: &Bytes) {
    loop {
        until_up(link.watch()).await;
        if link.send(vec![datagram.clone()]).is_ok() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_is_kept_and_nothing_comes_twice_over_forced_reconnects() {
    let (one, two) = (node(1), node(2));
    let (handlers, mut received) = collector();
    let listener = listen(&two, handlers).await;
    let proxy = Proxy::before(listener.local_addr()).await;
    one.peers().set(2, &proxy.address);
    let link = one.group(2, 7);
    let sends = tokio::spawn(async move {
        // Some carry enough to be cut in the middle.
        for number in 0_u64.. {
            let padding = if number % 50 == 0 { 100_000 } else { number % 40 };
            let pieces = vec![Bytes::copy_from_slice(&number.to_le_bytes()), vec![7; padding as usize].into()];
            if link.send(pieces).is_err() {
                until_up(link.watch()).await;
            }
            if number % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    let (mut last, mut gaps, mut cuts) = (None, 0, 0);
    for count in 0.. {
        let (peer, shard, mut datagram) = received.recv().await.unwrap();
        let number = datagram.get_u64_le();
        let padding = if number % 50 == 0 { 100_000 } else { number % 40 };
        assert_eq!((peer.node, shard, datagram.len() as u64), (1, 7, padding));
        assert!(last.is_none_or(|last| last < number), "{number} after {last:?}");
        gaps += u64::from(last.is_some_and(|last| last + 1 < number));
        last = Some(number);
        if count % 300 == 299 {
            proxy.cut();
            cuts += 1;
        }
        if cuts > 30 {
            break;
        }
    }
    sends.abort();
    let counts = one.counts()[&(2, DialedBy::Us, Lane::Group(7))].clone();
    assert!(gaps > 0 && counts.connects > 10, "the cuts took nothing: {gaps} {counts:?}");
}

#[tokio::test]
async fn a_flipped_bit_ends_the_connection_and_nothing_of_its_frame_is_delivered() {
    let (one, two) = (node(1), node(2));
    let (handlers, mut received) = collector();
    let listener = listen(&two, handlers).await;
    let proxy = Proxy::before(listener.local_addr()).await;
    // Its length tells where what follows lies: hello, ping, datagram. The hello has a checksum of its own.
    let (hello, ping, header) = (86, 28, 28);
    let mut damaged = 0;
    for place in (hello..hello + ping + header + 40).step_by(5) {
        proxy.plan(Fault::Flip(From::Dialer, place));
        one.peers().set(2, &proxy.address);
        let link = one.group(2, place as u32);
        let sent = Bytes::from(vec![place as u8; 40]);
        // Again and again until the damage was met and one is through, as Raft does.
        let mut arrived = false;
        let counts = loop {
            send(&link, &sent).await;
            let received = tokio::time::timeout(std::time::Duration::from_millis(10), received.recv()).await;
            // One of an earlier round may still have been under way.
            if let Ok(Some((_, shard, datagram))) = received
                && shard == place as u32
            {
                assert_eq!(datagram, sent);
                arrived = true;
            }
            let counts = two.counts()[&(1, DialedBy::Peer, Lane::Group(place as u32))].clone();
            if arrived && counts.connects == 2 {
                break counts;
            }
        };
        damaged += counts.bad_checksums;
        assert_eq!(counts.bad_checksums, 1, "place {place}: {counts:?}");
        let said = || counts.last_error.clone().unwrap_or_default();
        assert!(said().contains("checksum"), "{}", said());
    }
    assert!(damaged > 15);
}

#[tokio::test]
async fn what_is_not_sent_is_told_and_counted() {
    let mut setup = Setup::of(1);
    setup.bounds.group_queue_bytes = 1000;
    setup.bounds.group_queue_frames = 10;
    let (one, two) = (setup.start(), node(2));
    let link = one.group(2, 0);
    assert_eq!(link.send(vec![]), Err(GroupNotSent::NotConnected));
    until_down(link.watch(), "no address of node 2 is known").await;
    let (handlers, mut received) = collector();
    let listener = listen(&two, handlers).await;
    one.peers().set(2, &listener.local_addr().to_string());
    until_up(link.watch()).await;
    // Nothing is written while this test does not wait: it runs on the same thread.
    let piece = |length: usize| vec![Bytes::from(vec![1; length])];
    assert_eq!(link.send(piece(1001)), Err(GroupNotSent::Full));
    assert_eq!(link.send(piece(1000)), Ok(()));
    assert_eq!(link.send(piece(1)), Err(GroupNotSent::Full));
    assert_eq!(link.send(vec![Bytes::from(vec![0; 64 << 20]), Bytes::from_static(b"x")]), Err(GroupNotSent::TooLong));
    assert_eq!(received.recv().await.unwrap().2.len(), 1000);
    eventually("the room is given back", || one.counts()[&(2, DialedBy::Us, Lane::Group(0))].frames_sent >= 1).await;
    for _ in 0..10 {
        assert_eq!(link.send(vec![]), Ok(()));
    }
    assert_eq!(link.send(vec![]), Err(GroupNotSent::Full), "ten are the most");
    assert_eq!(one.counts()[&(2, DialedBy::Us, Lane::Group(0))].dropped, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_does_not_read_holds_no_more_than_the_bounds() {
    const PIECE: usize = 1 << 20;
    let mut setup = Setup::of(1);
    setup.bounds.group_queue_bytes = 8 * PIECE;
    let (one, two) = (setup.start(), node(2));
    let gate = Arc::new(Mutex::new(()));
    let (handled, mut handles) = mpsc::unbounded_channel();
    let handlers = PeerHandlers::default().group({
        let gate = gate.clone();
        move |_, _, datagram| {
            let _ = handled.send(datagram[0]);
            drop(gate.lock());
        }
    });
    let listener = listen(&two, handlers).await;
    one.peers().set(2, &listener.local_addr().to_string());
    let link = one.group(2, 0);
    until_up(link.watch()).await;
    let taken = {
        let closed = gate.clone();
        let (tell, closed_now) = std::sync::mpsc::channel();
        let (open, opens) = std::sync::mpsc::channel::<()>();
        let holds = std::thread::spawn(move || {
            let _gate = closed.lock().unwrap();
            tell.send(()).unwrap();
            let _ = opens.recv();
        });
        closed_now.recv().unwrap();
        let mut taken = 0_u64;
        let key = (2, DialedBy::Us, Lane::Group(0));
        // Until nothing moves any more: the queue is full, and what the system takes is full behind it.
        let mut full_at = None;
        while full_at.is_none_or(|(sent, since): (u64, std::time::Instant)| {
            sent != one.counts()[&key].bytes_sent || since.elapsed().as_millis() < 300
        }) {
            match link.send(vec![Bytes::from(vec![taken as u8; PIECE])]) {
                Ok(()) => (taken, full_at) = (taken + 1, None),
                Err(GroupNotSent::Full) => {
                    let sent = one.counts()[&key].bytes_sent;
                    if full_at.is_none_or(|(before, _)| before != sent) {
                        full_at = Some((sent, std::time::Instant::now()));
                    }
                    tokio::task::yield_now().await;
                }
                Err(other) => panic!("{other}"),
            }
            assert!(taken < 200, "nothing holds the sender back");
        }
        let read = two.counts()[&(1, DialedBy::Peer, Lane::Group(0))].bytes_received;
        assert!(read <= 2 * (PIECE as u64 + 28), "{read} bytes are read and not handled");
        open.send(()).unwrap();
        holds.join().unwrap();
        taken
    };
    for number in 0..taken {
        assert_eq!(handles.recv().await.unwrap(), number as u8, "what was taken is delivered, in its order");
    }
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_found_out() {
    for (rule, side) in [(Rule::Swallow, From::Acceptor), (Rule::Swallow, From::Dialer), (Rule::Hold, From::Dialer)] {
        let mut setup = Setup::of(1);
        setup.timing.ping_every = std::time::Duration::from_millis(20);
        setup.timing.ping_answer = std::time::Duration::from_millis(500);
        let (one, two) = (setup.start(), node(2));
        let (handlers, _received) = collector();
        let listener = listen(&two, handlers).await;
        let proxy = Proxy::before(listener.local_addr()).await;
        one.peers().set(2, &proxy.address);
        let link = one.group(2, 0);
        until_up(link.watch()).await;
        proxy.rule(side, rule);
        until_down(link.watch(), "answers no keep-alive").await;
        proxy.rule(side, Rule::Pass);
        until_up(link.watch()).await;
    }
}

#[tokio::test]
async fn a_peer_that_reads_nothing_is_found_out_before_it_is_asked_whether_it_lives() {
    let mut setup = Setup::of(1);
    setup.timing.stall = std::time::Duration::from_millis(300);
    let (one, two) = (setup.start(), node(2));
    let (handlers, _received) = collector();
    let listener = listen(&two, handlers).await;
    let proxy = Proxy::before(listener.local_addr()).await;
    one.peers().set(2, &proxy.address);
    let link = one.group(2, 0);
    until_up(link.watch()).await;
    proxy.rule(From::Dialer, Rule::Hold);
    // More than all buffers on the way take.
    for _ in 0..60 {
        let _ = link.send(vec![Bytes::from(vec![0; 1 << 20])]);
    }
    until_down(link.watch(), "accepts no byte for 300ms").await;
    proxy.rule(From::Dialer, Rule::Pass);
    until_up(link.watch()).await;
}

/// The dialer is patient, and so only the acceptor can find out.
#[tokio::test]
async fn an_acceptor_that_hears_nothing_closes() {
    let mut setup = Setup::of(2);
    setup.timing.ping_every = std::time::Duration::from_millis(20);
    setup.timing.ping_answer = std::time::Duration::from_millis(300);
    let (one, two) = (node(1), setup.start());
    let (handlers, _received) = collector();
    let listener = listen(&two, handlers).await;
    let proxy = Proxy::before(listener.local_addr()).await;
    one.peers().set(2, &proxy.address);
    let link = one.group(2, 0);
    until_up(link.watch()).await;
    proxy.rule(From::Dialer, Rule::Swallow);
    until_down(link.watch(), "closed the connection").await;
    let told = || two.counts()[&(1, DialedBy::Peer, Lane::Group(0))].last_error.clone().unwrap_or_default();
    eventually("it says why", || told().contains("nothing was heard for 340ms")).await;
}
