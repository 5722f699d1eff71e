//! From a response to a verdict.
//!
//! What settles a transaction must be an unambiguous answer of the service itself. Everything else is no answer: what
//! somebody in between said or kept, what sends the asker elsewhere, what did not come whole, what can be read in two ways.

use crate::{
    field::{self, Found},
    settings::Settings,
};

/// The verdict, in this crate's own words.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// It happened.
    Commit,
    /// It did not, for this reason.
    Rollback(String),
    /// Not known yet, for this reason.
    Unknown(String),
}

/// A response that came whole.
#[derive(Clone, Debug)]
pub struct Answer<'a> {
    /// The final status code.
    pub status: u16,
    /// Names and values as they came; names in any case.
    pub headers: &'a [(String, Vec<u8>)],
    /// All of the body; may be left empty where the settings name no field.
    pub body: &'a [u8],
    /// Whether another URL than the one of the settings gave it.
    pub redirected: bool,
}

impl Answer<'_> {
    /// The values of a header.
    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let same_name = move |header: &&'a (String, Vec<u8>)| header.0.eq_ignore_ascii_case(name);
        self.headers.iter().filter(same_name).map(|(_, value)| value.trim_ascii())
    }
}

/// Whether a status code can be the service's word about the thing that was asked for. It is none when the service
/// failed, ran out of time or refused to look (5xx, 401, 408, 425, 429), when somebody in between speaks or changed what
/// was said (203, 407, 421, 511), when only a part or a difference came (206, 226), when it points elsewhere (3xx), and
/// when it ends no exchange (1xx).
pub fn may_be_an_answer(status: u16) -> bool {
    matches!(status, 200..=299 | 400..=499) && !matches!(status, 203 | 206 | 226 | 401 | 407 | 408 | 421 | 425 | 429)
}

/// Reads a response. `age_ms` is the age of the transaction when it was asked about.
///
/// # Errors
/// Why the response is no answer.
pub fn decide(settings: &Settings, answer: &Answer<'_>, age_ms: u64) -> Result<Decision, String> {
    let status = answer.status;
    if !may_be_an_answer(status) {
        return Err(no_answer(status));
    }
    if let Some(age) = answer.header("age").find(|age| *age != b"0") {
        let age = String::from_utf8_lossy(age);
        return Err(format!("status {status} from a cache (age: {age}), which is not the service's word of today"));
    }
    let value = match &settings.field {
        None => status.to_string(),
        Some(field) if (200..300).contains(&status) => match field::find(json_of(answer)?, field)? {
            Found::Value(value) => value,
            Found::NotPlain => return Ok(Decision::Unknown(format!("{field} is no plain value"))),
            Found::Nothing => return Ok(Decision::Unknown(format!("the answer has no {field}"))),
        },
        Some(_) if status == 404 => return missing(settings, answer, age_ms),
        Some(_) => return Ok(Decision::Unknown(format!("status {status}"))),
    };
    let what = settings.field.as_deref().unwrap_or("status");
    if settings.commit.contains(&value) {
        return Ok(Decision::Commit);
    }
    if settings.rollback.contains(&value) {
        return Ok(Decision::Rollback(format!("{what} is {value}")));
    }
    if settings.field.is_none() && status == 404 {
        return missing(settings, answer, age_ms);
    }
    Ok(Decision::Unknown(format!("{what} is {value}")))
}

fn no_answer(status: u16) -> String {
    let why = match status {
        300..=399 => "points elsewhere, and says nothing about what was asked for",
        203 => "was changed by somebody in between",
        206 | 226 => "is a part of an answer, and none was asked for",
        401 => "wants other credentials: see config `authorization`",
        407 | 421 | 511 => "comes from somebody in between",
        _ => return format!("status {status}"),
    };
    format!("status {status} {why}")
}

/// The body as text, unless its header says that it has to be read in another way.
fn json_of<'a>(answer: &Answer<'a>) -> Result<&'a str, String> {
    let told = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    // `accept-encoding: identity` was sent.
    if let Some(coding) = answer.header("content-encoding").find(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return Err(format!("the body is encoded as {}, which was not asked for", told(coding)));
    }
    // ASCII reads the same in every character set that is in use for JSON.
    let charset = answer.header("content-type").map(told).find_map(|content_type| charset(&content_type));
    if let Some(charset) = charset.filter(|charset| charset != "utf-8" && !answer.body.is_ascii()) {
        return Err(format!("the body is written in {charset}, and JSON in UTF-8"));
    }
    let text = std::str::from_utf8(answer.body).map_err(|error| format!("the body is not JSON: {error}"))?;
    // A byte order mark must not be there, and may be passed over (RFC 8259).
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// The parameter `charset` of a media type, in lower case.
fn charset(content_type: &str) -> Option<String> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_charset = name.trim().eq_ignore_ascii_case("charset");
        is_charset.then(|| value.trim().trim_matches('"').to_ascii_lowercase())
    })
}

fn missing(settings: &Settings, answer: &Answer<'_>, age_ms: u64) -> Result<Decision, String> {
    let Some(after_ms) = settings.rollback_missing_after_ms else {
        return Ok(Decision::Unknown("not found".to_owned()));
    };
    // Whoever is sent to a page that is not there has not learned that the order is not there.
    if answer.redirected {
        return Err("status 404 after a redirect: let config `url` name the address that knows".to_owned());
    }
    Ok(if age_ms >= after_ms {
        Decision::Rollback(format!("not found after {} s", age_ms / 1000))
    } else {
        Decision::Unknown(format!("not found; rolls back {} s after the start", after_ms / 1000))
    })
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
