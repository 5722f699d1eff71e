//! Whose leases live on.

use super::super::lease_life::LEFT_MAX;
use super::*;

/// A push consumer with a stream that holds a lease.
fn with_consumer(client: &str, now: Instant) -> (Sessions, Arc<Recorder>) {
    let (sessions, stream) = (Sessions::default(), open());
    sessions.declare(client, consumer("g", "x"), now).unwrap();
    sessions.attach(client, stream.clone());
    sessions.heard(client, now);
    sessions.leased(client, now + Duration::from_secs(60));
    (sessions, stream)
}

fn dead(sessions: &Sessions, now: Instant) -> Vec<String> {
    let mut dead = Vec::new();
    loop {
        let over = sessions.expire(now);
        dead.extend(over.dead.into_iter().map(|dead| format!("{} of {}", dead.client_id, dead.group)));
        if !over.more {
            return dead;
        }
    }
}

#[test]
fn leases_end_when_no_stream_is_left_and_nothing_was_heard_for_thirty_seconds() {
    let now = Instant::now();
    let (sessions, stream) = with_consumer("a", now);
    let over = now + DEAD_AFTER;
    assert!(sessions.keeps_leases("a", over + MS) && dead(&sessions, over + MS).is_empty(), "its stream is open");
    close(&sessions, "a", &stream, over + MS);
    assert!(sessions.keeps_leases("a", over) && dead(&sessions, over).is_empty(), "it was heard of late");
    assert!(!sessions.keeps_leases("a", over + MS));
    assert_eq!(dead(&sessions, over + MS), ["a of g"]);
    assert!(dead(&sessions, over + MS * 2).is_empty(), "once is enough");
    assert_eq!(sessions.count(), (0, 1), "the session lives on");
}

#[test]
fn a_consumer_without_a_stream_lives_as_long_as_it_is_heard() {
    let now = Instant::now();
    let (sessions, stream) = with_consumer("a", now);
    close(&sessions, "a", &stream, now);
    for beats in 1..=60 {
        let at = now + Duration::from_secs(10) * beats;
        sessions.heard("a", at);
        let before_the_next = at + Duration::from_secs(9);
        assert!(dead(&sessions, before_the_next).is_empty() && sessions.keeps_leases("a", before_the_next));
    }
    assert_eq!(dead(&sessions, now + Duration::from_secs(600) + DEAD_AFTER + MS), ["a of g"]);
}

#[test]
fn a_consumer_that_was_given_up_and_comes_back_can_die_again() {
    let now = Instant::now();
    let (sessions, stream) = with_consumer("a", now);
    close(&sessions, "a", &stream, now);
    let mut at = now + DEAD_AFTER + MS;
    for _ in 0..2 {
        assert_eq!(dead(&sessions, at), ["a of g"]);
        sessions.heard("a", at);
        assert!(sessions.keeps_leases("a", at) && dead(&sessions, at + DEAD_AFTER).is_empty());
        at += DEAD_AFTER + MS;
    }
    sessions.attach("a", open());
    assert!(sessions.keeps_leases("a", at) && dead(&sessions, at).is_empty(), "a stream is a sign of life");
}

#[test]
fn a_session_that_ends_by_silence_gives_up_its_leases_though_its_stream_is_open() {
    let now = Instant::now();
    let (sessions, _stream) = with_consumer("a", now);
    assert!(dead(&sessions, now + SESSION_LIMIT).is_empty());
    assert_eq!(dead(&sessions, now + SESSION_LIMIT + MS), ["a of g"]);
    assert!(!sessions.keeps_leases("a", now));
}

#[test]
fn a_consumer_that_left_has_thirty_seconds_to_acknowledge_unless_it_comes_back() {
    let now = Instant::now();
    for comes_back in [false, true] {
        let (sessions, _stream) = with_consumer("a", now);
        sessions.close("a", now);
        assert!(dead(&sessions, now + DEAD_AFTER).is_empty());
        if comes_back {
            sessions.introduce("a", SessionRole::PushConsumer, Some(topic("g")), now + DEAD_AFTER).unwrap();
        }
        assert_eq!(dead(&sessions, now + DEAD_AFTER + MS).is_empty(), comes_back);
    }
}

#[test]
fn so_many_are_remembered_that_left() {
    let (now, sessions) = (Instant::now(), Sessions::default());
    for number in 0..=LEFT_MAX {
        let id = format!("c{number}");
        sessions.introduce(id.as_str(), SessionRole::PushConsumer, Some(topic("g")), now).unwrap();
        sessions.leased(&id, now);
        sessions.close(&id, now);
    }
    assert_eq!(dead(&sessions, now + DEAD_AFTER + MS).len(), LEFT_MAX);
}

#[test]
fn whoever_had_no_lease_is_not_named_and_one_that_is_renewed_has_one() {
    let (now, sessions) = (Instant::now(), Sessions::default());
    for client in ["idle", "renewed"] {
        sessions.introduce(client, SessionRole::PushConsumer, Some(topic("g")), now).unwrap();
    }
    assert!(sessions.keeps_leases("renewed", now), "after a restart, this tells of leases from before");
    assert_eq!(dead(&sessions, now + DEAD_AFTER + MS), ["renewed of g"]);
    assert!(!sessions.keeps_leases("stranger", now));
}
