//! What handlers take out of a request: names in the path, query parameters, JSON bodies, the page of a list.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vouch_broker::Refusal;

use super::problem::Problem;

/// Most items of one page.
pub(crate) const PAGE_MAX: usize = 1000;
/// Items of a page where the request does not say.
pub(crate) const PAGE_DEFAULT: usize = 100;

/// Names in the path, percent-decoded: `%25DLQ%25g` is `%DLQ%g`, and `%2F` stays inside its name.
pub(crate) struct PathNames<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathNames<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(names)| Self(names)).map_err(|rejection| {
            Problem::malformed(format!(
                "the path cannot be read: {}; encode names in it as UTF-8",
                rejection.body_text()
            ))
        })
    }
}

/// The query parameters of a request, each at most once. Which ones a path knows is checked before a handler runs.
#[derive(Debug, Default)]
pub(crate) struct Params(BTreeMap<String, String>);

impl Params {
    /// Reads a query string.
    pub(crate) fn parse(query: &str) -> Result<Self, Problem> {
        let mut params = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            if let Some(first) = params.insert(name.clone(), decode(value)?) {
                return Err(Problem::parameter(format!("`{name}` is given twice (first as `{first}`); give it once")));
            }
        }
        Ok(Self(params))
    }

    /// The names that were given.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The text of a parameter.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The parameter read by `parse`, which says what it should be.
    ///
    /// # Errors
    /// `parse` refuses it: the sentence names the parameter and what it should be.
    pub(crate) fn read<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Problem> {
        let wrong = |text: &str, why| Problem::parameter(format!("`{name}` is `{text}`; {why}"));
        self.text(name).map(|text| parse(text).map_err(|why| wrong(text, why))).transpose()
    }

    /// A switch, off where it is not given.
    pub(crate) fn switch(&self, name: &str) -> Result<bool, Problem> {
        self.switch_or(name, false)
    }

    /// A switch, so where it is not given.
    pub(crate) fn switch_or(&self, name: &str, absent: bool) -> Result<bool, Problem> {
        let parse = |text: &str| text.parse().map_err(|_| "it must be true or false".to_owned());
        Ok(self.read(name, parse)?.unwrap_or(absent))
    }

    /// A length of time.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<Duration>, Problem> {
        let parse = |text: &str| {
            humantime::parse_duration(text)
                .map_err(|error| format!("it must be a length of time such as 500ms, 6s or 1h: {error}"))
        };
        self.read(name, parse)
    }

    /// Which part of a list is wanted.
    ///
    /// # Errors
    /// The limit is not 1 to [`PAGE_MAX`].
    pub(crate) fn page(&self) -> Result<PageQuery, Problem> {
        let parse = |text: &str| match text.parse::<usize>() {
            Ok(limit) if (1..=PAGE_MAX).contains(&limit) => Ok(limit),
            _ => Err(format!("it must be 1 to {PAGE_MAX}")),
        };
        let limit = self.read("limit", parse)?.unwrap_or(PAGE_DEFAULT);
        Ok(PageQuery { after: self.text("after").map(str::to_owned), limit })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

/// A name or a value of a query, in which `+` is a blank.
fn decode(text: &str) -> Result<String, Problem> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Into::into).map_err(|_| Problem::parameter(format!("`{text}` in the query is not UTF-8")))
}

/// Part of a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PageQuery {
    /// The mark after which it begins: `next` of the page before.
    pub(crate) after: Option<String>,
    /// Items at most, 1 to [`PAGE_MAX`].
    pub(crate) limit: usize,
}

/// Reads a time as answers write it, or in milliseconds since 1970.
pub(crate) fn time_ms(text: &str) -> Result<u64, String> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    let wrong = "it must be a time in UTC such as 2026-01-31T10:00:00Z, or milliseconds since 1970";
    let time = humantime::parse_rfc3339_weak(text).map_err(|_| wrong.to_owned())?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| wrong.to_owned())?;
    u64::try_from(since.as_millis()).map_err(|_| wrong.to_owned())
}

/// The same, or how long ago by this machine's clock.
pub(crate) fn time_or_ago(text: &str) -> Result<u64, String> {
    let Ok(ago) = humantime::parse_duration(text) else {
        return time_ms(text).map_err(|wrong| format!("{wrong}, or how long ago, such as 10m"));
    };
    let then = SystemTime::now().checked_sub(ago).and_then(|then| then.duration_since(UNIX_EPOCH).ok());
    Ok(then.map_or(0, |then| u64::try_from(then.as_millis()).unwrap_or(u64::MAX)))
}

/// Reads a body that is a JSON object.
///
/// # Errors
/// It is empty, no JSON, or another kind of document.
pub(crate) fn object(body: &[u8]) -> Result<serde_json::Map<String, Value>, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::malformed("the body is empty; send a JSON object, {} if nothing is to be said"));
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Problem::malformed("the body is JSON, but not an object in braces")),
        Err(error) => Err(Problem::malformed(format!("the body is not JSON: {error}"))),
    }
}

/// Takes out a member that answers carry and requests may repeat; it must say what the path says.
///
/// # Errors
/// It says another name: one of the two is a mistake, and only the caller knows which.
pub(crate) fn take_name(object: &mut serde_json::Map<String, Value>, name: &str) -> Result<(), Problem> {
    match object.remove("name") {
        Some(said) if said != name => {
            Err(Refusal::Invalid(format!("\"name\" is {said}, and the path says {name:?}; leave it out")).into())
        }
        _ => Ok(()),
    }
}

/// Reads a document; an unknown member or a wrong value is an error that names it.
pub(crate) fn document<T: DeserializeOwned>(object: serde_json::Map<String, Value>) -> Result<T, Problem> {
    serde_json::from_value(Value::Object(object)).map_err(|error| Refusal::Invalid(error.to_string()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_given_once() {
        let params = Params::parse("topic=%25DLQ%25g&older_than=1h+30m&&force").unwrap();
        assert_eq!(params.text("topic"), Some("%DLQ%g"));
        assert_eq!(params.duration("older_than").unwrap(), Some(Duration::from_secs(5400)));
        assert_eq!(params.text("force"), Some(""));
        assert!(Params::parse("a=1&a=1").is_err() && Params::parse("a=%FF").is_err());
    }

    #[test]
    fn a_page_holds_one_to_a_thousand_items() {
        let limit = |query| Params::parse(query).unwrap().page().map(|page| page.limit);
        assert_eq!(limit("").unwrap(), PAGE_DEFAULT);
        assert_eq!((limit("limit=1").unwrap(), limit("limit=1000").unwrap()), (1, PAGE_MAX));
        for wrong in ["limit=0", "limit=1001", "limit=-1", "limit=", "limit=x", "limit=99999999999999999999"] {
            assert!(limit(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_is_written_as_answers_write_it_or_in_milliseconds() {
        assert_eq!(time_ms("1700000000007"), Ok(1_700_000_000_007));
        assert_eq!(time_ms("2023-11-14T22:13:20.007Z"), Ok(1_700_000_000_007));
        assert_eq!(time_ms(&crate::http::answer::time(5)), Ok(5));
        for wrong in ["", "yesterday", "-1", "2023-11-14T22:13:20+02:00", "99999999999999999999"] {
            assert!(time_ms(wrong).is_err() && time_or_ago(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_may_be_given_as_how_long_ago() {
        assert_eq!(time_or_ago("2023-11-14T22:13:20.007Z"), Ok(1_700_000_000_007));
        assert_eq!(time_or_ago("7"), Ok(7));
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let hour_ago = time_or_ago("1h").unwrap();
        assert!((now - 3_600_000..now - 3_500_000).contains(&hour_ago), "{hour_ago}");
        assert_eq!(time_or_ago("1000years"), Ok(0));
    }

    #[test]
    fn a_switch_is_true_or_false() {
        let or_true = |query| Params::parse(query).unwrap().switch_or("force", true);
        assert!(or_true("").unwrap() && !or_true("force=false").unwrap() && or_true("force=no").is_err());
        let force = |query| Params::parse(query).unwrap().switch("force");
        assert!(force("force=true").unwrap() && !force("force=false").unwrap() && !force("").unwrap());
        assert!(force("force=yes").is_err() && force("force").is_err());
    }
}
