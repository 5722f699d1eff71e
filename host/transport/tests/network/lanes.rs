//! Nothing big stands before something urgent.

use std::time::Duration;

use bytes::Bytes;
use vouch_transport::PeerHandlers;

use crate::calls::{Echo, request};
use crate::files::Endless;
use crate::group::send;
use crate::node::{Setup, listen, node, soon, until_up};
use crate::proxy::Proxy;

/// Order, not time: all datagrams arrive while a pull and a call of 16 MiB stand still in the middle.
#[tokio::test]
async fn datagrams_and_sessions_pass_a_stalled_pull_and_a_stalled_call() {
    let mut setup = Setup::of(1);
    // What stands still is not to be taken for dead.
    (setup.timing.stall, setup.timing.ping_answer) = (Duration::from_secs(600), Duration::from_secs(600));
    let (one, two, echo) = (setup.start(), node(2), Echo::default());
    let (tell, mut received) = tokio::sync::mpsc::unbounded_channel();
    let handlers = PeerHandlers::default()
        .group(move |_, shard, datagram| drop(tell.send((shard, datagram))))
        .calls(echo.clone())
        .sessions(echo.clone())
        .files(Endless::default());
    let listener = listen(&two, handlers).await;
    let proxy = Proxy::before(listener.local_addr()).await;
    one.peers().set(2, &proxy.address);
    let caller = one.caller(2);
    until_up(caller.watch()).await;
    // The call stands still in the network, and everything that is dialed from here on does not.
    proxy.freeze();
    let call = tokio::spawn(async move { caller.call(vec![vec![0; 16 << 20].into()], soon()).await });
    let mut pull = one.pull(2, "endless", 0, u64::MAX).await.unwrap();
    assert!(pull.next().await.unwrap().is_some());
    // Nobody asks for the next chunk: the sender stands still when the buffers between are full.
    let links = [one.group(2, 0), one.group(2, 1)];
    let sessions = one.session_caller(2);
    until_up(sessions.watch()).await;
    for number in 0..200_u32 {
        for link in &links {
            send(link, &Bytes::copy_from_slice(&number.to_le_bytes())).await;
        }
        let mut shards = Vec::new();
        for _ in &links {
            let (shard, datagram) = received.recv().await.unwrap();
            assert_eq!(datagram[..], number.to_le_bytes());
            shards.push(shard);
        }
        shards.sort_unstable();
        assert_eq!(shards, [0, 1]);
        assert_eq!(sessions.call(request("quick"), soon()).await.unwrap(), "quick");
    }
    assert!(!call.is_finished() && echo.seen.lock().unwrap().len() == 200, "the call stood still all the time");
    assert!(pull.next().await.unwrap().is_some(), "and the pull goes on when it is asked for more");
    proxy.thaw();
    assert_eq!(call.await.unwrap().unwrap().len(), 16 << 20);
}
