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

fn by_status() -> Settings {
    settings(&[("commit", "200,204"), ("rollback", "410,404")])
}

const PAID: &[u8] = br#"{"order":{"status":"paid"}}"#;

fn plain(status: u16, body: &[u8]) -> Answer<'_> {
    Answer { status, headers: &[], body, redirected: false }
}

fn letter(decided: &Result<Decision, String>) -> &'static str {
    match decided {
        Ok(Decision::Commit) => "commit",
        Ok(Decision::Rollback(_)) => "rollback",
        Ok(Decision::Unknown(_)) => "unknown",
        Err(_) => "no answer",
    }
}

/// What a response says that is `PAID` with this header.
fn with_header(settings: &Settings, name: &str, value: &[u8], body: &[u8]) -> Result<Decision, String> {
    let headers = [("Date".to_owned(), b"today".to_vec()), (name.to_owned(), value.to_vec())];
    decide(settings, &Answer { headers: &headers, ..plain(200, body) }, 0)
}

#[test]
fn a_field_of_the_answer_decides() {
    let decide = |body: &str| decide(&by_field(), &plain(200, body.as_bytes()), 0);
    let order = |value: &str| format!(r#"{{"order":{{"status":{value}}}}}"#);
    for value in [r#""paid""#, "true", r#""true""#, "7", r#""7""#] {
        assert_eq!(decide(&order(value)), Ok(Decision::Commit), "{value}");
    }
    for value in [r#""cancelled""#, "null"] {
        assert!(matches!(decide(&order(value)), Ok(Decision::Rollback(_))), "{value}");
    }
    for value in [r#""open""#, r#""PAID""#, r#"" paid""#, "8", "7.0", "7e0", "07.0e0", "[]", "{}", "false"] {
        assert_ne!(letter(&decide(&order(value))), "commit", "{value}");
        assert_ne!(letter(&decide(&order(value))), "rollback", "{value}");
    }
    assert_eq!(letter(&decide("{}")), "unknown");
}

#[test]
fn a_body_that_is_not_json_is_no_answer() {
    for body in [&b""[..], b"<html>", br#"{"order":"#, b"\xff\xfe{\0}\0", b"{\"order\":{\"status\":\"\xe4\"}}", b"NaN"]
    {
        let error = decide(&by_field(), &plain(200, body), 0).unwrap_err();
        assert!(error.contains("not JSON"), "{error}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_no_answer() {
    let twice = br#"{"order":{"status":"paid","status":"paid"}}"#;
    assert!(decide(&by_field(), &plain(200, twice), 0).unwrap_err().contains("twice"));
}

#[test]
fn with_a_field_a_status_that_is_not_2xx_is_not_read() {
    for status in [200, 201, 202, 299] {
        assert_eq!(decide(&by_field(), &plain(status, PAID), 0), Ok(Decision::Commit), "{status}");
    }
    for status in [400, 403, 404, 410, 499] {
        assert_eq!(letter(&decide(&by_field(), &plain(status, PAID), 0)), "unknown", "{status}");
    }
}

#[test]
fn without_a_field_the_status_decides() {
    for (status, expected) in [
        (200, "commit"),
        (204, "commit"),
        (410, "rollback"),
        (404, "rollback"),
        (201, "unknown"),
        (400, "unknown"),
        (403, "unknown"),
    ] {
        assert_eq!(letter(&decide(&by_status(), &plain(status, b"not read"), 0)), expected, "{status}");
    }
}

#[test]
fn what_is_not_the_services_word_about_the_thing_is_no_answer() {
    let redirects = 300..=399;
    let others =
        [100, 101, 103, 199, 203, 206, 226, 401, 407, 408, 421, 425, 429, 500, 502, 503, 504, 511, 599, 600, 999];
    for status in redirects.chain(others) {
        for settings in [by_field(), by_status()] {
            let error = decide(&settings, &plain(status, PAID), u64::MAX).unwrap_err();
            assert!(error.contains(&status.to_string()), "{error}");
        }
    }
}

#[test]
fn what_a_cache_kept_is_no_answer() {
    for settings in [by_field(), by_status()] {
        assert_eq!(with_header(&settings, "Age", b" 0 ", PAID), Ok(Decision::Commit));
        for age in [&b"1"[..], b"86400", b"", b"-1", b"00", b"0, 5", b"soon"] {
            assert!(with_header(&settings, "AGE", age, PAID).unwrap_err().contains("cache"), "{age:?}");
        }
    }
    // That there was no such order some time ago least of all.
    let patient = settings(&[("field", "/s"), ("commit", "paid"), ("rollback-missing-after", "10s")]);
    let headers = [("age".to_owned(), b"0".to_vec()), ("age".to_owned(), b"9".to_vec())];
    assert!(decide(&patient, &Answer { headers: &headers, ..plain(404, b"") }, u64::MAX).is_err());
}

#[test]
fn a_body_in_another_encoding_than_was_asked_for_is_no_answer() {
    assert_eq!(with_header(&by_field(), "Content-Encoding", b"Identity", PAID), Ok(Decision::Commit));
    for coding in ["gzip", "br", "identity, gzip", ""] {
        let error = with_header(&by_field(), "content-encoding", coding.as_bytes(), PAID).unwrap_err();
        assert!(error.contains("encoded"), "{error}");
    }
    // Where the body is not read, its encoding changes nothing.
    assert_eq!(with_header(&by_status(), "content-encoding", b"gzip", b"\x1f\x8b"), Ok(Decision::Commit));
}

#[test]
fn a_body_in_another_character_set_than_utf_8_is_no_answer() {
    let settings = settings(&[("field", "/s"), ("commit", "bezahlt,geprüft")]);
    let (ascii, utf_8) = (br#"{"s":"bezahlt"}"#, r#"{"s":"geprüft"}"#.as_bytes());
    for content_type in
        ["application/json", "application/json; charset=UTF-8", r#"text/plain;a=b; Charset="utf-8""#, ";="]
    {
        let decided = with_header(&settings, "content-type", content_type.as_bytes(), utf_8);
        assert_eq!(decided, Ok(Decision::Commit), "{content_type}");
    }
    for content_type in ["application/json;charset=ISO-8859-1", "application/json; charset=\"windows-1252\""] {
        let decided = with_header(&settings, "content-type", content_type.as_bytes(), ascii);
        assert_eq!(decided, Ok(Decision::Commit), "{content_type}");
        let error = with_header(&settings, "content-type", content_type.as_bytes(), utf_8).unwrap_err();
        assert!(error.contains("UTF-8"), "{error}");
    }
}

#[test]
fn one_byte_order_mark_is_passed_over() {
    let marked = |marks: usize| [b"\xef\xbb\xbf".repeat(marks), PAID.to_vec()].concat();
    assert_eq!(decide(&by_field(), &plain(200, &marked(1)), 0), Ok(Decision::Commit));
    assert!(decide(&by_field(), &plain(200, &marked(2)), 0).is_err());
}

#[test]
fn what_is_missing_rolls_back_from_its_age_on() {
    let patient = settings(&[("field", "/s"), ("commit", "paid"), ("rollback-missing-after", "10s")]);
    let endless = settings(&[("field", "/s"), ("commit", "paid")]);
    let decide = |settings: &Settings, status, age_ms| letter(&decide(settings, &plain(status, b""), age_ms));
    assert_eq!(decide(&patient, 404, 9_999), "unknown");
    assert_eq!(decide(&patient, 404, 10_000), "rollback");
    assert_eq!(decide(&endless, 404, u64::MAX), "unknown");
    assert_eq!(decide(&patient, 410, u64::MAX), "unknown");
    let by_status = settings(&[("commit", "200"), ("rollback-missing-after", "10s")]);
    assert_eq!(decide(&by_status, 404, 9_999), "unknown");
    assert_eq!(decide(&by_status, 404, 10_000), "rollback");
}

#[test]
fn what_is_missing_where_a_redirect_leads_is_no_answer() {
    let moved = Answer { redirected: true, ..plain(404, b"") };
    let patient = settings(&[("field", "/s"), ("commit", "paid"), ("rollback-missing-after", "10s")]);
    assert!(decide(&patient, &moved, u64::MAX).unwrap_err().contains("redirect"));
    let endless = settings(&[("field", "/s"), ("commit", "paid")]);
    assert_eq!(letter(&decide(&endless, &moved, u64::MAX)), "unknown");
}
