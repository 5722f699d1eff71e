//! Calls: answers in any order, deadlines, cancels.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use vouch_transport::{CallFailed, Caller, PeerHandlers, PeerIdentity, PeerListener, Serve, Transport};

use crate::node::{PATIENCE, eventually, listen, node, soon, until_up};

/// Answers each request with itself; some wait, some panic, some answer too much.
#[derive(Clone, Default)]
pub(crate) struct Echo {
    /// What it saw, in order.
    pub(crate) seen: Arc<Mutex<Vec<Bytes>>>,
    /// Requests that begin with `wait` wait for this.
    pub(crate) go: Arc<Notify>,
    /// How many were dropped while they waited.
    pub(crate) dropped: Arc<Mutex<usize>>,
    pub(crate) deadlines: Arc<Mutex<Vec<Instant>>>,
}

struct CountsDrop(Arc<Mutex<usize>>, bool);

impl Drop for CountsDrop {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += usize::from(self.1);
    }
}

impl Serve for Echo {
    async fn serve(&self, from: PeerIdentity, request: Bytes, deadline: Instant) -> Bytes {
        assert_eq!(from.node, 1);
        self.seen.lock().unwrap().push(request.clone());
        self.deadlines.lock().unwrap().push(deadline);
        if request.starts_with(b"wait") {
            let mut counts = CountsDrop(self.dropped.clone(), true);
            self.go.notified().await;
            counts.1 = false;
        }
        assert!(!request.starts_with(b"panic"), "as it was asked to");
        if request.starts_with(b"too much") {
            return vec![0; (64 << 20) + 1].into();
        }
        request
    }
}

/// A node that calls, and one that answers, on both lanes.
pub(crate) async fn pair() -> (Transport, Caller, Echo, PeerListener) {
    let (one, two, echo) = (node(1), node(2), Echo::default());
    let listener = listen(&two, PeerHandlers::default().calls(echo.clone()).sessions(echo.clone())).await;
    one.peers().set(2, &listener.local_addr().to_string());
    let caller = one.caller(2);
    until_up(caller.watch()).await;
    (one, caller, echo, listener)
}

pub(crate) fn request(text: &str) -> Vec<Bytes> {
    vec![Bytes::copy_from_slice(text.as_bytes())]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_get_their_own_answers() {
    let (one, caller, _, _listener) = pair().await;
    let sessions = one.session_caller(2);
    until_up(sessions.watch()).await;
    let calls: Vec<_> = (0..500_usize)
        .map(|number| {
            let caller = if number % 2 == 0 { caller.clone() } else { sessions.clone() };
            tokio::spawn(async move {
                let length = if number % 50 == 0 { 300_000 } else { number % 90 };
                let pieces = vec![
                    Bytes::copy_from_slice(&number.to_le_bytes()),
                    Bytes::new(),
                    vec![number as u8; length].into(),
                ];
                assert_eq!(caller.call(pieces.clone(), soon()).await.unwrap(), pieces.concat());
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn a_later_call_is_answered_while_an_earlier_one_waits() {
    let (_one, caller, echo, _listener) = pair().await;
    let waits = tokio::spawn({
        let caller = caller.clone();
        async move { caller.call(request("wait"), soon()).await }
    });
    eventually("the first is there", || !echo.seen.lock().unwrap().is_empty()).await;
    assert_eq!(caller.call(request("quick"), soon()).await.unwrap(), "quick");
    assert!(!waits.is_finished());
    echo.go.notify_one();
    assert_eq!(waits.await.unwrap().unwrap(), "wait");
}

#[tokio::test]
async fn a_cancel_reaches_the_handler() {
    let (_one, caller, echo, _listener) = pair().await;
    let call = tokio::spawn({
        let caller = caller.clone();
        // The deadline, which drops the handler as well, is far away.
        async move { caller.call(request("wait"), soon() + 10 * PATIENCE).await }
    });
    eventually("it waits", || echo.seen.lock().unwrap().len() == 1).await;
    call.abort();
    eventually("its handler is dropped", || *echo.dropped.lock().unwrap() == 1).await;
    assert_eq!(caller.call(request("next"), soon()).await.unwrap(), "next");
}

#[tokio::test]
async fn the_deadline_goes_along_and_drops_the_handler() {
    let (_one, caller, echo, _listener) = pair().await;
    let deadline = Instant::now() + Duration::from_millis(300);
    let failed = caller.call(request("wait"), deadline).await.unwrap_err();
    assert!(matches!(&failed, CallFailed::Unknown(why) if why.contains("deadline passed")), "{failed}");
    let told = echo.deadlines.lock().unwrap()[0];
    assert!(told <= deadline + Duration::from_millis(250) && told + Duration::from_secs(1) > deadline);
    eventually("its handler is dropped", || *echo.dropped.lock().unwrap() == 1).await;
    let late = caller.call(request("late"), Instant::now()).await.unwrap_err();
    assert!(matches!(&late, CallFailed::NotSent(why) if why.contains("deadline")), "{late}");
    assert_eq!(echo.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_handler_that_panics_or_says_too_much_leaves_the_caller_no_doubt_that_there_is_doubt() {
    let (_one, caller, _, _listener) = pair().await;
    for (asked, words) in [("panic", "ended without an answer"), ("too much", "longer than a frame")] {
        let failed = caller.call(request(asked), soon()).await.unwrap_err();
        assert!(matches!(&failed, CallFailed::Unknown(why) if why.contains(words)), "{failed}");
    }
    assert_eq!(caller.call(request("next"), soon()).await.unwrap(), "next");
}

#[tokio::test]
async fn whoever_has_no_connection_knows_that_nothing_was_sent() {
    let one = node(1);
    let caller = one.caller(2);
    let failed = caller.call(request("x"), soon()).await.unwrap_err();
    assert!(matches!(&failed, CallFailed::NotSent(why) if why.contains("no connection")), "{failed}");
    let long = vec![Bytes::from(vec![0; 64 << 20]), Bytes::from_static(b"x")];
    assert!(matches!(caller.call(long, soon()).await, Err(CallFailed::NotSent(_))));
}

#[tokio::test]
async fn when_the_listener_stops_its_handlers_are_dropped_and_callers_hear_of_it() {
    let (_one, caller, echo, listener) = pair().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    for _ in 0..3 {
        let (caller, tell) = (caller.clone(), tell.clone());
        tokio::spawn(async move { tell.send(caller.call(request("wait"), soon()).await) });
    }
    eventually("all wait", || echo.seen.lock().unwrap().len() == 3).await;
    tokio::time::timeout(PATIENCE, listener.stop()).await.unwrap();
    for _ in 0..3 {
        assert!(matches!(told.recv().await.unwrap(), Err(CallFailed::Unknown(_))));
    }
    eventually("all are dropped", || *echo.dropped.lock().unwrap() == 3).await;
}

#[tokio::test]
async fn the_largest_request_and_answer_come_through() {
    let (_one, caller, _, _listener) = pair().await;
    let largest = Bytes::from(vec![0x5a; 64 << 20]);
    let answer = caller.call(vec![largest.clone()], soon()).await.unwrap();
    assert!(answer == largest, "the same bytes");
}
