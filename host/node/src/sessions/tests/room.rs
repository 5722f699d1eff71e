//! Room for sessions, and who goes first.

use super::super::room::{RoomBounds, SPOKE_LATELY};
use super::*;

fn with_bounds(change: impl FnOnce(&mut RoomBounds)) -> Sessions {
    let sessions = Sessions::default();
    change(&mut sessions.table().room.bounds);
    sessions
}

fn at<'a>(address: &str, id: &'a str) -> Client<'a> {
    Client { id, address: Some(address.parse().unwrap()) }
}

fn known(sessions: &Sessions, clients: &[&str]) -> String {
    let table = sessions.table();
    clients.iter().copied().filter(|client| table.by_client.contains_key(*client)).collect()
}

/// A client that sends its settings over a stream, which stays open.
fn arrive<'a>(sessions: &Sessions, client: impl Into<Client<'a>>, now: Instant) -> Result<Arc<Recorder>, NoRoom> {
    let (client, stream) = (client.into(), open());
    sessions.attach(client.id, stream.clone());
    let declared = sessions.declare(client, producer("orders"), now);
    if declared.is_err() {
        close(sessions, client.id, &stream, now);
    }
    declared.map(|()| stream)
}

#[test]
fn a_session_that_made_no_call_but_its_settings_goes_ten_seconds_after_its_stream() {
    let (sessions, now) = (Sessions::default(), Instant::now());
    let streams = ["a", "b", "c", "d"].map(|client| arrive(&sessions, client, now).unwrap());
    sessions.heard("c", now);
    sessions.heard("d", now);
    for (client, stream) in ["a", "c"].iter().zip([&streams[0], &streams[2]]) {
        close(&sessions, client, stream, now + MS);
    }
    sessions.declare("e", producer("orders"), now + MS).unwrap();
    sessions.expire(now + SETTINGS_ONLY_LIMIT);
    assert_eq!(known(&sessions, &["a", "b", "c", "d", "e"]), "abcde");
    sessions.expire(now + SETTINGS_ONLY_LIMIT + MS);
    assert_eq!(known(&sessions, &["a", "b", "c", "d", "e"]), "bcd", "a and e have no stream and made no call");
    sessions.expire(now + SESSION_LIMIT);
    assert_eq!(known(&sessions, &["b", "c", "d"]), "bcd");
}

#[test]
fn a_client_that_comes_back_in_time_keeps_its_session() {
    let (sessions, now) = (Sessions::default(), Instant::now());
    for (client, with_stream) in [("a", true), ("b", false)] {
        let stream = arrive(&sessions, client, now).unwrap();
        close(&sessions, client, &stream, now);
        if with_stream {
            sessions.attach(client, open());
        } else {
            sessions.heard(client, now);
        }
    }
    sessions.expire(now + SETTINGS_ONLY_LIMIT * 2);
    assert_eq!(known(&sessions, &["a", "b"]), "ab");
}

#[test]
fn a_newcomer_takes_the_place_of_one_that_only_sent_its_settings_the_oldest_first() {
    let (sessions, now) = (with_bounds(|bounds| bounds.sessions = 4), Instant::now());
    let streams = ["a", "b", "c", "d"].map(|client| arrive(&sessions, client, now).unwrap());
    assert_eq!(arrive(&sessions, "x", now).err(), Some(NoRoom::Sessions(4)), "all have a stream");
    assert_eq!(sessions.refused(), 1);
    sessions.heard("a", now);
    for (client, stream, after) in [("a", 0, 0), ("c", 2, 2), ("b", 1, 1)] {
        close(&sessions, client, &streams[stream], now + MS * after);
    }
    for (newcomer, left) in [("x", "acdx"), ("y", "adxy")] {
        arrive(&sessions, newcomer, now + MS * 3).unwrap();
        assert_eq!(known(&sessions, &["a", "b", "c", "d", "x", "y"]), left);
    }
    assert!(arrive(&sessions, "z", now + MS * 3).is_err(), "one made a call, the others have streams");
    assert_eq!(sessions.table().producers.early_streams(), 0);
}

#[test]
fn nobody_goes_with_an_open_stream_or_a_lease_or_a_call_in_the_last_minute() {
    let (sessions, now) = (with_bounds(|bounds| bounds.sessions = 3), Instant::now());
    for client in ["a", "b", "c"] {
        sessions.introduce(client, SessionRole::SimpleConsumer, Some(topic("g")), now).unwrap();
    }
    sessions.attach("a", open());
    sessions.leased("b", now + SPOKE_LATELY + MS * 2);
    sessions.heard("c", now + MS);
    let arrive = |client: &str, at| sessions.introduce(client, SessionRole::Producer, None, at);
    assert!(arrive("x", now + SPOKE_LATELY).is_err());
    arrive("x", now + SPOKE_LATELY + MS).unwrap();
    assert_eq!(known(&sessions, &["a", "b", "c", "x"]), "abx", "c was silent for a minute");
}

#[test]
fn a_search_for_room_goes_on_where_the_last_one_stopped() {
    let (sessions, now) = (with_bounds(|bounds| bounds.sessions = 201), Instant::now());
    for number in 0..200 {
        let id = format!("a{number:03}");
        sessions.introduce(id.as_str(), SessionRole::Producer, None, now).unwrap();
        sessions.attach(&id, open());
    }
    sessions.introduce("z", SessionRole::Producer, None, now).unwrap();
    let refused = (0..10)
        .take_while(|_| sessions.introduce("newcomer", SessionRole::Producer, None, now + SPOKE_LATELY).is_err());
    assert_eq!(refused.count(), 3, "each search looks at 64 of the 200 that stay");
    assert_eq!(known(&sessions, &["z", "newcomer"]), "newcomer");
}

#[test]
fn clients_of_one_address_have_half_of_the_room() {
    let (sessions, now) = (with_bounds(|bounds| bounds.sessions = 4), Instant::now());
    for [one, two, three] in [["10.0.0.1"; 3], ["2001:db8::1", "2001:db8::2", "2001:db8:0:0:8000::"]] {
        let _streams = [arrive(&sessions, at(one, "a"), now).unwrap(), arrive(&sessions, at(two, "b"), now).unwrap()];
        assert!(matches!(arrive(&sessions, at(three, "c"), now), Err(NoRoom::Share(_))));
        arrive(&sessions, at("10.0.0.2", "d"), now).unwrap();
        arrive(&sessions, at("::ffff:10.0.0.2", "e"), now).unwrap();
        assert!(matches!(arrive(&sessions, at("10.0.0.2", "f"), now), Err(NoRoom::Share(_))));
        assert_eq!(arrive(&sessions, at("10.0.0.3", "f"), now).err(), Some(NoRoom::Sessions(4)));
        for client in ["a", "b", "d", "e"] {
            sessions.close(client, now);
        }
    }
}

#[test]
fn a_flood_of_dropped_streams_shuts_nobody_out() {
    let (sessions, now) = (Sessions::default(), Instant::now());
    for number in 0..SESSIONS_MAX + 1000 {
        let id = format!("flood{number}");
        let stream = arrive(&sessions, at("10.0.0.1", &id), now).unwrap();
        close(&sessions, &id, &stream, now);
    }
    assert_eq!(sessions.count(), (SESSIONS_MAX / 2, 0));
    for address in ["10.0.0.1", "10.0.0.2"] {
        arrive(&sessions, at(address, address), now).unwrap();
    }
    assert_eq!(sessions.refused(), 0);
    while sessions.expire(now + SETTINGS_ONLY_LIMIT).more {}
    assert_eq!(sessions.count(), (2, 0));
}

fn topics(count: usize, name_len: usize) -> Declaration {
    let topics = (0..count).map(|number| topic(&format!("{number:0name_len$}"))).collect();
    Declaration { topics, ..producer("") }
}

#[test]
fn what_a_client_declares_is_bounded_and_a_refusal_changes_nothing() {
    let (sessions, now) = (Sessions::default(), Instant::now());
    sessions.declare("a", topics(1024, 127), now).unwrap();
    let bytes = |sessions: &Sessions| sessions.table().by_client["a"].bytes;
    let max = sessions.table().room.bounds.session_bytes;
    let held = bytes(&sessions);
    assert!(held <= max && held > max / 2, "{held} of {max}");
    sessions.table().room.bounds.session_bytes = held;
    sessions.declare("a", topics(1024, 127), now).unwrap();
    sessions.table().room.bounds.session_bytes = held - 1;
    let refused = sessions.declare("a", topics(1024, 127), now).unwrap_err();
    assert_eq!(refused, NoRoom::Declaration { bytes: held, max: held - 1 });
    assert_eq!((bytes(&sessions), sessions.table().by_client["a"].declared.topics.len()), (held, 1024));
}

#[test]
fn filters_that_come_with_receives_are_bounded_too_and_the_session_keeps_those_it_has() {
    let (sessions, now, g) = (with_bounds(|bounds| bounds.session_bytes = 16 << 10), Instant::now(), topic("g"));
    let tags: Vec<String> = (0..256).map(|tag| tag.to_string()).collect();
    let filter = TagFilter::tags(tags.iter().map(String::as_str));
    let note = |number: usize| {
        let topic = topic(&format!("t{number}"));
        sessions.note_receive("a", &g, (&topic, &filter), true, now)
    };
    let taken = (0..100).take_while(|number| note(*number).is_ok()).count();
    assert_eq!(taken, 3);
    assert!(matches!(note(taken), Err(NoRoom::Declaration { .. })));
    note(0).unwrap();
    let has = |number: usize| sessions.has_filter((&g, &topic(&format!("t{number}")), &filter));
    assert!(has(0) && has(taken - 1) && !has(taken));
}

#[test]
fn what_all_clients_declare_is_bounded_and_those_that_only_sent_settings_give_way() {
    let (sessions, now) = (with_bounds(|bounds| bounds.bytes = 64 << 10), Instant::now());
    let declare = |client: &str, count| sessions.declare(client, topics(count, 20), now);
    declare("a", 100).unwrap();
    sessions.heard("a", now);
    declare("b", 100).unwrap();
    declare("c", 100).unwrap();
    assert_eq!(known(&sessions, &["a", "b", "c"]), "ac", "b gave way");
    sessions.heard("c", now);
    assert_eq!(declare("d", 100), Err(NoRoom::Bytes(64 << 10)));
    declare("d", 10).unwrap();
    sessions.heard("d", now);
    assert_eq!(declare("d", 100), Err(NoRoom::Bytes(64 << 10)), "a session does not grow beyond it either");
    sessions.close("c", now);
    declare("d", 100).unwrap();
    for client in ["a", "d"] {
        sessions.close(client, now);
    }
    declare("e", 100).unwrap();
}

#[test]
fn no_session_costs_more_for_what_others_declared() {
    let (sessions, now) = (Sessions::default(), Instant::now());
    let (g, orders) = (topic("g"), topic("orders"));
    let begun = Instant::now();
    for number in 0..40_000 {
        let (id, filter) = (format!("c{number}"), TagFilter::tags([format!("t{number}").as_str()]));
        sessions.note_receive(id.as_str(), &g, (&orders, &filter), true, now).unwrap();
    }
    while sessions.expire(now + SESSION_LIMIT + MS).more {}
    assert_eq!(sessions.count(), (0, 0));
    // Looking at all members for each takes minutes.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn so_many_sessions_end_at_once_and_the_rest_is_said_to_be_left() {
    const LEFT: usize = 7;
    let (sessions, now) = (Sessions::default(), Instant::now());
    for number in 0..ENDED_IN_A_TURN + LEFT {
        let id = format!("c{number}");
        sessions.introduce(id.as_str(), SessionRole::Producer, None, now).unwrap();
    }
    let at = now + SESSION_LIMIT + MS;
    let over = sessions.expire(at);
    assert!(over.more && over.silent == ENDED_IN_A_TURN);
    assert_eq!(sessions.count(), (LEFT, 0));
    let over = sessions.expire(at);
    assert!(!over.more && over.silent == LEFT);
    assert_eq!(sessions.count(), (0, 0));
    assert!(!sessions.expire(at).more);
}
