//! Parsers of argument values that the node would refuse anyway: a typing mistake is told before anything is sent.
//!
//! Each is a parser of [`clap`], so that what is wrong is told with the flag it was given to, and ends the command with
//! 2. What they return is text, as it was written, where the node reads the value itself: only one of the two should
//! decide what `1m 30s` means.

use std::time::Duration;

use serde_json::Value;
use vouch_broker::RETENTION_SIZE_MIN;

/// A length of time as the API takes it: `6s`, `1m 30s`, `72h`. Kept as written.
pub(crate) fn duration(text: &str) -> Result<String, String> {
    length(text).map(|_| text.to_owned())
}

/// The same as a [`Duration`].
///
/// # Errors
/// It is none, or has no unit: a bare number could be seconds as well as milliseconds.
pub(crate) fn length(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a number with a unit, for example 500ms, 6s, 30m or 72h"))
}

/// A point in time as the API takes it: a time in UTC, milliseconds since 1970, or how long ago. Kept as written.
pub(crate) fn time_or_ago(text: &str) -> Result<String, String> {
    if text.parse::<u64>().is_ok() || humantime::parse_rfc3339_weak(text).is_ok() {
        return Ok(text.to_owned());
    }
    duration(text).map_err(|wrong| format!("{wrong}; or write a time in UTC such as 2026-01-31T10:00:00Z"))
}

/// Several lengths of time, separated by commas.
pub(crate) fn durations(text: &str) -> Result<Vec<String>, String> {
    text.split(',').map(|part| duration(part.trim())).collect()
}

/// A size in bytes with a binary unit: `512`, `64KiB`, `256MiB`, `1GiB`.
///
/// # Errors
/// It is none, has a decimal unit (`MB`), of which people mean two different things, or is more than there can be.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(format!("`{text}` is not a size; write for example 64KiB, 256MiB or 1GiB")),
    };
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is not a size; write for example 256MiB"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is more bytes than there can be"))
}

/// A size as the API takes it. Kept as written.
pub(crate) fn size(text: &str) -> Result<String, String> {
    bytes(text).map(|_| text.to_owned())
}

/// A length of time for which something is kept. None at all is refused: whoever writes 0 may mean that there is no limit.
pub(crate) fn kept_for(text: &str) -> Result<String, String> {
    match length(text)? {
        Duration::ZERO => Err(format!("`{text}` would keep nothing; write for example 72h")),
        _ => Ok(text.to_owned()),
    }
}

/// A size that is kept: no less than the node takes, which is not 0 for the same reason.
pub(crate) fn kept_size(text: &str) -> Result<String, String> {
    match bytes(text)? {
        small if small < RETENTION_SIZE_MIN => {
            Err(format!("`{text}` would keep nothing; the least is {RETENTION_SIZE_MIN}B; write for example 10GiB"))
        }
        _ => Ok(text.to_owned()),
    }
}

/// Reads a document. What is wrong with it is told by its place, in words that nobody needs a manual for.
///
/// # Errors
/// Why it is none, to follow a name for the text.
pub(crate) fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Eof => "is not JSON: it ends before it is complete".to_owned(),
        _ => format!("is not JSON: look at line {}, column {}", error.line(), error.column()),
    })
}

/// What a setting becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SettingChange<T> {
    /// This value.
    To(T),
    /// What it is where nobody sets it.
    Default,
}

/// `null` is how the API writes that a setting goes back to its default.
impl<T: Into<Value>> From<SettingChange<T>> for Value {
    /// `null` for the default, else the value.
    fn from(setting: SettingChange<T>) -> Self {
        match setting {
            SettingChange::To(value) => value.into(),
            SettingChange::Default => Self::Null,
        }
    }
}

/// What `parse` reads, or `none`.
pub(crate) fn or_none<T>(
    parse: impl Fn(&str) -> Result<T, String> + Clone,
) -> impl Fn(&str) -> Result<SettingChange<T>, String> + Clone {
    move |text| match text {
        "none" => Ok(SettingChange::Default),
        _ => parse(text).map(SettingChange::To).map_err(|wrong| format!("{wrong}; or write none for the default")),
    }
}

/// A name, or nothing for the default: any word may be a name.
pub(crate) fn or_empty(text: &str) -> Result<SettingChange<String>, String> {
    Ok(if text.is_empty() { SettingChange::Default } else { SettingChange::To(text.to_owned()) })
}

/// `name=value`; the value may hold further `=`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not name=value")),
    }
}

/// A topic with a filter, `topic=filter`; one without is received as a whole.
pub(crate) fn subscription(text: &str) -> Result<(String, String), String> {
    let (topic, filter) = text.split_once('=').unwrap_or((text, "*"));
    if topic.is_empty() || filter.is_empty() {
        return Err(format!("`{text}` is not TOPIC or TOPIC=FILTER; write for example orders, or 'orders=paid||open'"));
    }
    Ok((topic.to_owned(), filter.to_owned()))
}

/// Sets a member only if there is a value: absent members take the node's defaults.
pub(crate) fn set_some<T: Into<Value>>(object: &mut serde_json::Map<String, Value>, name: &str, value: Option<T>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_kept_as_written_and_need_a_unit() {
        assert_eq!(duration("1m 30s").unwrap(), "1m 30s");
        assert_eq!(durations("10s, 30s,1m").unwrap(), ["10s", "30s", "1m"]);
        assert!(duration("6").unwrap_err().contains("with a unit"));
        assert!(durations("10s,,1m").is_err());
    }

    #[test]
    fn a_point_in_time_is_a_time_or_how_long_ago() {
        for right in ["10m", "1700000000007", "2026-01-31T10:00:00Z"] {
            assert_eq!(time_or_ago(right).unwrap(), right);
        }
        for wrong in ["", "yesterday", "-10m"] {
            assert!(time_or_ago(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_have_binary_units_and_do_not_overflow() {
        assert_eq!(bytes("0").unwrap(), 0);
        assert_eq!(bytes("64KiB").unwrap(), 65_536);
        assert_eq!((bytes("1 GiB").unwrap(), bytes("2TiB").unwrap()), (1 << 30, 2 << 40));
        assert_eq!(bytes("17179869183GiB").unwrap(), u64::MAX - ((1 << 30) - 1));
        for wrong in ["17179869184GiB", "64MB", "MiB", "-1", "1.5GiB", ""] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn none_and_an_empty_name_go_back_to_the_default() {
        let wait = or_none(duration);
        assert_eq!((wait("none"), wait("6s")), (Ok(SettingChange::Default), Ok(SettingChange::To("6s".to_owned()))));
        assert!(wait("6").unwrap_err().ends_with("; or write none for the default"));
        assert_eq!(
            (or_empty(""), or_empty("none")),
            (Ok(SettingChange::Default), Ok(SettingChange::To("none".to_owned())))
        );
        let mut object = serde_json::Map::new();
        set_some(&mut object, "a", None::<u32>);
        set_some(&mut object, "b", Some(SettingChange::<u32>::Default));
        set_some(&mut object, "c", Some(SettingChange::To(7)));
        assert_eq!(Value::Object(object), serde_json::json!({"b": null, "c": 7}));
    }

    #[test]
    fn what_would_keep_nothing_is_refused_and_the_least_is_taken() {
        assert_eq!((kept_size("1B").unwrap(), kept_for("1s").unwrap()), ("1B".to_owned(), "1s".to_owned()));
        for nothing in ["0", "0B", "0GiB"] {
            let wrong = kept_size(nothing).unwrap_err();
            assert!(wrong.starts_with(&format!("`{nothing}` would keep nothing; the least is 1B")), "{wrong}");
        }
        assert!(kept_for("0s").unwrap_err().contains("would keep nothing"));
    }

    #[test]
    fn what_is_no_document_is_told_by_its_place_and_in_no_librarys_words() {
        assert_eq!(json("{\"a\": 1}").unwrap()["a"], 1);
        assert_eq!(json("{\n  a: 1\n}").unwrap_err(), "is not JSON: look at line 2, column 3");
        assert_eq!(json("{\"a\":").unwrap_err(), "is not JSON: it ends before it is complete");
        assert_eq!(json("").unwrap_err(), "is not JSON: it ends before it is complete");
    }

    #[test]
    fn a_subscription_is_a_topic_with_a_filter_or_all_of_it() {
        let read = |text: &str| subscription(text).map(|(topic, filter)| format!("{topic} {filter}"));
        assert_eq!((read("orders").unwrap(), read("orders=a||b").unwrap()), ("orders *".into(), "orders a||b".into()));
        assert!(["", "=a", "orders="].iter().all(|wrong| subscription(wrong).is_err()));
    }

    #[test]
    fn pairs_split_at_the_first_equals_sign() {
        assert_eq!(pair("url=http://x/?a=b").unwrap(), ("url".to_owned(), "http://x/?a=b".to_owned()));
        assert_eq!(pair("empty=").unwrap(), ("empty".to_owned(), String::new()));
        assert!(pair("novalue").is_err());
        assert!(pair("=x").is_err());
    }
}
