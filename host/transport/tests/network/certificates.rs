//! Nodes that show each other certificates.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tempfile::TempDir;
use vouch_transport::{CertificateAuthority, PeerHandlers, PeerSecurity, SecurityError, Transport};

use crate::calls::Echo;
use crate::group::{collector, send};
use crate::node::{CLUSTER, Setup, listen, soon, until_down, until_up};

/// 2200 and 2025.
const LONG: u64 = 7_258_118_400;
const PAST: u64 = 1_735_689_600;

fn files(folder: &Path) -> PeerSecurity {
    PeerSecurity::Mutual {
        authority: folder.join("authority.pem"),
        certificate: folder.join("node.pem"),
        key: folder.join("node-key.pem"),
    }
}

/// The files of a node in a folder of their own.
fn issue(by: &CertificateAuthority, cluster: [u8; 16], node: u64, until: u64) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let until = UNIX_EPOCH + Duration::from_secs(until);
    by.issue_until(cluster, node, &["localhost", "127.0.0.1"], until).unwrap().save(folder.path()).unwrap();
    folder
}

fn start(node: u64, folder: &TempDir) -> Transport {
    Setup { security: files(folder.path()), ..Setup::of(node) }.start()
}

#[tokio::test]
async fn all_lanes_work_with_certificates() {
    let authority = CertificateAuthority::create().unwrap();
    let (first, second) = (issue(&authority, CLUSTER, 1, LONG), issue(&authority, CLUSTER, 2, LONG));
    let (one, two) = (start(1, &first), start(2, &second));
    let (tell, mut received) = tokio::sync::mpsc::unbounded_channel();
    let handlers = PeerHandlers::default()
        .group(move |_, _, datagram| drop(tell.send(datagram)))
        .calls(Echo::default())
        .files(crate::files::Endless::default());
    let listener = listen(&two, handlers).await;
    one.peers().set(2, &listener.local_addr().to_string());
    let (link, caller) = (one.group(2, 0), one.caller(2));
    let large = Bytes::from(vec![7; 3 << 20]);
    send(&link, &large).await;
    assert!(received.recv().await.unwrap() == large);
    until_up(caller.watch()).await;
    assert!(caller.call(vec![large.clone()], soon()).await.unwrap() == large);
    let mut pull = one.pull(2, "whole", 0, u64::MAX).await.unwrap();
    let mut length = 0;
    while let Some(chunk) = pull.next().await.unwrap() {
        length += chunk.len();
    }
    assert_eq!(length, 700_001);
}

/// Which certificate is wrong, whose it is, and what the dialer reads.
#[tokio::test]
async fn a_wrong_certificate_is_refused_with_a_sentence_on_either_side() {
    let (ours, other) = (CertificateAuthority::create().unwrap(), CertificateAuthority::create().unwrap());
    let right = |node| issue(&ours, CLUSTER, node, LONG);
    for (dialer, acceptor, words) in [
        (issue(&ours, CLUSTER, 3, LONG), right(2), "/node/3, and you say that you are node 1"),
        (issue(&ours, [9; 16], 1, LONG), right(2), "vouch://09090909090909090909090909090909/node/1, and you say"),
        (issue(&ours, CLUSTER, 1, PAST), right(2), "refuses our certificate, which is expired"),
        (right(1), issue(&ours, CLUSTER, 3, LONG), "/node/3: another node answers there"),
        (right(1), issue(&ours, [9; 16], 2, LONG), "is that of another cluster (vouch://0909"),
        (right(1), issue(&ours, CLUSTER, 2, PAST), "its certificate is expired"),
        (right(1), issue(&other, CLUSTER, 2, LONG), "not issued by the authority of this cluster"),
    ] {
        let (one, two) = (start(1, &dialer), start(2, &acceptor));
        let (handlers, mut received) = collector();
        let listener = listen(&two, handlers).await;
        one.peers().set(2, &listener.local_addr().to_string());
        let link = one.group(2, 0);
        until_down(link.watch(), words).await;
        assert!(link.send(vec![]).is_err() && received.try_recv().is_err());
    }
}

/// The dialer trusts the acceptor, and has its own certificate from elsewhere: only the acceptor can refuse.
#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_by_the_acceptor() {
    let (ours, other) = (CertificateAuthority::create().unwrap(), CertificateAuthority::create().unwrap());
    let (foreign, right) = (issue(&other, CLUSTER, 1, LONG), issue(&ours, CLUSTER, 2, LONG));
    fs::write(foreign.path().join("authority.pem"), ours.certificate()).unwrap();
    let (one, two) = (start(1, &foreign), start(2, &right));
    let (handlers, _received) = collector();
    let listener = listen(&two, handlers).await;
    one.peers().set(2, &listener.local_addr().to_string());
    until_down(one.group(2, 0).watch(), "refuses our certificate, which was not issued by the authority").await;
}

#[tokio::test]
async fn one_with_and_one_without_tls_say_that_the_setting_differs() {
    let authority = CertificateAuthority::create().unwrap();
    let folder = issue(&authority, CLUSTER, 1, LONG);
    let (with, without) = (start(1, &folder), Setup::of(2).start());
    let (handlers, _received) = collector();
    let (secured, plain) = (listen(&with, handlers.clone()).await, listen(&without, handlers).await);
    without.peers().set(1, &secured.local_addr().to_string());
    until_down(without.group(1, 0).watch(), "this node speaks TLS only: all nodes need the same setting").await;
    with.peers().set(2, &plain.local_addr().to_string());
    until_down(with.group(2, 0).watch(), "does not speak TLS").await;
}

#[tokio::test]
async fn files_are_read_again_when_it_is_said_and_all_or_nothing() {
    let authority = CertificateAuthority::create().unwrap();
    let (expired, second) = (issue(&authority, CLUSTER, 1, PAST), issue(&authority, CLUSTER, 2, LONG));
    let (one, two) = (start(1, &expired), start(2, &second));
    let (handlers, _received) = collector();
    let listener = listen(&two, handlers).await;
    one.peers().set(2, &listener.local_addr().to_string());
    let link = one.group(2, 0);
    until_down(link.watch(), "expired").await;
    let renewed = issue(&authority, CLUSTER, 1, LONG);
    fs::copy(renewed.path().join("node.pem"), expired.path().join("node.pem")).unwrap();
    let until = one.certificate_until().unwrap();
    assert!(until < SystemTime::now(), "{until:?}");
    let half = files(expired.path()).read().err().unwrap();
    assert!(matches!(half, SecurityError::Pair { .. }), "{half}");
    fs::copy(renewed.path().join("node-key.pem"), expired.path().join("node-key.pem")).unwrap();
    assert!(one.take_over_security(files(expired.path()).read().unwrap()));
    assert!(one.certificate_until().unwrap() > SystemTime::now());
    assert!(!one.take_over_security(files(expired.path()).read().unwrap()), "the same says nothing else");
    assert!(!one.take_over_security(PeerSecurity::Insecure.read().unwrap()), "what is secured stays so");
    until_up(link.watch()).await;
    fs::write(expired.path().join("authority.pem"), "").unwrap();
    let empty = files(expired.path()).read().err().unwrap().to_string();
    assert!(empty.contains("authority.pem") && empty.contains("no certificate in PEM form"), "{empty}");
    let missing = Setup { security: files(Path::new("/nowhere")), ..Setup::of(1) };
    let config = vouch_transport::TransportConfig {
        identity: missing.identity,
        security: missing.security,
        admission: missing.known,
        timing: missing.timing,
        bounds: missing.bounds,
    };
    assert!(matches!(Transport::new(config), Err(SecurityError::Read { .. })));
}
