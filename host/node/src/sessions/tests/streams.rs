//! Streams and what producers can be asked about.

use super::super::asking::OFFERS_MAX;
use super::super::producers::{EARLY_MAX, REMEMBERED_MAX};
use super::super::session::STREAMS_MAX;
use super::*;

#[test]
fn a_stream_of_a_known_client_is_asked_before_settings_come_over_it() {
    let (sessions, streams) = with_producers(&["a"]);
    close(&sessions, "a", &streams[0], Instant::now());
    assert!(!sessions.has_producer(&topic("orders"), ""), "nobody to ask");
    let reopened = open();
    sessions.attach("a", reopened.clone());
    assert_eq!(asked_client(&sessions, "gone").as_deref(), Some("a"));
    assert_eq!((reopened.asked(), streams[0].asked()), (1, 0));
}

#[test]
fn a_stream_that_opens_before_its_client_is_known_counts_with_the_first_call() {
    let sessions = Sessions::default();
    let stream = open();
    sessions.attach("a", stream.clone());
    assert_eq!(asked_client(&sessions, "a"), None, "whether it is a producer is not known");
    sessions.introduce("a", SessionRole::Producer, None, Instant::now()).unwrap();
    assert_eq!(asked_client(&sessions, "a").as_deref(), Some("a"), "about its own halves");
    assert_eq!(asked_client(&sessions, "gone"), None, "its topics are not known");
    sessions.note_route("a", &topic("orders"), Instant::now());
    assert_eq!(asked_client(&sessions, "gone").as_deref(), Some("a"));
    close(&sessions, "a", &stream, Instant::now());
    assert_eq!(asked_client(&sessions, "a"), None);
}

#[test]
fn a_stream_that_closed_before_its_client_is_known_is_forgotten() {
    let sessions = Sessions::default();
    let stream = open();
    sessions.attach("a", stream.clone());
    close(&sessions, "a", &stream, Instant::now());
    assert_eq!(sessions.table().producers.early_streams(), 0);
    sessions.introduce("a", SessionRole::Producer, None, Instant::now()).unwrap();
    assert!(sessions.table().by_client["a"].streams.is_empty());
}

#[test]
fn routes_tell_the_topics_of_producers_only_and_only_while_their_settings_are_not_known() {
    let (sessions, _streams) = with_producers(&["told"]);
    sessions.introduce("consumer", SessionRole::PushConsumer, Some(topic("g")), Instant::now()).unwrap();
    sessions.introduce("met", SessionRole::Producer, None, Instant::now()).unwrap();
    for client in ["consumer", "met"] {
        sessions.attach(client, open());
    }
    for client in ["told", "consumer", "met", "stranger"] {
        sessions.note_route(client, &topic("payments"), Instant::now());
    }
    let payments = CheckCommand { topic: topic("payments"), ..command("gone") };
    for _ in 0..3 {
        assert_eq!(sessions.ask(&payments, &[], |_, _| ()).unwrap().client_id, "met");
    }
    sessions.declare("met", producer("orders"), Instant::now()).unwrap();
    assert!(sessions.ask(&payments, &[], |_, _| ()).is_none(), "settings say it better");
}

#[test]
fn topics_of_half_messages_stay_when_settings_come() {
    let (sessions, _streams) = with_producers(&["a"]);
    sessions.note_half("a", &topic("payments"), Instant::now());
    sessions.declare("a", producer("orders"), Instant::now()).unwrap();
    assert!(sessions.has_producer(&topic("payments"), "") && sessions.has_producer(&topic("orders"), ""));
    sessions.declare("a", consumer("g", "x"), Instant::now()).unwrap();
    assert!(!sessions.has_producer(&topic("payments"), ""), "it is no producer any more");
}

#[test]
fn a_producer_that_comes_back_after_a_silence_is_asked_about_what_it_declared() {
    let (sessions, streams) = with_producers(&["a", "settings only"]);
    let now = Instant::now();
    sessions.heard("a", now);
    sessions.expire(now + SESSION_LIMIT + MS * 1000);
    assert_eq!((sessions.count(), asked_client(&sessions, "gone")), ((0, 0), None));
    for client in ["a", "settings only"] {
        sessions.introduce(client, SessionRole::Producer, None, now).unwrap();
    }
    assert!(sessions.table().by_client["settings only"].declared.topics.is_empty());
    for _ in 0..2 {
        assert_eq!(asked_client(&sessions, "gone").as_deref(), Some("a"));
    }
    assert_eq!(streams[0].asked(), 2, "over the stream that was open all the time");
}

#[test]
fn so_many_producers_are_remembered_and_the_oldest_is_forgotten_first() {
    let sessions = Sessions::default();
    let now = Instant::now();
    let ids: Vec<String> = (0..=REMEMBERED_MAX).map(|number| format!("p{number}")).collect();
    for (id, seconds) in ids.iter().zip(0..) {
        let at = now + Duration::from_secs(seconds);
        sessions.declare(id.as_str(), producer("orders"), at).unwrap();
        sessions.heard(id, at);
    }
    while sessions.expire(now + Duration::from_secs(REMEMBERED_MAX as u64) + SESSION_LIMIT + MS).more {}
    assert_eq!(sessions.count(), (0, 0));
    let topics = |id: &str| {
        sessions.introduce(id, SessionRole::Producer, None, now).unwrap();
        sessions.table().by_client[id].declared.topics.len()
    };
    assert_eq!((topics(&ids[0]), topics(&ids[1]), topics(&ids[REMEMBERED_MAX])), (0, 1, 1));
}

#[test]
fn questions_go_to_the_producers_of_a_topic_in_turn() {
    let (sessions, streams) = with_producers(&["a", "b", "c"]);
    for _ in 0..4 {
        for client in ["a", "b", "c"] {
            assert_eq!(asked_client(&sessions, "gone").as_deref(), Some(client));
        }
    }
    assert_eq!(streams.iter().map(|stream| stream.asked()).collect::<Vec<_>>(), [4, 4, 4]);
}

#[test]
fn a_question_is_offered_to_so_many_at_once_and_later_to_the_others() {
    let ids: Vec<String> = (0..=OFFERS_MAX).map(|number| format!("p{number:03}")).collect();
    let (sessions, streams) = with_producers(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    for stream in &streams[..OFFERS_MAX] {
        stream.full.store(true, Ordering::Release);
    }
    assert_eq!(asked_client(&sessions, "gone"), None, "all that it was offered to are full");
    assert_eq!(asked_client(&sessions, "gone").as_deref(), Some("p064"));
    streams[OFFERS_MAX - 1].full.store(false, Ordering::Release);
    assert_eq!(asked_client(&sessions, "gone").as_deref(), Some("p063"), "the last of those offered to");
}

#[test]
fn a_session_holds_so_many_streams_and_the_newest_of_more() {
    let (sessions, streams) = with_producers(&["a"]);
    let others: Vec<_> = (1..STREAMS_MAX).map(|_| open()).collect();
    for stream in &others {
        sessions.attach("a", stream.clone());
    }
    assert!(sessions.table().by_client["a"].streams.len() == STREAMS_MAX);
    others.iter().for_each(|stream| stream.close());
    assert!(ask(&sessions, "a").is_some() && streams[0].asked() == 1, "the first one is there still");
    let newer: Vec<_> = (0..STREAMS_MAX).map(|_| open()).collect();
    for stream in &newer {
        sessions.attach("a", stream.clone());
    }
    newer.iter().for_each(|stream| stream.close());
    assert!(ask(&sessions, "a").is_none(), "it made room for newer ones");
}

#[test]
fn so_many_streams_are_kept_for_clients_that_are_not_known() {
    let sessions = Sessions::default();
    let streams: Vec<_> = (0..EARLY_MAX + 1).map(|_| open()).collect();
    let id = |number: usize| format!("p{number}");
    for (number, stream) in streams.iter().enumerate() {
        sessions.attach(&id(number), stream.clone());
    }
    let known = |number: usize| {
        sessions.introduce(id(number).as_str(), SessionRole::Producer, None, Instant::now()).unwrap();
        asked_client(&sessions, &id(number)).is_some()
    };
    assert!(known(0) && known(EARLY_MAX - 1) && !known(EARLY_MAX));
    sessions.attach(&id(EARLY_MAX), streams[EARLY_MAX].clone());
    assert!(known(EARLY_MAX), "its settings attach it");
}
