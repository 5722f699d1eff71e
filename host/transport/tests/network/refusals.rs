//! What the operator reads when two nodes do not belong together.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use vouch_transport::PeerIdentity;

use crate::group::collector;
use crate::node::{Known, Setup, eventually, identity, listen, node, until_down, until_up};
use crate::proxy::Proxy;

#[tokio::test]
async fn each_refusal_is_a_sentence_that_the_dialer_reads() {
    let mut setup = Setup::of(2);
    setup.known = Known(Some([1, 2, 3].into()).into()).into();
    let two = setup.start();
    let (handlers, mut received) = collector();
    let listener = listen(&two, handlers).await;
    let address = listener.local_addr().to_string();
    let right = identity(1);
    for (from, dials, words) in [
        (
            PeerIdentity { cluster: [9; 16], ..right },
            2,
            "belongs to cluster c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1, and you to cluster 0909",
        ),
        (
            PeerIdentity { cluster_incarnation: 2, ..right },
            2,
            "in incarnation 00000001 of the cluster, and you are in incarnation 00000002",
        ),
        (right, 3, "this is node 2, and node 3 is meant"),
        (identity(2), 2, "two nodes have one identity"),
        (identity(4), 2, "node 4 is no member of this cluster"),
    ] {
        let dialer = Setup { identity: from, ..Setup::of(1) }.start();
        dialer.peers().set(dials, &address);
        let link = dialer.group(dials, 0);
        let why = until_down(link.watch(), words).await;
        assert!(why.contains("it refuses: ") && why.contains(&address), "{why}");
        let counted =
            || dialer.counts().into_values().any(|counts| counts.last_error.is_some_and(|why| why.contains(words)));
        eventually("it is in the counters", counted).await;
    }
    eventually("all are counted", || two.refused() >= 5).await;
    assert!(two.counts().is_empty(), "who is refused makes no row");
    assert!(received.try_recv().is_err());
}

#[tokio::test]
async fn another_version_is_refused_with_a_sentence_that_it_can_read() {
    let (one, two) = (node(1), node(2));
    let (handlers, _received) = collector();
    let listener = listen(&two, handlers).await;
    let proxy = Proxy::before(listener.local_addr()).await;
    one.peers().set(2, &proxy.address);
    let link = one.group(2, 0);
    until_up(link.watch()).await;
    eventually("its hello went by", || proxy.said().len() >= 86).await;
    let mut hello = proxy.said()[..86].to_vec();
    drop(link);
    hello[8] = 9;
    let mut stream = TcpStream::connect(listener.local_addr()).await.unwrap();
    stream.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with(b"VOUCHANS\x01\0") && text.contains("speaks version 1"), "{text}");
    assert!(text.contains("you speak version 9"), "{text}");
}

#[tokio::test]
async fn what_answers_and_is_no_node_is_told_apart_from_silence() {
    let one = node(1);
    let stranger = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    one.peers().set(2, &stranger.local_addr().unwrap().to_string());
    let link = one.group(2, 0);
    let answers = async {
        while let Ok((mut stream, _)) = stranger.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    };
    tokio::select! {
        _ = until_down(link.watch(), "is no node of this version") => {}
        () = answers => unreachable!(),
    }
    one.peers().set(2, "no-such-host.invalid:1");
    until_down(link.watch(), "its name is not resolved").await;
    let mut silent = Setup::of(1);
    silent.timing.handshake = std::time::Duration::from_millis(100);
    let silent = silent.start();
    silent.peers().set(2, &stranger.local_addr().unwrap().to_string());
    until_down(silent.group(2, 0).watch(), "does not answer within 100ms").await;
}
