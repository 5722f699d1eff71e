//! Nodes that move, are removed, and live again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vouch_transport::{DialedBy, Lane, PeerHandlers};

use crate::group::{collector, send};
use crate::node::{Known, Setup, eventually, identity, listen, node, until, until_down, until_up};
use crate::proxy::{From, Proxy, Rule};

#[tokio::test]
async fn an_address_that_changes_is_dialed_at_once_and_the_old_connection_ends() {
    let mut setup = Setup::of(1);
    // Whoever waited for the pause would not be done in time.
    (setup.timing.backoff_min, setup.timing.backoff_max) = (Duration::from_secs(600), Duration::from_secs(600));
    let one = setup.start();
    let (handlers, mut received) = collector();
    let (old, new) = (node(2), node(2));
    let (first, second) = (listen(&old, handlers.clone()).await, listen(&new, handlers).await);
    let link = one.group(2, 0);
    // Nobody is there: the pause begins.
    one.peers().set(2, "127.0.0.1:1");
    until_down(link.watch(), "it is not reached").await;
    one.peers().set(2, &first.local_addr().to_string());
    let before = until_up(link.watch()).await;
    one.peers().set(2, &second.local_addr().to_string());
    let after = until(link.watch(), |state| state.is_up() && *state != vouch_transport::LinkState::Up(before)).await;
    assert!(after.is_up());
    send(&link, &Bytes::from_static(b"moved")).await;
    assert_eq!(received.recv().await.unwrap().2, "moved");
    eventually("the old connection ends", || old.counts()[&(1, DialedBy::Peer, Lane::Group(0))].connected == 0).await;
    let counts = one.counts()[&(2, DialedBy::Us, Lane::Group(0))].clone();
    assert_eq!((counts.connects, counts.connected), (2, 1));
}

#[tokio::test]
async fn the_connections_of_a_removed_node_end_and_it_does_not_come_back() {
    let (one, mut setup) = (node(1), Setup::of(2));
    let known = Arc::new(Known(Some(BTreeSet::from([1])).into()));
    setup.known = known.clone();
    let two = setup.start();
    let (handlers, _received) = collector();
    let listener = listen(&two, handlers).await;
    one.peers().set(2, &listener.local_addr().to_string());
    let (link, caller) = (one.group(2, 0), one.caller(2));
    until_up(link.watch()).await;
    until_down(caller.watch(), "closed the connection").await;
    *known.0.lock().unwrap() = Some(BTreeSet::new());
    two.remove_peer(1);
    until_down(link.watch(), "node 1 is no member of this cluster").await;
    until_down(caller.watch(), "node 1 is no member of this cluster").await;
    eventually("its rows are gone", || two.counts().keys().all(|(node, ..)| *node != 1)).await;
    // It is added again, and the links are up again by themselves.
    *known.0.lock().unwrap() = Some(BTreeSet::from([1]));
    until_up(link.watch()).await;
}

#[tokio::test]
async fn a_node_that_joins_is_let_in_by_its_token_and_may_not_know_who_answers() {
    let (one, mut setup) = (node(1), Setup::of(2));
    setup.known = Arc::new(Known(Some(BTreeSet::new()).into()));
    let two = setup.start();
    let (handlers, _received) = collector();
    let listener = listen(&two, handlers).await;
    one.peers().set(vouch_transport::ANY_NODE, &listener.local_addr().to_string());
    let link = one.group(vouch_transport::ANY_NODE, 0);
    until_down(link.watch(), "no member").await;
    assert!(one.set_credential(vec![0; 1025].into()).is_err());
    one.set_credential(Bytes::from_static(b"a good token")).unwrap();
    assert_eq!(until_up(link.watch()).await.node, 2, "the answer says who it is");
}

#[tokio::test]
async fn a_new_life_of_the_acceptor_is_told_by_its_incarnation() {
    let one = node(1);
    let (handlers, _received) = collector();
    let first = Setup::of(2);
    let before = first.identity;
    let first = first.start();
    let listener = listen(&first, handlers.clone()).await;
    let address = listener.local_addr().to_string();
    one.peers().set(2, &address);
    let link = one.group(2, 0);
    assert_eq!(until_up(link.watch()).await, before);
    listener.stop().await;
    until(link.watch(), |state| !state.is_up()).await;
    let second = Setup::of(2);
    let after = second.identity;
    let second = second.start();
    let _listener = second.listen(&address, handlers).await.unwrap();
    assert_eq!(until_up(link.watch()).await, after);
}

/// What the earlier life sent waits in the network, and is let go when the later one was heard.
#[tokio::test]
async fn what_an_earlier_life_sent_is_not_delivered_after_a_word_of_the_later() {
    let two = node(2);
    let (handlers, mut received) = collector();
    let listener = listen(&two, handlers).await;
    let proxy = Proxy::before(listener.local_addr()).await;
    let (earlier, later) = (node(1), node(1));
    earlier.peers().set(2, &proxy.address);
    let old_link = earlier.group(2, 0);
    send(&old_link, &Bytes::from_static(b"early")).await;
    assert_eq!(received.recv().await.unwrap().2, "early");
    proxy.rule(From::Dialer, Rule::Hold);
    for _ in 0..10 {
        old_link.send(vec![Bytes::from_static(b"stale")]).unwrap();
    }
    let sent = || earlier.counts()[&(2, DialedBy::Us, Lane::Group(0))].frames_sent > 11;
    eventually("it is under way", sent).await;
    later.peers().set(2, &listener.local_addr().to_string());
    // The later life comes on another lane, and ends the earlier one's all the same.
    let new_link = later.group(2, 1);
    send(&new_link, &Bytes::from_static(b"late")).await;
    assert_eq!(received.recv().await.unwrap().2, "late");
    earlier.peers().set(2, "127.0.0.1:1");
    proxy.rule(From::Dialer, Rule::Pass);
    for _ in 0..20 {
        send(&new_link, &Bytes::from_static(b"late")).await;
        assert_eq!(received.recv().await.unwrap().2, "late");
    }
    assert_eq!(two.counts()[&(1, DialedBy::Peer, Lane::Group(0))].connected, 0);
}

#[tokio::test]
async fn when_a_listener_stops_nothing_of_it_runs_and_links_that_nobody_has_end() {
    let (one, two) = (node(1), node(2));
    let _ = identity(1);
    let alive = Arc::new(());
    let held = alive.clone();
    let handlers = PeerHandlers::default().group(move |_, _, _| drop(held.clone()));
    let listener = listen(&two, handlers).await;
    one.peers().set(2, &listener.local_addr().to_string());
    let (link, copy) = (one.group(2, 0), one.group(2, 0));
    until_up(link.watch()).await;
    assert_eq!(one.counts()[&(2, DialedBy::Us, Lane::Group(0))].connected, 1, "both are one link");
    drop(link);
    send(&copy, &Bytes::from_static(b"still there")).await;
    let mut state = copy.watch();
    drop(copy);
    let ended = async { while state.changed().await.is_ok() {} };
    tokio::time::timeout(crate::node::PATIENCE, ended).await.unwrap();
    eventually("the peer hears of it", || two.counts()[&(1, DialedBy::Peer, Lane::Group(0))].connected == 0).await;
    let again = one.group(2, 1);
    until_up(again.watch()).await;
    listener.stop().await;
    assert_eq!(Arc::strong_count(&alive), 1, "the handlers are dropped");
}
