//! From a response to a verdict.

use serde_json::Value;

use crate::settings::Settings;

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

/// Status codes that say nothing about the question: the service failed, ran out of time, or refused to look.
pub fn is_no_answer(status: u16) -> bool {
    status >= 500 || matches!(status, 408 | 429)
}

/// Reads a response. `age_ms` is the age of the transaction when it was asked about.
///
/// # Errors
/// Why the response is no answer.
pub fn decide(settings: &Settings, status: u16, body: &[u8], age_ms: u64) -> Result<Decision, String> {
    if is_no_answer(status) {
        return Err(format!("status {status}"));
    }
    let found = match &settings.field {
        None => Some(status.to_string()),
        Some(field) if (200..300).contains(&status) => {
            let json: Value = serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
            match json.pointer(field).map(text_of) {
                Some(Some(text)) => Some(text),
                Some(None) => return Ok(Decision::Unknown(format!("{field} is no plain value"))),
                None => return Ok(Decision::Unknown(format!("the answer has no {field}"))),
            }
        }
        Some(_) => None,
    };
    let value = found.as_deref().unwrap_or_default();
    let what = settings.field.as_deref().unwrap_or("status");
    if found.is_some() && settings.commit.iter().any(|listed| listed == value) {
        return Ok(Decision::Commit);
    }
    if found.is_some() && settings.rollback.iter().any(|listed| listed == value) {
        return Ok(Decision::Rollback(format!("{what} is {value}")));
    }
    if status == 404 {
        return Ok(missing(settings, age_ms));
    }
    Ok(Decision::Unknown(if found.is_some() { format!("{what} is {value}") } else { format!("status {status}") }))
}

fn missing(settings: &Settings, age_ms: u64) -> Decision {
    match settings.rollback_missing_after_ms {
        Some(after_ms) if age_ms >= after_ms => Decision::Rollback(format!("not found after {} s", age_ms / 1000)),
        Some(after_ms) => Decision::Unknown(format!("not found; rolls back {} s after the start", after_ms / 1000)),
        None => Decision::Unknown("not found".to_owned()),
    }
}

/// A plain value as it would be written in `commit` and `rollback`.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(config: &[(&str, &str)]) -> Settings {
        Settings::read(|name| {
            let set = config.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            set.or_else(|| (name == "url").then(|| "http://o/{key}".to_owned()))
        })
        .unwrap()
    }

    fn by_field() -> Settings {
        settings(&[("field", "/order/status"), ("commit", "paid,true,7"), ("rollback", "cancelled,null")])
    }

    #[test]
    fn a_field_of_the_answer_decides() {
        let decide = |body: &str| decide(&by_field(), 200, body.as_bytes(), 0);
        let order = |value: &str| format!(r#"{{"order":{{"status":{value}}}}}"#);
        for value in [r#""paid""#, "true", "7"] {
            assert_eq!(decide(&order(value)), Ok(Decision::Commit), "{value}");
        }
        for value in [r#""cancelled""#, "null"] {
            assert!(matches!(decide(&order(value)), Ok(Decision::Rollback(_))), "{value}");
        }
        for value in [r#""open""#, r#""PAID""#, r#"" paid""#, "8", "[]", "{}", "false"] {
            assert!(matches!(decide(&order(value)), Ok(Decision::Unknown(_))), "{value}");
        }
        assert!(matches!(decide("{}"), Ok(Decision::Unknown(_))));
    }

    #[test]
    fn a_body_that_is_not_json_is_no_answer() {
        for body in ["", "<html>", r#"{"order":"#] {
            assert!(decide(&by_field(), 200, body.as_bytes(), 0).unwrap_err().contains("not JSON"));
        }
    }

    #[test]
    fn with_a_field_another_status_than_2xx_is_not_read() {
        let paid = br#"{"order":{"status":"paid"}}"#;
        assert_eq!(decide(&by_field(), 299, paid, 0), Ok(Decision::Commit));
        for status in [300, 301, 400, 401, 403, 404, 499] {
            assert!(matches!(decide(&by_field(), status, paid, 0), Ok(Decision::Unknown(_))), "{status}");
        }
    }

    #[test]
    fn without_a_field_the_status_decides() {
        let settings = settings(&[("commit", "200,204"), ("rollback", "410,404")]);
        for (status, expected) in [(200, "c"), (204, "c"), (410, "r"), (404, "r"), (201, "u"), (302, "u"), (403, "u")] {
            let letter = match decide(&settings, status, b"not read", 0).unwrap() {
                Decision::Commit => "c",
                Decision::Rollback(_) => "r",
                Decision::Unknown(_) => "u",
            };
            assert_eq!(letter, expected, "{status}");
        }
    }

    #[test]
    fn a_service_that_failed_gave_no_answer() {
        for status in [408, 429, 500, 503, 599] {
            assert!(decide(&by_field(), status, b"{}", 0).is_err(), "{status}");
        }
        assert!(decide(&by_field(), 499, b"{}", 0).is_ok());
    }

    #[test]
    fn what_is_missing_rolls_back_from_its_age_on() {
        let patient = settings(&[("field", "/s"), ("commit", "paid"), ("rollback-missing-after", "10s")]);
        assert!(matches!(decide(&patient, 404, b"", 9_999), Ok(Decision::Unknown(_))));
        assert!(matches!(decide(&patient, 404, b"", 10_000), Ok(Decision::Rollback(_))));
        let endless = settings(&[("field", "/s"), ("commit", "paid")]);
        assert!(matches!(decide(&endless, 404, b"", u64::MAX), Ok(Decision::Unknown(_))));
        assert!(matches!(decide(&patient, 410, b"", u64::MAX), Ok(Decision::Unknown(_))));
    }
}
