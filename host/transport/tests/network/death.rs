//! What a caller is told when a connection dies, at every point where it can die.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;
use vouch_transport::{CallFailed, Caller, PeerHandlers, PeerListener, Transport};

use crate::calls::Echo;
use crate::node::{eventually, listen, node, soon, until, until_up};
use crate::proxy::{Fault, From, Proxy, Rule};

/// Bytes of a hello without credential, of an answer to it, and of a header.
const HELLO: usize = 86;
const ANSWER: usize = 64;
const HEADER: usize = 28;
const REQUEST: usize = 30;
/// Calls on each connection.
const CALLS: usize = 4;

struct Scene {
    _one: Transport,
    caller: Caller,
    echo: Echo,
    proxy: Proxy,
    _listener: PeerListener,
}

async fn scene() -> Scene {
    let (one, two, echo) = (node(1), node(2), Echo::default());
    let listener = listen(&two, PeerHandlers::default().calls(echo.clone())).await;
    let proxy = Proxy::before(listener.local_addr()).await;
    one.peers().set(2, &proxy.address);
    let caller = one.caller(2);
    Scene { _one: one, caller, echo, proxy, _listener: listener }
}

/// Each request is another one, so that it is known which the handler saw.
fn named(name: u64, length: usize) -> Vec<Bytes> {
    let mut request = vec![b'.'; length];
    request[..8].copy_from_slice(&name.to_le_bytes());
    vec![request.into()]
}

fn seen(echo: &Echo) -> Vec<u64> {
    let seen = echo.seen.lock().unwrap();
    seen.iter().map(|request| u64::from_le_bytes(request[..8].try_into().unwrap())).collect()
}

#[tokio::test]
async fn what_is_not_sent_was_seen_by_no_handler_wherever_the_connection_is_cut() {
    let scene = scene().await;
    let (mut outcomes, mut calls) = ([0; 3], JoinSet::new());
    let (mut not_sent, mut answered, mut name) = (BTreeSet::new(), BTreeSet::new(), 0);
    let up = (0..HELLO + HEADER + CALLS * (HEADER + REQUEST) + 10).step_by(3).map(|at| (From::Dialer, at));
    let down = (0..ANSWER + HEADER + CALLS * (HEADER + REQUEST) + 10).step_by(3).map(|at| (From::Acceptor, at));
    for (side, at) in up.chain(down) {
        until_up(scene.caller.watch()).await;
        // The connection that is there makes way for the one that is cut.
        scene.proxy.plan(Fault::Cut(side, at));
        let before = scene.caller.watch();
        scene.proxy.cut();
        until(before, |state| !state.is_up()).await;
        let beyond_hello = if side == From::Dialer { at > HELLO } else { at > ANSWER };
        if beyond_hello {
            until_up(scene.caller.watch()).await;
        }
        for _ in 0..CALLS {
            name += 1;
            let (caller, name) = (scene.caller.clone(), name);
            calls.spawn(async move { (name, caller.call(named(name, REQUEST), soon()).await) });
        }
        while let Some(done) = calls.join_next().await {
            let (name, outcome) = done.unwrap();
            match outcome {
                Ok(answer) => {
                    assert_eq!(answer[..8], name.to_le_bytes());
                    answered.insert(name);
                    outcomes[0] += 1;
                }
                Err(CallFailed::NotSent(_) | CallFailed::NoRoom(_)) => {
                    not_sent.insert(name);
                    outcomes[1] += 1;
                }
                Err(CallFailed::Unknown(_)) => outcomes[2] += 1,
            }
        }
    }
    until_up(scene.caller.watch()).await;
    let saw = seen(&scene.echo);
    let once: BTreeSet<u64> = saw.iter().copied().collect();
    assert_eq!(once.len(), saw.len(), "none was seen twice");
    let lies: Vec<_> = not_sent.intersection(&once).collect();
    assert!(lies.is_empty(), "not sent, and seen: {lies:?}");
    assert!(answered.is_subset(&once));
    assert!(outcomes.into_iter().all(|count| count > 10), "each happened: {outcomes:?}");
}

/// The network holds everything: what is written already may arrive, what is queued behind it never does.
#[tokio::test]
async fn what_waited_until_its_deadline_never_arrives_later() {
    let scene = scene().await;
    until_up(scene.caller.watch()).await;
    scene.proxy.rule(From::Dialer, Rule::Hold);
    let mut calls = JoinSet::new();
    for name in 1..=12 {
        let caller = scene.caller.clone();
        let deadline = Instant::now() + Duration::from_millis(1500);
        // More than all buffers between take.
        calls.spawn(async move { (name, caller.call(named(name, 8 << 20), deadline).await) });
    }
    let (mut queued, mut sent) = (BTreeSet::new(), BTreeSet::new());
    while let Some(done) = calls.join_next().await {
        match done.unwrap() {
            (name, Err(CallFailed::NotSent(why) | CallFailed::NoRoom(why))) => {
                assert!(why.contains("deadline passed before it was its turn"), "{why}");
                queued.insert(name);
            }
            (name, Err(CallFailed::Unknown(_))) => drop(sent.insert(name)),
            (name, Ok(_)) => panic!("{name} was answered through a network that holds"),
        }
    }
    assert!(!queued.is_empty() && !sent.is_empty(), "{queued:?} {sent:?}");
    scene.proxy.rule(From::Dialer, Rule::Pass);
    until_up(scene.caller.watch()).await;
    let answer = scene.caller.call(named(99, 10), soon()).await.unwrap();
    assert_eq!(answer[..8], 99_u64.to_le_bytes());
    let saw: BTreeSet<u64> = seen(&scene.echo).into_iter().collect();
    assert!(saw.is_disjoint(&queued), "{saw:?} of {queued:?}");
}

/// The handler did it, and only its answer is lost.
#[tokio::test]
async fn what_was_done_and_not_answered_is_unknown() {
    let scene = scene().await;
    until_up(scene.caller.watch()).await;
    scene.proxy.rule(From::Acceptor, Rule::Swallow);
    let call = tokio::spawn({
        let caller = scene.caller.clone();
        async move { caller.call(named(1, 10), soon()).await }
    });
    eventually("the handler sees it", || seen(&scene.echo) == [1]).await;
    scene.proxy.cut();
    assert!(matches!(call.await.unwrap(), Err(CallFailed::Unknown(_))));
}

/// A caller that gives up while its request is queued takes it back.
#[tokio::test]
async fn what_was_dropped_while_it_was_queued_is_never_sent() {
    let scene = scene().await;
    until_up(scene.caller.watch()).await;
    {
        // Nothing is written while this test does not wait: it runs on the same thread.
        let call = scene.caller.call(named(1, 10), soon());
        let mut call = std::pin::pin!(call);
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx).is_pending())).await;
        assert!(polled);
    }
    assert!(scene.caller.call(named(2, 10), soon()).await.is_ok());
    assert_eq!(seen(&scene.echo), [2]);
}
