//! The headers that make a request a CloudEvent 1.0, in the binary mode of its
//! [HTTP binding](https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/http-protocol-binding.md).
//!
//! A message's properties become extension attributes as far as their names can be such; the others, the tag and the further keys
//! are in no header. The tag and every property can be filled into the URL.

use std::time::{Duration, UNIX_EPOCH};

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use plugin_config::MessageFacts;

use crate::settings::Settings;

/// What has to be encoded in the value of a header, besides all that is not ASCII.
const IN_HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');
/// What has to be encoded in the path of a URL, `/` left as it is: a topic of a namespace has one.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Names that properties cannot have, for they have a meaning of their own.
const CORE: [&str; 9] =
    ["data", "datacontenttype", "dataschema", "id", "source", "specversion", "subject", "time", "type"];
/// Letters of an attribute's name that the specification asks for, at most.
const MAX_NAME: usize = 20;
/// The media type of a body of which nothing is known.
const BYTES: &str = "application/octet-stream";
/// A body of such a type is a whole event, or several: its attributes are in it.
const WHOLE_EVENT: &str = "application/cloudevents";
/// The property that tells a body's media type.
const CONTENT_TYPE: &str = "content-type";

/// The headers of a message that was stored at `stored_at_ms`.
pub fn headers(settings: &Settings, message: &MessageFacts<'_>, stored_at_ms: u64) -> Vec<(String, String)> {
    let content_type = content_type(settings, message);
    let mut headers = vec![(CONTENT_TYPE.to_owned(), content_type.to_owned())];
    let whole = content_type.get(..WHOLE_EVENT.len()).is_some_and(|start| start.eq_ignore_ascii_case(WHOLE_EVENT));
    if whole {
        return headers;
    }
    let mut attribute = |name: &str, value: &str| {
        headers.push((format!("ce-{name}"), utf8_percent_encode(value, IN_HEADER).to_string()));
    };
    attribute("specversion", "1.0");
    attribute("id", message.delivery_key);
    match &settings.source {
        Some(source) => attribute("source", source),
        None => attribute("source", &format!("/topics/{}", utf8_percent_encode(message.topic, IN_PATH))),
    }
    attribute("type", &settings.event_type);
    if let Some(key) = message.keys.first().filter(|key| !key.is_empty()) {
        attribute("subject", key);
    }
    if let Some(time) = UNIX_EPOCH.checked_add(Duration::from_millis(stored_at_ms)) {
        attribute("time", &humantime::format_rfc3339_millis(time).to_string());
    }
    for (name, value) in message.properties.iter().filter(|(name, value)| is_extension(name) && !value.is_empty()) {
        attribute(name, value);
    }
    headers
}

/// Whether a property can be an attribute: lower-case letters and digits of ASCII, at most twenty, and no name that has a meaning.
fn is_extension(name: &str) -> bool {
    let letters = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    letters && (1..=MAX_NAME).contains(&name.len()) && !CORE.contains(&name)
}

/// The media type of the body: what the message says, or the binding. One that no header can have is passed over.
fn content_type<'a>(settings: &'a Settings, message: &MessageFacts<'a>) -> &'a str {
    let said = message.properties.iter().find(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE));
    let usable = |value: &&str| !value.is_empty() && value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let said = said.map(|(_, value)| value.trim()).filter(usable);
    said.or(settings.content_type.as_deref()).unwrap_or(BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(config: &[(&str, &str)]) -> Settings {
        Settings::read(|name| {
            let set = config.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            set.or_else(|| (name == "url").then(|| "http://o".to_owned()))
        })
        .unwrap()
    }

    /// The headers of a message with these keys and properties, stored on 2026-01-31.
    fn of(config: &[(&str, &str)], topic: &str, keys: &[&str], properties: &[(&str, &str)]) -> Vec<(String, String)> {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let properties: Vec<(String, String)> =
            properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let message = MessageFacts {
            delivery_key: "d 7",
            keys: &keys,
            id: "01AB",
            topic,
            tag: Some("new"),
            properties: &properties,
        };
        headers(&settings(config), &message, 1_769_853_600_042)
    }

    fn value<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
        let mut values = headers.iter().filter(|(known, _)| known == name);
        let (first, second) = (values.next(), values.next());
        assert!(second.is_none(), "{name} is there twice");
        first.map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_message_becomes_an_event() {
        let headers = of(&[], "orders", &["1001", "1002"], &[("content-type", "application/json"), ("region", "eu")]);
        let expected = [
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", "d%207"),
            ("ce-source", "/topics/orders"),
            ("ce-type", "vouch.message"),
            ("ce-subject", "1001"),
            ("ce-time", "2026-01-31T10:00:00.042Z"),
            ("ce-region", "eu"),
        ];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(headers, expected);
    }

    #[test]
    fn the_binding_says_what_the_message_does_not() {
        let config = [("type", "shop.order placed"), ("source", "https://shop/7"), ("content-type", "text/plain")];
        let headers = of(&config, "orders", &[], &[]);
        assert_eq!(value(&headers, "ce-type"), Some("shop.order%20placed"));
        assert_eq!(value(&headers, "ce-source"), Some("https://shop/7"));
        assert_eq!(value(&headers, "content-type"), Some("text/plain"));
        assert_eq!(value(&headers, "ce-subject"), None);
        assert_eq!(value(&of(&[], "orders", &[""], &[]), "ce-subject"), None, "an empty one is none");
        assert_eq!(value(&of(&[], "orders", &[], &[]), "content-type"), Some("application/octet-stream"));
    }

    #[test]
    fn a_topic_is_part_of_a_url() {
        let source = |topic: &str| value(&of(&[], topic, &[], &[]), "ce-source").map(str::to_owned);
        assert_eq!(source("tenant/orders").as_deref(), Some("/topics/tenant/orders"));
        // Encoded as a path, and that as a header.
        assert_eq!(source("%DLQ%g").as_deref(), Some("/topics/%2525DLQ%2525g"));
    }

    #[test]
    fn values_are_encoded_as_the_binding_of_cloud_events_says() {
        let encoded = |text: &str| value(&of(&[], "t", &[text], &[]), "ce-subject").map(str::to_owned);
        for (text, expected) in [
            ("Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
            (r#"a"b%20"#, "a%22b%2520"),
            ("a\r\nb\u{7f}", "a%0D%0Ab%7F"),
            ("!#$&'()*+,-./:;<=>?@[\\]^_`{|}~", "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"),
        ] {
            assert_eq!(encoded(text).as_deref(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn properties_are_attributes_where_their_names_can_be() {
        let long = "abcdefghij0123456789";
        let too_long = format!("{long}x");
        let properties = [
            ("traceparent", "00-ab"),
            (long, "x"),
            (too_long.as_str(), "x"),
            ("Region", "x"),
            ("vouch-check-max", "x"),
            ("", "x"),
            ("größe", "x"),
            ("empty", ""),
            ("7", "x"),
        ];
        let headers = of(&[], "t", &[], &properties);
        let extensions: Vec<&str> = headers[6..].iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(headers[5].0, "ce-time");
        assert_eq!(extensions, ["ce-traceparent", "ce-abcdefghij0123456789", "ce-7"]);
    }

    #[test]
    fn no_property_takes_the_place_of_what_an_event_is() {
        let properties = CORE.map(|name| (name, "mine"));
        let headers = of(&[], "t", &["1"], &properties);
        assert!(headers.iter().all(|(_, value)| value != "mine"), "{headers:?}");
        assert_eq!((value(&headers, "ce-id"), value(&headers, "ce-datacontenttype")), (Some("d%207"), None));
    }

    #[test]
    fn a_media_type_that_no_header_can_have_is_passed_over() {
        for said in ["", " ", "text/plain\r\nx: y", "text/plän"] {
            let headers = of(&[], "t", &[], &[("Content-Type", said)]);
            assert_eq!(value(&headers, "content-type"), Some("application/octet-stream"), "{said:?}");
        }
        let headers = of(&[], "t", &[], &[("Content-Type", " text/plain; charset=utf-8 ")]);
        assert_eq!(value(&headers, "content-type"), Some("text/plain; charset=utf-8"));
    }

    #[test]
    fn a_message_that_is_an_event_already_goes_as_it_is() {
        for said in ["application/cloudevents+json", "Application/CloudEvents-batch+json; charset=utf-8"] {
            let headers = of(&[], "t", &["1"], &[("content-type", said), ("region", "eu")]);
            assert_eq!(headers, [("content-type".to_owned(), said.to_owned())]);
        }
    }
}
