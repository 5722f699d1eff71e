//! What the component that ships with Vouch takes for an answer, against a real server: the service's own, whole and
//! unambiguous word, and nothing else.

use vouch_plugin::{BindingSpec, ByteSize};

use crate::{
    http_checkback::{ask, component, config, grant, rolled_back, unknown},
    http_server::{Reply, Server},
    support::{COMMIT, House, guest_error},
};

const PAID: &str = r#"{"status":"paid"}"#;

/// As a user writes it who only wants to know whether the order is there.
fn by_status(spec: &mut BindingSpec) {
    spec.config.remove("field");
    config(spec, &[("commit", "200"), ("rollback", "410")]);
}

/// Leaves the binding as `ask` makes it: the status in the answer decides.
fn by_field(_: &mut BindingSpec) {}

/// The two ways in which a binding may read an answer.
const BOTH: [fn(&mut BindingSpec); 2] = [by_field, by_status];

/// 200 with these further header lines.
fn paid_with(headers: &str) -> Reply {
    Reply::Full(200, headers.to_owned(), PAID.as_bytes().to_vec())
}

fn raw(text: &str) -> Reply {
    Reply::Raw(text.as_bytes().to_vec())
}

#[tokio::test]
async fn without_a_field_a_redirect_is_no_answer_and_is_not_followed() {
    let house = House::new();
    for status in [300, 301, 302, 303, 305, 307, 308, 399] {
        let server = Server::start(move |path| match path {
            "/orders/A%2017" => Reply::redirect(status, "/login"),
            _ => Reply::status(200),
        });
        let checked = house
            .check(component(), |spec| {
                grant(spec, &server.origin());
                config(spec, &[("url", &format!("{}/orders/{{key}}", server.origin())), ("commit", "200")]);
            })
            .await;
        let error = guest_error(checked);
        assert!(error.contains(&format!("status {status} points elsewhere")), "{error}");
        assert_eq!(server.requests().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_redirect_that_names_no_one_place_is_no_answer() {
    let house = House::new();
    let to = |headers: &str, status| Reply::Full(status, headers.to_owned(), PAID.as_bytes().to_vec());
    for headers in ["", "location: \r\n", "location: ftp://o/x\r\n", "location: /a\r\nlocation: /b\r\n"] {
        for read in BOTH {
            let error = guest_error(ask(&house, to(headers, 302), read).await);
            assert!(error.contains("302"), "{headers:?}: {error}");
        }
    }
    // These are not to be followed: they leave a choice, speak of a copy that nobody has, or of a proxy.
    for status in [300, 304, 305, 306, 310] {
        guest_error(ask(&house, to("location: /a\r\n", status), by_field).await);
    }
}

#[tokio::test]
async fn what_stands_where_a_redirect_leads_settles_only_by_the_field() {
    let house = House::new();
    let page = "<html><form>Log in</form></html>".as_bytes().to_vec();
    for (login, word) in [
        (Reply::Full(200, "content-type: text/html\r\n".to_owned(), page), "not JSON"),
        (Reply::status(404), "redirect"),
        (Reply::status(401), "401"),
    ] {
        let server = Server::start(move |path| match path {
            "/orders/A%2017" => Reply::redirect(302, "/login"),
            _ => login.clone(),
        });
        let checked = house
            .check(component(), |spec| {
                grant(spec, &server.origin());
                let url = format!("{}/orders/{{key}}", server.origin());
                config(spec, &[("url", &url), ("field", "/status"), ("commit", "paid")]);
                config(spec, &[("rollback-missing-after", "1s")]);
            })
            .await;
        let error = guest_error(checked);
        assert!(error.contains(word), "{error}");
        assert_eq!(server.requests().len(), 2);
    }
}

#[tokio::test]
async fn what_did_not_come_whole_is_no_answer() {
    let house = House::new();
    for cut_off in [
        // Shorter than its header promised, at a place where what came is whole by itself.
        format!("HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n{PAID}"),
        // Without its last chunk; within one; with a length that is none.
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n11\r\n{PAID}\r\n"),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n12\r\n{PAID}"),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxx\r\n{PAID}\r\n0\r\n\r\n"),
        // Two lengths.
        format!("HTTP/1.1 200 OK\r\ncontent-length: 17\r\ncontent-length: 18\r\n\r\n{PAID}"),
        // Within the header.
        "HTTP/1.1 200 OK\r\ncontent-le".to_owned(),
        "HTTP/1.1 200".to_owned(),
    ] {
        for read in BOTH {
            guest_error(ask(&house, raw(&cut_off), read).await);
        }
    }
    let whole = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n11\r\n{PAID}\r\n0\r\n\r\n");
    for read in BOTH {
        assert_eq!(ask(&house, raw(&whole), read).await, COMMIT);
    }
}

#[tokio::test]
async fn an_answer_without_a_body_has_no_field() {
    let house = House::new();
    for status in [204, 205] {
        let error = guest_error(ask(&house, raw(&format!("HTTP/1.1 {status} x\r\n\r\n")), by_field).await);
        assert!(error.contains("not JSON"), "{error}");
    }
}

#[tokio::test]
async fn what_comes_before_the_answer_is_passed_over() {
    let house = House::new();
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    for read in BOTH {
        let answered = raw(&format!("{hints}HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n{PAID}"));
        assert_eq!(ask(&house, answered, read).await, COMMIT);
        for unanswered in [hints, "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"] {
            guest_error(ask(&house, raw(unanswered), read).await);
        }
    }
}

#[tokio::test]
async fn the_word_of_somebody_in_between_is_no_answer() {
    let house = House::new();
    for read in BOTH {
        for status in [203, 206, 226, 401, 407, 421, 425, 429, 502, 504, 511] {
            let error = guest_error(ask(&house, Reply::Full(status, String::new(), PAID.into()), read).await);
            assert!(error.contains(&status.to_string()), "{error}");
        }
        assert_eq!(ask(&house, paid_with("age: 0\r\n"), read).await, COMMIT);
        let error = guest_error(ask(&house, paid_with("age: 1\r\nvia: 1.1 cache\r\n"), read).await);
        assert!(error.contains("cache"), "{error}");
    }
    let stale = Reply::Full(404, "age: 30\r\n".to_owned(), Vec::new());
    let patient = |spec: &mut BindingSpec| config(spec, &[("rollback-missing-after", "1s")]);
    assert!(guest_error(ask(&house, stale, patient).await).contains("cache"));
}

#[tokio::test]
async fn a_body_that_is_written_in_another_way_than_was_asked_for_is_no_answer() {
    let house = House::new();
    let error = guest_error(ask(&house, paid_with("content-encoding: gzip\r\n"), by_field).await);
    assert!(error.contains("encoded as gzip"), "{error}");
    let latin =
        Reply::Full(200, "content-type: application/json; charset=iso-8859-1\r\n".to_owned(), "{\"s\":\"ü\"}".into());
    assert!(guest_error(ask(&house, latin, by_field).await).contains("UTF-8"));
    let wide: Vec<u8> = format!("\u{feff}{PAID}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(guest_error(ask(&house, Reply::Full(200, String::new(), wide), by_field).await).contains("not JSON"));
    assert_eq!(ask(&house, Reply::json(&format!("\u{feff}{PAID}")), by_field).await, COMMIT);
}

#[tokio::test]
async fn a_member_that_is_there_twice_is_no_answer() {
    let house = House::new();
    for body in [r#"{"status":"cancelled","status":"paid"}"#, r#"{"status":"paid","\u0073tatus":"paid"}"#] {
        let error = guest_error(ask(&house, Reply::json(body), by_field).await);
        assert!(error.contains("the member `status` is there twice"), "{error}");
    }
    assert_eq!(ask(&house, Reply::json(r#"{"x":1,"x":2,"status":"paid"}"#), by_field).await, COMMIT);
}

#[tokio::test]
async fn a_value_is_compared_as_it_is_written() {
    let house = House::new();
    let numbers = |spec: &mut BindingSpec| config(spec, &[("commit", "1,9007199254740993"), ("rollback", "0,false")]);
    let answer = |value: &str| Reply::json(&format!(r#"{{"status":{value}}}"#));
    for value in ["1", r#""1""#, "9007199254740993"] {
        assert_eq!(ask(&house, answer(value), numbers).await, COMMIT, "{value}");
    }
    for value in ["0", "false", r#""false""#] {
        rolled_back(ask(&house, answer(value), numbers).await);
    }
    for value in ["1.0", "1e0", "9007199254740992", "9007199254740993.0", "0.0", "-0", "true", "null", "[1]"] {
        unknown(ask(&house, answer(value), numbers).await);
    }
    for value in ["NaN", "01", "Infinity", "1.", "TRUE"] {
        assert!(guest_error(ask(&house, answer(value), numbers).await).contains("not JSON"), "{value}");
    }
}

#[tokio::test]
async fn a_body_may_be_a_mebibyte_long_and_not_longer() {
    let house = House::new();
    let body = |size: usize| PAID.to_owned() + &" ".repeat(size - PAID.len());
    for read in BOTH {
        let roomy = |spec: &mut BindingSpec| {
            read(spec);
            spec.limits.http_response = ByteSize::mib(2);
        };
        assert_eq!(ask(&house, Reply::json(&body(1 << 20)), roomy).await, COMMIT);
        let error = guest_error(ask(&house, Reply::json(&body((1 << 20) + 1)), roomy).await);
        assert!(error.contains("longer than 1 MiB"), "{error}");
        let error = guest_error(ask(&house, Reply::EndlessBody, roomy).await);
        assert!(error.contains("longer than 1 MiB"), "{error}");
    }
}

/// The same values, by the same component: who sets the binding is told at once, and one that was set before settles nothing.
#[tokio::test]
async fn settings_that_can_never_answer_are_refused_when_they_are_set_and_settle_nothing() {
    let house = House::new();
    let plugin = house.load(component()).await;
    type Config = &'static [(&'static str, &'static str)];
    let wrong: &[(Config, &str)] = &[
        (&[("commit", "200"), ("rollback", "410,200")], "`200`"),
        (&[("commit", "200,302")], "302"),
        (&[("commit", "placed")], "`placed`"),
        (&[("commit", "200"), ("rollback", "0404")], "`0404`"),
        (&[("commit", "200"), ("rollback", "404"), ("rollback-missing-after", "1h")], "404"),
        (&[("commit", "200"), ("rollback-missing-after", "soon")], "`soon`"),
        (&[("commit", "paid"), ("field", "status")], "`status`"),
        (&[("commit", "paid"), ("field", "/a~b")], "`/a~b`"),
        (&[("commit", "200"), ("url", "http://127.0.0.1:1/#/orders/{key}")], "a #"),
        (&[("commit", "200"), ("url", "http://me:pw@127.0.0.1:1/{key}")], "user or password"),
        (&[("commit", "200"), ("url", "127.0.0.1:1/{key}")], "`url`"),
        (&[("commit", "200"), ("url", "ftp://127.0.0.1:1/{key}")], "`url`"),
        (&[("commit", "200"), ("url", "http://{property.host}/{key}")], "host"),
        (&[("commit", "200"), ("url", "http://127.0.0.1:1/{kye}")], "{kye}"),
        (&[("commit", "200"), ("url", "http://127.0.0.1:1/{property.}")], "{property.}"),
        (&[("commit", "200"), ("url", "http://127.0.0.1:1/{key")], "a { without its }"),
        (&[("commit", "200"), ("url", "http://127.0.0.1:1/key}")], "a } without its {"),
        (&[("commit", "200"), ("authorization", "")], "`authorization` is empty"),
        (&[("commit", "200"), ("authorization", "Bearer x\n")], "line end"),
    ];
    for (wrong, word) in wrong {
        let server = Server::start(|_| Reply::status(200));
        let mut refused = Ok(());
        let checked = house
            .check(component(), |spec| {
                grant(spec, &server.origin());
                grant(spec, "http://127.0.0.1:1");
                config(spec, &[("url", &format!("{}/orders/{{key}}", server.origin()))]);
                config(spec, &[("commit", "200")]);
                assert_eq!(plugin.check_config(spec), Ok(()));
                config(spec, wrong);
                refused = plugin.check_config(spec);
            })
            .await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("config `") && refused.contains(word), "{wrong:?}: {refused}");
        let error = guest_error(checked);
        assert!(error.contains("config `") || error.contains(word), "{error}");
        assert!(server.requests().is_empty(), "{wrong:?}");
    }
}

/// What the host would deny each time is known when the binding is set.
#[tokio::test]
async fn a_url_whose_origin_is_not_granted_is_refused_when_it_is_set() {
    let plugin = House::new().load(component()).await;
    let mut spec = BindingSpec::new("test");
    config(&mut spec, &[("url", "http://127.0.0.1:9000/orders/{key}"), ("commit", "200")]);
    for granted in [&[][..], &["http://127.0.0.1:9001"], &["https://127.0.0.1:9000", "http://localhost:9000"]] {
        spec.grants.http.clear();
        granted.iter().for_each(|origin| grant(&mut spec, origin));
        let error = plugin.check_config(&spec).unwrap_err().to_string();
        assert!(error.contains("http://127.0.0.1:9000") && error.contains("grants.http"), "{error}");
        assert!(granted.iter().all(|origin| error.contains(origin)), "{error}");
    }
    grant(&mut spec, "HTTP://127.1:9000");
    assert_eq!(plugin.check_config(&spec), Ok(()));
}
