use super::*;

fn framed(len: u32) -> Vec<u8> {
    [&[0][..], &len.to_be_bytes(), &vec![7; len as usize]].concat()
}

fn gathering(connection: &Arc<ConnectionInbound>, path: &str) -> Gathering {
    Gathering::new(connection.clone(), Method::of(path))
}

/// Gives bytes to it, and returns what is whole.
fn give(gathering: &mut Gathering, bytes: &[u8]) -> Result<Vec<u8>, Status> {
    let at_once = gathering.take(Bytes::copy_from_slice(bytes))?;
    Ok(at_once.into_iter().chain(gathering.whole.drain(..)).flatten().collect())
}

const SEND: &str = "/apache.rocketmq.v2.MessagingService/SendMessage";
const ACK: &str = "/apache.rocketmq.v2.MessagingService/AckMessage";

fn held(inbound: &Inbound) -> (u64, u64) {
    (inbound.0.sends.held.load(Ordering::Relaxed), inbound.0.calls.held.load(Ordering::Relaxed))
}

#[test]
fn a_message_counts_with_what_is_here_of_it_until_it_is_whole_and_is_handed_on_then() {
    let inbound = Inbound::new(10_000);
    let connection = inbound.connection();
    let mut one = gathering(&connection, SEND);
    let bytes = [framed(60), framed(0), framed(30)].concat();
    assert_eq!(give(&mut one, &bytes[..3]).unwrap(), b"");
    assert_eq!(held(&inbound), (3 + FRAME_COST, 0));
    assert_eq!(give(&mut one, &bytes[3..64]).unwrap(), b"");
    assert_eq!(held(&inbound), (64 + 2 * FRAME_COST, 0));
    assert_eq!(give(&mut one, &bytes[64..80]).unwrap(), bytes[..70], "two are whole");
    assert_eq!(held(&inbound), (10 + FRAME_COST, 0));
    assert_eq!(give(&mut one, &bytes[80..]).unwrap(), bytes[70..]);
    assert_eq!(held(&inbound), (0, 0));
    assert_eq!(give(&mut one, &bytes).unwrap(), bytes, "what comes in one piece never counts");
    give(&mut one, &framed(9)[..8]).unwrap();
    drop(one);
    assert_eq!(held(&inbound), (0, 0));
}

/// Whether a piece of so many bytes keeps what was read together with it when it is held.
fn keeps_what_came_with_it(len: usize) -> bool {
    let connection = Inbound::new(1 << 20).connection();
    let read = Bytes::from(framed(1 << 16));
    let mut one = gathering(&connection, SEND);
    one.take(read.slice(..len)).unwrap();
    assert_eq!(one.held.iter().map(Bytes::len).sum::<usize>(), len);
    !read.is_unique()
}

#[test]
fn a_small_piece_that_is_held_does_not_keep_what_was_read_with_it() {
    assert!(!keeps_what_came_with_it(1));
    assert!(!keeps_what_came_with_it(COPIED_BELOW - 1));
    assert!(keeps_what_came_with_it(COPIED_BELOW), "a large one is not copied");
}

#[test]
fn what_is_announced_and_does_not_come_keeps_nobody_out() {
    let inbound = Inbound::new(256 << 20);
    let held_open: Vec<_> = (0..1000)
        .map(|_| {
            let mut one = gathering(&inbound.connection(), SEND);
            give(&mut one, &framed(SEND_MAX_BYTES as u32)[..10]).unwrap();
            one
        })
        .collect();
    let mut large = gathering(&inbound.connection(), SEND);
    give(&mut large, &framed(SEND_MAX_BYTES as u32)[..SEND_MAX_BYTES]).unwrap();
    drop(held_open);
}

#[test]
fn beyond_the_bound_a_message_is_refused_and_an_idle_node_takes_any() {
    let inbound = Inbound::new(1000);
    let (a, b) = (inbound.connection(), inbound.connection());
    let mut first = gathering(&a, SEND);
    give(&mut first, &framed(2000)[..1900]).unwrap();
    let refused = give(&mut gathering(&b, SEND), &framed(10)[..8]).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("send it again later"));
    assert_eq!(refused.metadata().get(RETRY_AFTER).unwrap(), "200");
    give(&mut gathering(&b, SEND), &framed(10)).unwrap();
    give(&mut gathering(&b, ACK), &framed(10)[..8]).expect("other calls do not wait for sends");
    drop(first);
    give(&mut gathering(&b, SEND), &framed(10)[..8]).unwrap();
    assert_eq!(held(&inbound), (0, 0));
}

#[test]
fn one_connection_gets_its_share_and_leaves_the_rest_to_others() {
    let inbound = Inbound::new(4000);
    let (greedy, other) = (inbound.connection(), inbound.connection());
    let mut first = gathering(&greedy, SEND);
    give(&mut first, &framed(2000)[..900]).unwrap();
    let refused = give(&mut gathering(&greedy, SEND), &framed(100)[..50]).unwrap_err();
    assert!(refused.message().contains("on this connection"), "{refused}");
    give(&mut gathering(&other, SEND), &framed(100)[..50]).unwrap();
    drop(first);
    assert_eq!(held(&inbound), (0, 0));
}

#[test]
fn each_call_has_a_size_that_it_may_have_at_most() {
    let inbound = Inbound::new(256 << 20);
    let connection = inbound.connection();
    for (path, most) in [(SEND, SEND_MAX_BYTES), (ACK, CALL_MAX_BYTES), ("/x/Telemetry", CALL_MAX_BYTES)] {
        let announces = |len: usize| give(&mut gathering(&connection, path), &framed(len as u32)[..5]);
        announces(most).unwrap();
        let refused = announces(most + 1).unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange);
        assert!(refused.message().contains(&most.to_string()), "{refused}");
    }
}

#[test]
fn a_request_has_ten_seconds_and_more_the_more_of_it_is_here() {
    let mut hurry = Hurry::new();
    assert_eq!(hurry.within(false), BODY_GRACE);
    hurry.arrived = 5 * BODY_RATE_MIN;
    assert_eq!(hurry.within(false), BODY_GRACE + Duration::from_secs(5));
    assert_eq!(hurry.within(true), (BODY_GRACE + Duration::from_secs(5)) / SHORTAGE_HURRY);
    hurry.arrived = SEND_MAX_BYTES as u64;
    assert!(hurry.within(false) < Duration::from_secs(600), "even the largest one ends");
}

#[test]
fn there_is_a_shortage_while_more_than_half_of_a_bound_is_taken_on_all_connections() {
    let inbound = Inbound::new(4000);
    let connections: Vec<_> = (0..3).map(|_| inbound.connection()).collect();
    let mut held: Vec<_> = connections.iter().map(|connection| gathering(connection, SEND)).collect();
    let is_short = |path: &str| connections[0].is_short(Method::of(path));
    for (n, one) in held.iter_mut().enumerate() {
        assert!(!is_short(SEND), "{n}");
        give(one, &framed(2000)[..700]).unwrap();
    }
    assert!(is_short(SEND) && !is_short(ACK), "each kind of call has a bound of its own");
    held.pop();
    assert!(!is_short(SEND));
}

#[tokio::test]
async fn a_request_that_nothing_comes_of_looks_each_second_for_a_shortage_and_is_late_sooner_in_one() {
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let mut hurry = Hurry::new();
    assert!(hurry.poll(cx, || false).is_pending());
    let waiting = hurry.waiting.as_mut().unwrap();
    assert!(waiting.timer.deadline() <= Instant::now() + LOOK_EVERY);
    waiting.began -= BODY_GRACE / 2;
    assert!(hurry.poll(cx, || false).is_pending());
    assert!(hurry.poll(cx, || true).is_ready());
    hurry.waiting.as_mut().unwrap().began = Instant::now();
    assert!(hurry.poll(cx, || true).is_pending(), "it has its time in a shortage, too");
}
