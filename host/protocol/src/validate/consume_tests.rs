use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::wire::{AckMessageEntry, MessageQueue, Resource};

fn resource(name: &str) -> Option<Resource> {
    Some(Resource { name: name.into(), ..Default::default() })
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn request() -> wire::ReceiveMessageRequest {
    wire::ReceiveMessageRequest {
        group: resource("group"),
        message_queue: Some(MessageQueue { topic: resource("orders"), id: 3, ..Default::default() }),
        batch_size: 16,
        ..Default::default()
    }
}

fn filter(expression: &str) -> Result<TagFilter, Code> {
    let expression = FilterExpression { r#type: FilterType::Tag as i32, expression: expression.into() };
    tag_filter(Some(&expression)).map_err(|violation| violation.code)
}

#[test]
fn a_receive_is_read_with_its_bounds() {
    let read = |change: fn(&mut wire::ReceiveMessageRequest)| {
        let mut request = request();
        change(&mut request);
        receive(request, CallNames::default(), limits::RECEIVE_INVISIBLE_MIN).map_err(|violation| violation.code)
    };
    let plain = read(|_| ()).unwrap();
    assert_eq!((plain.topic.name.as_str(), plain.group.name.as_str(), plain.max), ("orders", "group", 16));
    assert_eq!((plain.filter, plain.invisible, plain.auto_renew, plain.wait), (TagFilter::All, None, false, None));
    for (wanted, given) in [(i32::MIN, 1), (-1, 1), (0, 1), (1, 1), (32, 32), (33, 32), (i32::MAX, 32)] {
        let mut request = request();
        request.batch_size = wanted;
        assert_eq!(receive(request, CallNames::default(), limits::RECEIVE_INVISIBLE_MIN).unwrap().max, given);
    }
    assert_eq!(read(|request| request.message_queue = None), Err(Code::IllegalTopic));
    assert_eq!(read(|request| request.group = None), Err(Code::IllegalConsumerGroup));
}

#[test]
fn the_lease_of_a_receive_is_bounded_unless_the_server_renews_it() {
    let receive_for = |seconds, nanos, auto_renew, min| {
        let mut request = request();
        request.invisible_duration = Some(prost_types::Duration { seconds, nanos });
        request.auto_renew = auto_renew;
        receive(request, CallNames::default(), min).map(|receive| receive.invisible)
    };
    let (min, least) = (limits::RECEIVE_INVISIBLE_MIN, limits::RECEIVE_INVISIBLE_LEAST);
    assert_eq!(receive_for(10, 0, false, min), Ok(Some(Duration::from_secs(10))));
    assert_eq!(receive_for(1, 0, false, least), Ok(Some(Duration::from_secs(1))));
    assert_eq!(receive_for(43_200, 0, false, min), Ok(Some(limits::INVISIBLE_MAX)));
    for (seconds, nanos, min, words) in [
        (9, 999_999_999, min, "the invisibleTime is too small. min is 10000"),
        (0, 999_999_999, least, "the invisibleTime is too small. min is 1000"),
        (0, 0, min, "the invisibleTime is too small. min is 10000"),
        (-1, 0, min, "the invisibleTime is too small. min is 10000"),
        (43_200, 1, min, "the invisibleTime is too large. max is 43200000"),
        (i64::MAX, 0, min, "the invisibleTime is too large. max is 43200000"),
    ] {
        let refused = receive_for(seconds, nanos, false, min).unwrap_err();
        assert_eq!(refused.code, Code::IllegalInvisibleTime, "{seconds} s {nanos} ns");
        assert!(refused.text.contains(words), "{seconds} s {nanos} ns: {}", refused.text);
    }
    for seconds in [0, 1, 43_201] {
        assert_eq!(receive_for(seconds, 0, true, min), Ok(None), "the server chooses");
    }
}

#[test]
fn a_changed_lease_lasts_from_nothing_to_twelve_hours() {
    let changed = |wire: Option<prost_types::Duration>| invisible_duration(wire.as_ref());
    assert_eq!(changed(Some(seconds(0))), Ok(Duration::ZERO));
    assert_eq!(changed(Some(seconds(43_200))), Ok(limits::INVISIBLE_MAX));
    for (wire, words) in [
        (Some(seconds(43_201)), "the invisibleTime is too large. max is 43200000"),
        (Some(seconds(-1)), "the invisibleTime is too small. min is 0"),
        (None, "names no invisible duration"),
    ] {
        let refused = changed(wire).unwrap_err();
        assert_eq!(refused.code, Code::IllegalInvisibleTime);
        assert!(refused.text.contains(words), "{}", refused.text);
    }
}

#[test]
fn a_poll_waits_for_the_smallest_of_wish_bound_and_deadline() {
    let s = Duration::from_secs;
    let ms = Duration::from_millis;
    assert_eq!(poll_wait(Some(s(5)), None, None), s(5));
    assert_eq!(poll_wait(Some(s(40)), None, None), s(20));
    assert_eq!(poll_wait(Some(s(40)), Some(s(40)), None), s(20));
    assert_eq!(poll_wait(Some(s(5)), Some(s(8)), None), s(5));
    assert_eq!(poll_wait(Some(s(5)), Some(s(5)), None), ms(4500));
    assert_eq!(poll_wait(Some(s(5)), Some(s(1)), None), ms(500));
    assert_eq!(poll_wait(Some(s(5)), Some(ms(100)), None), Duration::ZERO);
    assert_eq!(poll_wait(Some(Duration::ZERO), Some(s(3)), None), Duration::ZERO);
    // An old client that does not say how long: what is left, without half of its own time-out.
    assert_eq!(poll_wait(None, Some(s(13)), Some(s(6))), s(10));
    assert_eq!(poll_wait(None, Some(s(60 * 365 * 86_400)), Some(s(3))), s(20));
    assert_eq!(poll_wait(None, None, None), s(20));
}

#[test]
fn a_tag_filter_is_read_as_its_author_meant_it() {
    assert_eq!(tag_filter(None), Ok(TagFilter::All));
    for all in ["", "*", " * "] {
        assert_eq!(filter(all), Ok(TagFilter::All), "{all:?}");
    }
    assert_eq!(filter("a"), Ok(TagFilter::tags(["a"])));
    assert_eq!(filter(" a||b || c d ||"), Ok(TagFilter::tags(["a", "b", "c d"])));
    assert_eq!(filter("||"), Err(Code::IllegalFilterExpression));
}

#[test]
fn a_filter_is_bounded_in_bytes_and_tags() {
    let tags = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join("||");
    assert!(filter(&tags(TagFilter::TAGS_MAX)).is_ok());
    assert_eq!(filter(&tags(TagFilter::TAGS_MAX + 1)), Err(Code::IllegalFilterExpression));
    assert!(filter(&"t".repeat(limits::FILTER_EXPRESSION_MAX_BYTES)).is_ok());
    let long = "t".repeat(limits::FILTER_EXPRESSION_MAX_BYTES + 1);
    assert_eq!(filter(&long), Err(Code::IllegalFilterExpression));
}

#[test]
fn filters_of_other_kinds_are_refused_with_a_sentence() {
    let of = |number| {
        let expression = FilterExpression { r#type: number, expression: "a > 5".into() };
        tag_filter(Some(&expression)).unwrap_err()
    };
    assert_eq!(of(FilterType::Sql as i32).code, Code::NotImplemented);
    assert!(of(FilterType::Sql as i32).text.contains("tag filter"));
    assert_eq!(of(9).code, Code::IllegalFilterExpression);
}

#[test]
fn acknowledgements_are_bounded_on_both_sides() {
    let with = |count| {
        let entries = vec![AckMessageEntry::default(); count];
        let mut request = wire::AckMessageRequest { group: resource("g"), topic: resource("t"), entries };
        let checked = acks(&mut request, CallNames::default()).map_err(|violation| violation.code);
        assert_eq!(request.entries.len(), count, "the answer mirrors them");
        checked.map(|(topic, group)| (topic.name, group.name))
    };
    assert_eq!(with(0), Err(Code::BadRequest));
    let names = Ok(("t".to_owned(), "g".to_owned()));
    assert_eq!((with(1), with(limits::ACK_BATCH_MAX)), (names.clone(), names));
    assert_eq!(with(limits::ACK_BATCH_MAX + 1), Err(Code::PayloadTooLarge));
}

#[test]
fn a_change_and_a_forward_are_read() {
    let mut request = wire::ChangeInvisibleDurationRequest {
        group: resource("g"),
        topic: resource("t"),
        receipt_handle: "handle".into(),
        invisible_duration: Some(seconds(30)),
        suspend: Some(true),
        ..Default::default()
    };
    let changed = change(&mut request, CallNames::default()).unwrap();
    assert_eq!((changed.invisible, changed.suspend), (Duration::from_secs(30), true));
    assert_eq!(request.receipt_handle, "handle", "the answer echoes it");
    let request = wire::ForwardMessageToDeadLetterQueueRequest {
        group: resource("g"),
        topic: resource("t"),
        receipt_handle: "handle".into(),
        delivery_attempt: 4,
        ..Default::default()
    };
    let forwarded = forward(request, CallNames::default()).unwrap();
    assert_eq!((forwarded.handle.as_str(), forwarded.attempts), ("handle", 4));
}

proptest! {
    #[test]
    fn no_bytes_make_the_checks_panic(bytes: Vec<u8>) {
        if let Ok(request) = wire::ReceiveMessageRequest::decode(&bytes[..]) {
            let _ = receive(request, CallNames::default(), limits::RECEIVE_INVISIBLE_MIN);
        }
        if let Ok(mut request) = wire::AckMessageRequest::decode(&bytes[..]) {
            let _ = acks(&mut request, CallNames::default());
        }
        if let Ok(mut request) = wire::ChangeInvisibleDurationRequest::decode(&bytes[..]) {
            let _ = change(&mut request, CallNames::default());
        }
    }

    #[test]
    fn no_expression_makes_the_filter_panic(expression: String) {
        let _ = filter(&expression);
    }

    #[test]
    fn a_poll_never_outlives_its_deadline(wanted: Option<Duration>, deadline: Duration, own: Option<Duration>) {
        let wait = poll_wait(wanted, Some(deadline), own);
        prop_assert!(wait <= deadline && wait <= limits::LONG_POLL_MAX);
    }
}
