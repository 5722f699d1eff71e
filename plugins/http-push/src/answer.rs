//! From a response to what becomes of the message.
//!
//! | the service | the message |
//! |---|---|
//! | 2xx | is acknowledged |
//! | a status in config `reject` | goes to the dead-letter topic |
//! | any other status, 3xx included | is delivered again: as the group's back-off says, or after `retry-after` |
//! | no response: no connection, a time-out, one that breaks off before its head is whole | is delivered again; the delivery failed |

use crate::retry_after;

/// Bytes of a response's body that a reason tells, at most.
pub const MAX_EXCERPT: usize = 200;

/// What becomes of the message.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The service has it.
    Ack,
    /// The service does not have it yet.
    Retry {
        /// What it said.
        reason: String,
        /// When it wants it again, in ms; `None`: it did not say.
        after_ms: Option<u32>,
    },
    /// The service never takes it, for this reason.
    Reject(String),
}

/// A response, as far as it was read.
#[derive(Debug)]
pub struct Response<'a> {
    /// Its status.
    pub status: u16,
    /// Names and values as they came; names in any case.
    pub headers: &'a [(String, Vec<u8>)],
    /// The beginning of its body.
    pub excerpt: &'a [u8],
}

/// Whether the body of such a response is worth reading: what it says goes into a reason.
pub fn tells_why(status: u16) -> bool {
    !is_success(status)
}

/// Reads a response that came at `now_ms`; `reject` are the statuses that reject.
pub fn decide(reject: &[u16], response: &Response<'_>, now_ms: u64) -> Answer {
    let status = response.status;
    if is_success(status) {
        return Answer::Ack;
    }
    let reason = reason(status, response.excerpt);
    if reject.contains(&status) {
        return Answer::Reject(reason);
    }
    let mut waits = response.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
    Answer::Retry { reason, after_ms: waits.find_map(|(_, value)| retry_after::wait_ms(value, now_ms)) }
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

fn reason(status: u16, excerpt: &[u8]) -> String {
    let said = one_line(excerpt);
    let hint = match status {
        300..=399 => " points elsewhere, and redirects are not followed: let config `url` name the place itself",
        _ => "",
    };
    if said.is_empty() { format!("status {status}{hint}") } else { format!("status {status}{hint}: {said}") }
}

/// The beginning of a body as people read it in a list.
fn one_line(excerpt: &[u8]) -> String {
    let excerpt = &excerpt[..excerpt.len().min(MAX_EXCERPT)];
    let text = String::from_utf8_lossy(excerpt);
    // A letter that was cut at the end.
    let text = text.trim_end_matches('\u{fffd}');
    let plain = text.replace(|letter: char| letter.is_control(), " ");
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const REJECT: [u16; 4] = [400, 413, 415, 422];

    fn answer(status: u16, excerpt: &[u8]) -> Answer {
        decide(&REJECT, &Response { status, headers: &[], excerpt }, 0)
    }

    fn after_ms(status: u16, headers: &[(&str, &str)]) -> Option<u32> {
        let headers: Vec<(String, Vec<u8>)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        match decide(&REJECT, &Response { status, headers: &headers, excerpt: b"" }, 0) {
            Answer::Retry { after_ms, .. } => after_ms,
            other => panic!("{status}: {other:?}"),
        }
    }

    #[test]
    fn every_2xx_acknowledges() {
        for status in 200..300 {
            assert_eq!(answer(status, b"what it says is not read"), Answer::Ack, "{status}");
            assert!(!tells_why(status));
        }
        assert_eq!(decide(&[204], &Response { status: 204, headers: &[], excerpt: b"" }, 0), Answer::Ack);
    }

    #[test]
    fn only_the_statuses_that_are_listed_reject() {
        for status in (100..200).chain(300..=999) {
            assert!(tells_why(status));
            match answer(status, b"no") {
                Answer::Reject(reason) => {
                    assert!(REJECT.contains(&status), "{status}");
                    assert_eq!(reason, format!("status {status}: no"));
                }
                Answer::Retry { reason, after_ms: None } => {
                    assert!(!REJECT.contains(&status), "{status}");
                    assert!(reason.starts_with(&format!("status {status}")) && reason.ends_with(": no"), "{reason}");
                }
                other => panic!("{status}: {other:?}"),
            }
        }
        let gone = Response { status: 410, headers: &[], excerpt: b"" };
        assert_eq!(decide(&[410], &gone, 0), Answer::Reject("status 410".to_owned()));
    }

    #[test]
    fn a_redirect_says_that_it_is_not_followed() {
        let Answer::Retry { reason, .. } = answer(302, b"") else { panic!("a redirect is no success") };
        assert!(reason.contains("redirects are not followed"), "{reason}");
    }

    #[test]
    fn a_service_may_say_when_it_wants_the_message_again() {
        for status in [429, 503, 301, 500] {
            assert_eq!(after_ms(status, &[("Retry-After", "7")]), Some(7000), "{status}");
        }
        assert_eq!(after_ms(503, &[("retry-after", "soon"), ("RETRY-AFTER", "9")]), Some(9000));
        assert_eq!(after_ms(503, &[("retry-after", "Thu, 01 Jan 1970 00:00:05 GMT")]), Some(5000));
        assert_eq!(after_ms(503, &[("date", "7")]), None);
        let headers = [("retry-after".to_owned(), b"7".to_vec())];
        let rejected = Response { status: 422, headers: &headers, excerpt: b"" };
        assert_eq!(decide(&REJECT, &rejected, 0), Answer::Reject("status 422".to_owned()), "it is never wanted again");
    }

    #[test]
    fn a_reason_has_at_most_200_bytes_of_the_body_in_one_line() {
        let told = |body: &[u8]| match answer(422, body) {
            Answer::Reject(reason) => reason.strip_prefix("status 422").unwrap().trim_start_matches(": ").to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(told(b"{\n  \"error\":\t\"no\x1b[31m\"\r\n}\0"), "{ \"error\": \"no [31m\" }");
        assert_eq!(told(&[b'x'; 201]).len(), 200);
        assert_eq!(told(b" \n "), "");
        // The last letter has two bytes, of which one is left.
        assert_eq!(told(format!("{}ä", "x".repeat(199)).as_bytes()), "x".repeat(199));
        assert_eq!(told(b"a\xffb"), "a\u{fffd}b");
    }
}
