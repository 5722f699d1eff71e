//! What values have to be, each kind by itself. What is said here is the end of a sentence that begins with the setting's name,
//! and tells nothing of the value that could be a secret.

use http::{HeaderValue, Uri};
use url::Url;

use crate::grants::{HttpGrant, Origin};

/// Most origins that are told where the right one is missing.
const GRANTS_TOLD: usize = 3;

/// A whole number and its unit.
pub(super) fn is_duration(text: &str) -> bool {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit.trim_start() {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return false,
    };
    number.parse::<u64>().is_ok_and(|number| number.checked_mul(unit_ms).is_some())
}

/// What is filled in later (`{key}`) stands behind the host.
pub(super) fn is_url(text: &str) -> bool {
    let host = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    let authority = text.split_once("://").map(|(_, rest)| &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())]);
    authority.is_some_and(|authority| !authority.contains(['{', '}'])) && Url::parse(text).is_ok_and(|url| host(&url))
}

/// Why a URL is none for requests.
pub(super) enum WrongUrl {
    /// It is no URL of a host at all.
    No,
    /// This is in it, or is missing.
    Because(String),
}

/// Whether a request could be sent to a URL as it is written, and whether the host would let it: read in the way in which a
/// request of a guest is.
pub(super) fn request_url(text: &str, filled_in: bool, grants: &[HttpGrant]) -> Result<(), WrongUrl> {
    let because = |what: &str| Err(WrongUrl::Because(what.to_owned()));
    let (scheme, rest) = text.split_once("://").ok_or(WrongUrl::No)?;
    let authority = &rest[..rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len())];
    if !matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") || authority.is_empty() {
        return Err(WrongUrl::No);
    }
    if authority.contains('@') {
        return because(
            "has user or password in front of its host, and no request takes these along: leave them out; a header can \
             carry what the service wants to know",
        );
    }
    if authority.contains(['{', '}']) {
        return because("has {…} in its host; whom to ask is for you to say: write it out, and fill in behind it");
    }
    if text.contains('#') {
        return because("has a #, and nothing behind it would be sent: write %23 if it is meant");
    }
    let sample = if filled_in { filled(text) } else { text.to_owned() };
    let uri: Uri = sample.parse().map_err(|error| {
        WrongUrl::Because(format!(
            "is no URL that can be sent ({error}): write what is no plain letter or digit percent-encoded, a blank as %20, \
             and a host as the network knows it"
        ))
    })?;
    let origin = Origin::of_request(&uri).ok_or(WrongUrl::No)?;
    if grants.iter().any(|grant| grant.origin == origin) {
        return Ok(());
    }
    let granted = match grants {
        [] => "nothing".to_owned(),
        some => {
            let told: Vec<String> = some.iter().take(GRANTS_TOLD).map(|grant| grant.origin.to_string()).collect();
            let more = some.len().saturating_sub(GRANTS_TOLD);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{}{more}", told.join(", "))
        }
    };
    Err(WrongUrl::Because(format!(
        "asks {origin}, and the binding grants {granted}: every request would be denied; list that origin in grants.http"
    )))
}

/// With something in place of what stands in braces.
fn filled(text: &str) -> String {
    let mut sample = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        sample.push_str(before);
        sample.push('x');
        rest = behind.split_once('}').map_or("", |(_, rest)| rest);
    }
    sample + rest
}

/// Whether a text is a JSON pointer.
pub(super) fn json_pointer(text: &str) -> Result<(), &'static str> {
    if !text.is_empty() && !text.starts_with('/') {
        return Err("a JSON pointer begins with /, such as /status or /order/status");
    }
    let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if escapes { Ok(()) } else { Err("in a JSON pointer ~ is written ~0, and a / within a name ~1") }
}

/// The values in a text: those between the commas of a list, or the one that it is; none where nothing is written.
pub(super) fn parts(text: &str, is_list: bool) -> impl Iterator<Item = &str> {
    text.split(move |letter| is_list && letter == ',').map(str::trim).filter(|part| !part.is_empty())
}

/// What [`is_status`] takes, in words.
pub(super) const STATUS_CODES: &str = "status code that can be an answer: write some of 200–299 and 400–499 (never 203, 206, \
                                       226, 401, 407, 408, 421, 425, 429)";

/// Whether a text is a status code that can be a service's word about the thing that it was asked for. No such word are what
/// says that it failed, ran out of time or did not look (5xx, 401, 408, 425, 429), what somebody in between says (203, 407,
/// 421), what is a part (206, 226), what points elsewhere (3xx), and what ends no exchange (1xx).
pub(super) fn is_status(text: &str) -> bool {
    let is_code = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_code
        && text.starts_with(['2', '4'])
        && !matches!(text, "203" | "206" | "226" | "401" | "407" | "408" | "421" | "425" | "429")
}

/// Whether a header can have a value.
pub(super) fn header(text: &str) -> Result<(), &'static str> {
    if text.trim().is_empty() {
        return Err("is empty: write its value, or leave the setting out");
    }
    match HeaderValue::from_bytes(text.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => Err("has a line end or another control character, which no header can have: take it out"),
    }
}

/// What is wrong with a template.
pub(super) enum Wrong {
    /// A brace without its other one.
    Brace(&'static str),
    /// What stands in braces is nothing that is filled in.
    Name {
        /// What stands there.
        found: String,
        /// What is nearest to it.
        meant: Option<String>,
        /// What is filled in, for the sentence.
        known: String,
    },
}

/// Whether all that stands in braces is filled in.
pub(super) fn variables(text: &str, known: &[String]) -> Result<(), Wrong> {
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let Some(behind) = rest[at..].strip_prefix('{') else {
            return Err(Wrong::Brace("a } without its {"));
        };
        let Some((name, after)) = behind.split_once('}') else {
            return Err(Wrong::Brace("a { without its }"));
        };
        if !known.iter().any(|known| is_variable(name, known)) {
            return Err(Wrong::Name { found: name.to_owned(), meant: nearest(name, known), known: told(known) });
        }
        rest = after;
    }
    Ok(())
}

/// Whether a name is one of those that `known` stands for.
fn is_variable(name: &str, known: &str) -> bool {
    match known.strip_suffix('*') {
        Some(prefix) => name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()),
        None => name == known,
    }
}

/// A name with a letter or two wrong.
fn nearest(name: &str, known: &[String]) -> Option<String> {
    const WRONG: usize = 2;
    // Looking for what two long names have in common takes their product.
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    let plain = known.iter().filter(|known| !known.ends_with('*') && known.len().abs_diff(name.len()) <= LONGEST);
    let far = |known: &&String| strsim::damerau_levenshtein(known, name);
    plain.min_by_key(far).filter(|known| far(known) <= WRONG && known.len() > WRONG).cloned()
}

/// The variables as they are written in a value.
fn told(known: &[String]) -> String {
    let written = |known: &String| match known.strip_suffix('*') {
        Some(prefix) => format!("{{{prefix}NAME}}"),
        None => format!("{{{known}}}"),
    };
    if known.is_empty() { "nothing".to_owned() } else { known.iter().map(written).collect::<Vec<_>>().join(", ") }
}
