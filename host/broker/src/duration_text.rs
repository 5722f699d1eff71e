//! Durations as people write them (`"6s"`, `"1h 30m"`), for `#[serde(with = "…")]`; kept with millisecond precision.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer, Serializer};

/// What is said besides of a limit that is refused.
pub(crate) const NO_LIMIT: &str = "null takes the limit away";

/// Reads one duration from its text.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{text:?} is not a length of time such as \"500ms\", \"6s\" or \"1h 30m\": {error}"))
}

/// A duration as [`parse`] reads it, with days as the largest unit: `36500days`. Months and years have no length that
/// somebody would have meant, and 90 days would be `2months 29days 2h 52m 48s`.
pub(crate) fn written(duration: Duration) -> impl fmt::Display {
    const DAY: u64 = 24 * 60 * 60;
    let (days, rest) = (duration.as_secs() / DAY, duration - Duration::from_secs(duration.as_secs() / DAY * DAY));
    fmt::from_fn(move |f| {
        let rest_of_day = humantime::format_duration(rest);
        match days {
            0 => write!(f, "{rest_of_day}"),
            _ => {
                write!(f, "{days}day{}", if days == 1 { "" } else { "s" })?;
                if rest.is_zero() { Ok(()) } else { write!(f, " {rest_of_day}") }
            }
        }
    })
}

pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&written(*duration))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// The same for a list.
pub(crate) mod list {
    use super::{Deserialize, Deserializer, Duration, Error, Serializer, parse, written};

    pub(crate) fn serialize<S: Serializer>(durations: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(durations.iter().map(|duration| written(*duration).to_string()))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| parse(text).map_err(D::Error::custom)).collect()
    }
}

/// The same for a limit that may be absent.
pub(crate) mod limit {
    use super::{Deserialize, Deserializer, Duration, Error, IgnoredAny, NO_LIMIT, Serializer, parse};

    pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Other(IgnoredAny),
        }
        let read = match Option::<Written>::deserialize(deserializer)? {
            None => return Ok(None),
            Some(Written::Text(text)) => parse(&text),
            Some(Written::Other(_)) => Err("a length of time is a text such as \"72h\"".to_owned()),
        };
        read.map(Some).map_err(|wrong| D::Error::custom(format!("{wrong}; {NO_LIMIT}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_has_days_as_its_largest_unit_and_reads_back() {
        for text in ["0s", "500ms", "6s", "1h 30m", "1day", "1day 1h", "3days", "90days", "365days 1s", "36500days"] {
            assert_eq!(written(parse(text).unwrap()).to_string(), text);
        }
        assert_eq!(written(parse("1year").unwrap()).to_string(), "365days 6h");
        assert_eq!(parse(&written(Duration::MAX).to_string()), Ok(Duration::MAX));
    }
}
