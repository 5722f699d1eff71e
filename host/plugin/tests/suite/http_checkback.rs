//! The component that ships with Vouch, against a real server.
//!
//! `VOUCH_PLUGIN_DIST` names another folder to take the component from: one that was just built.

use std::{
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use vouch_plugin::{BindingSpec, ByteSize, Checked, LogSource, NoAnswer, Pending, Verdict, World};

use crate::{
    http_server::{Reply, Server},
    support::{COMMIT, House, Table, guest_error, no_answer, pending},
};

pub(crate) fn component() -> Bytes {
    let checked_in = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist"));
    let folder = std::env::var_os("VOUCH_PLUGIN_DIST").map_or_else(checked_in, PathBuf::from);
    let path = folder.join("http-checkback.wasm");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run plugins/build", path.display())).into()
}

pub(crate) fn grant(spec: &mut BindingSpec, origin: &str) {
    let grants = format!(r#"{{"http":["{origin}"]}}"#);
    spec.grants.http.extend(serde_json::from_str::<vouch_plugin::Grants>(&grants).unwrap().http);
}

pub(crate) fn config(spec: &mut BindingSpec, entries: &[(&str, &str)]) {
    spec.config.extend(entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
}

/// A binding as a user writes it: ask `origin` for the order, compare its status.
pub(crate) fn orders(spec: &mut BindingSpec, origin: &str) {
    config(spec, &[("url", &format!("{origin}/orders/{{key}}")), ("field", "/status")]);
    config(spec, &[("commit", "paid,shipped"), ("rollback", "cancelled")]);
}

/// Asks once about an order that the server answers for so.
pub(crate) async fn ask(house: &House, reply: Reply, change: impl FnOnce(&mut BindingSpec)) -> Checked {
    let server = Server::start(move |_| reply.clone());
    house
        .check(component(), |spec| {
            grant(spec, &server.origin());
            orders(spec, &server.origin());
            change(spec);
        })
        .await
}

pub(crate) fn unknown(checked: Checked) -> String {
    match checked {
        Checked::Answer(Verdict::Unknown { reason, retry_after: None }) => reason,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn rolled_back(checked: Checked) -> String {
    match checked {
        Checked::Answer(Verdict::Rollback(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn its_upload_verdict_says_what_it_is_and_wants() {
    let verdict = House::new().engine.inspect(component()).await.unwrap();
    assert_eq!(verdict.worlds, [World::Checkback]);
    assert_eq!(verdict.imports_wanted, ["wasi:http/outgoing-handler@0.2.12"]);
    let declared = verdict.config.unwrap();
    let names: Vec<&str> = declared.settings().iter().map(|setting| setting.name.as_str()).collect();
    assert_eq!(names, ["url", "field", "commit", "rollback", "rollback-missing-after", "authorization"]);
}

#[tokio::test]
async fn the_answer_of_the_service_becomes_the_verdict() {
    let house = House::new();
    for status in ["paid", "shipped"] {
        let body = format!(r#"{{"status":"{status}"}}"#);
        assert_eq!(ask(&house, Reply::json(&body), |_| {}).await, COMMIT);
    }
    let reason = rolled_back(ask(&house, Reply::json(r#"{"status":"cancelled"}"#), |_| {}).await);
    assert!(reason.contains("/orders/A%2017: /status is cancelled"), "{reason}");
    let reason = unknown(ask(&house, Reply::json(r#"{"status":"waiting"}"#), |_| {}).await);
    assert!(reason.contains("waiting"), "{reason}");
    assert!(unknown(ask(&house, Reply::status(403), |_| {}).await).contains("403"));
}

#[tokio::test]
async fn the_service_is_asked_for_the_thing_behind_the_message() {
    let server = Server::start(|_| Reply::status(200));
    let checked = House::new()
        .check(component(), |spec| {
            grant(spec, &server.origin());
            let url = format!("{}/o/{{key}}/{{id}}?t={{transaction}}&r={{property.region}}", server.origin());
            config(spec, &[("url", &url), ("commit", "200"), ("authorization", "Bearer s3cret")]);
        })
        .await;
    assert_eq!(checked, COMMIT);
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    let request = &requests[0];
    assert!(request.starts_with("GET /o/A%2017/01AB?t=0-4711&r=eu%2F1 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("host: {}\r\n", server.address)), "{request}");
    assert!(request.contains("authorization: Bearer s3cret\r\n"), "{request}");
    assert!(request.contains("cache-control: no-cache\r\n"), "{request}");
    assert!(request.contains("accept-encoding: identity\r\n"), "{request}");
}

#[tokio::test]
async fn what_a_service_gives_back_of_a_secret_is_told_to_nobody() {
    let house = House::new();
    let echo = r#"{"status":"Bearer s3cret, s3cret and pa55word"}"#;
    for (reply, told) in [(Reply::json(echo), "***, *** and ***"), (Reply::status(503), "?token=***")] {
        let server = Server::start(move |_| reply.clone());
        let binding = house
            .bind(component(), |spec| {
                grant(spec, &server.origin());
                orders(spec, &server.origin());
                let url = format!("{}/{{key}}?token=pa55word", server.origin());
                config(spec, &[("url", &url), ("authorization", "Bearer s3cret")]);
            })
            .await;
        let checked = format!("{:?}", binding.check(pending()).await);
        assert!(checked.contains(told), "{checked}");
        let said = format!("{checked} {:?}", binding.recent_logs());
        assert!(!said.contains("s3cret") && !said.contains("pa55word"), "{said}");
        assert!(server.requests()[0].contains("authorization: Bearer s3cret\r\n"), "the service gets the true value");
    }
}

#[tokio::test]
async fn what_is_missing_is_unknown_until_its_age_is_over() {
    let house = House::new();
    assert!(unknown(ask(&house, Reply::status(404), |_| {}).await).contains("not found"));
    // `pending` was opened 10 s before it was asked.
    let after = |age: &'static str| move |spec: &mut BindingSpec| config(spec, &[("rollback-missing-after", age)]);
    assert!(unknown(ask(&house, Reply::status(404), after("10001ms")).await).contains("not found"));
    assert!(rolled_back(ask(&house, Reply::status(404), after("10s")).await).contains("not found"));
}

#[tokio::test]
async fn a_service_that_fails_gives_no_answer() {
    let house = House::new();
    for status in [500, 503] {
        assert!(guest_error(ask(&house, Reply::status(status), |_| {}).await).contains(&status.to_string()));
    }
    assert!(guest_error(ask(&house, Reply::json("<html>"), |_| {}).await).contains("not JSON"));
    for reply in [Reply::Close, Reply::Full(200, "transfer-encoding: nonsense\r\n".to_owned(), Vec::new())] {
        guest_error(ask(&house, reply, |_| {}).await);
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_gives_no_answer() {
    // A port that was free a moment ago.
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let origin = format!("http://{free}");
    let house = House::new();
    let binding = house
        .bind(component(), |spec| {
            grant(spec, &origin);
            orders(spec, &origin);
        })
        .await;
    let error = guest_error(binding.check(pending()).await);
    assert!(error.contains("ConnectionRefused"), "{error}");
    let lines = binding.recent_logs();
    assert!(lines.iter().any(|line| line.source == LogSource::Host && line.text.contains("refused")), "{lines:?}");
}

#[tokio::test]
async fn a_service_that_does_not_answer_in_time_gives_no_answer() {
    let house = House::new();
    let deadline = Duration::from_millis(200);
    for reply in [Reply::Hang, Reply::HangInBody] {
        let started = Instant::now();
        let checked = ask(&house, reply, |spec| spec.limits.deadline = deadline).await;
        assert_eq!(no_answer(checked), NoAnswer::Deadline { deadline });
        assert!(started.elapsed() >= deadline);
    }
}

#[tokio::test]
async fn a_slow_answer_within_the_deadline_counts() {
    let trickle = Reply::Trickle(br#"{"status":"paid"}"#.to_vec());
    assert_eq!(ask(&House::new(), trickle, |_| {}).await, COMMIT);
}

#[tokio::test]
async fn waiting_for_a_server_does_not_hold_a_thread() {
    let house = House::with(|config| config.threads = 1);
    let server = Server::start(|_| Reply::Hang);
    let binding = house
        .bind(component(), |spec| {
            grant(spec, &server.origin());
            orders(spec, &server.origin());
        })
        .await;
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let binding = binding.clone();
            tokio::spawn(async move { binding.check(pending()).await })
        })
        .collect();
    while server.requests().len() < 4 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(&house, Reply::json(r#"{"status":"paid"}"#), |_| {}).await, COMMIT);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_response_over_its_limit_is_cut_off() {
    let house = House::new();
    let body = |size: usize| format!("{:<size$}", r#"{"status":"paid"}"#);
    let small = |spec: &mut BindingSpec| spec.limits.http_response = ByteSize::kib(4);
    assert_eq!(ask(&house, Reply::json(&body(4096)), small).await, COMMIT);
    let error = guest_error(ask(&house, Reply::json(&body(4097)), small).await);
    assert!(error.contains("HttpResponseBodySize"), "{error}");
    // Without a length the host counts what comes.
    let error = guest_error(ask(&house, Reply::EndlessBody, small).await);
    assert!(error.contains("body size exceeds limit: 4096 bytes"), "{error}");
    let error = guest_error(ask(&house, Reply::EndlessHeader, |_| {}).await);
    assert!(error.contains("HttpResponseHeaderSectionSize"), "{error}");
}

#[tokio::test]
async fn without_a_grant_every_request_is_denied_and_the_operator_is_told() {
    let house = House::new();
    let server = Server::start(|_| Reply::json(r#"{"status":"paid"}"#));
    let binding = house.bind(component(), |spec| orders(spec, &server.origin())).await;
    assert!(binding.warnings()[0].contains("grants no origin"), "{:?}", binding.warnings());
    let error = guest_error(binding.check(pending()).await);
    assert!(error.contains("HttpRequestDenied"), "{error}");
    let told = binding.recent_logs();
    assert!(told.iter().any(|line| line.text.contains("add it to grants.http")), "{told:?}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_grant_is_for_one_scheme_host_and_port() {
    let house = House::new();
    let server = Server::start(|_| Reply::json(r#"{"status":"paid"}"#));
    let port = server.address.port();
    for (granted, allowed) in [
        (format!("http://127.0.0.1:{port}"), true),
        (format!("http://127.1:{port}"), true),
        (format!("https://127.0.0.1:{port}"), false),
        (format!("http://127.0.0.2:{port}"), false),
        ("http://127.0.0.1".to_owned(), false),
    ] {
        let binding = house
            .bind(component(), |spec| {
                grant(spec, &granted);
                orders(spec, &server.origin());
            })
            .await;
        assert!(binding.warnings().is_empty(), "{:?}", binding.warnings());
        let before = server.requests().len();
        let checked = binding.check(pending()).await;
        assert_eq!(checked == COMMIT, allowed, "{granted}: {checked:?}");
        assert_eq!(server.requests().len() - before, usize::from(allowed), "{granted}");
    }
}

#[tokio::test]
async fn a_redirect_inside_the_grant_is_followed() {
    let house = House::new();
    for status in [301, 302, 303, 307, 308] {
        let server = Server::start(move |path| match path {
            "/orders/A%2017" => Reply::redirect(status, "/moved"),
            "/moved" => Reply::json(r#"{"status":"paid"}"#),
            _ => Reply::status(500),
        });
        let checked = house
            .check(component(), |spec| {
                grant(spec, &server.origin());
                orders(spec, &server.origin());
            })
            .await;
        assert_eq!(checked, COMMIT, "{status}");
    }
}

#[tokio::test]
async fn a_redirect_outside_the_grant_is_denied() {
    let house = House::new();
    let inside = Server::start(|_| Reply::json(r#"{"status":"paid"}"#));
    let to = format!("{}/secret", inside.origin());
    let error = guest_error(ask(&house, Reply::redirect(302, &to), |_| {}).await);
    assert!(error.contains("HttpRequestDenied"), "{error}");
    assert!(inside.requests().is_empty());
    // The same redirect with a grant for both, and the credential stays with the first.
    let outer = Server::start(move |_| Reply::redirect(302, &to));
    let checked = house
        .check(component(), |spec| {
            grant(spec, &outer.origin());
            grant(spec, &inside.origin());
            orders(spec, &outer.origin());
            config(spec, &[("authorization", "Bearer s3cret")]);
        })
        .await;
    assert_eq!(checked, COMMIT);
    assert!(outer.requests()[0].contains("s3cret"));
    assert!(!inside.requests()[0].contains("s3cret"));
}

#[tokio::test]
async fn redirects_without_end_are_ended() {
    let house = House::new();
    let server = Server::start(|_| Reply::redirect(302, "/again"));
    let bind = |requests: u32| {
        let origin = server.origin();
        house.bind(component(), move |spec| {
            grant(spec, &origin);
            orders(spec, &origin);
            spec.limits.http_requests = requests;
        })
    };
    let error = guest_error(bind(16).await.check(pending()).await);
    assert!(error.contains("redirects"), "{error}");
    assert_eq!(server.requests().len(), 6);
    // The host's own bound, below the guest's.
    let error = guest_error(bind(3).await.check(pending()).await);
    assert!(error.contains("ConnectionLimitReached"), "{error}");
    assert_eq!(server.requests().len(), 6 + 3);
}

#[tokio::test]
async fn a_private_address_behind_a_public_looking_name_is_refused() {
    let server = Server::start(|_| Reply::json(r#"{"status":"paid"}"#));
    let origin = format!("http://orders.example.com:{}", server.address.port());
    for addresses in [&["127.0.0.1"][..], &["93.184.216.34", "127.0.0.1"], &["::ffff:127.0.0.1"], &["169.254.169.254"]]
    {
        let house = House::resolving(&[("orders.example.com", addresses)]);
        let binding = house
            .bind(component(), |spec| {
                grant(spec, &origin);
                orders(spec, &origin);
            })
            .await;
        let error = guest_error(binding.check(pending()).await);
        assert!(error.contains("DestinationIpProhibited"), "{addresses:?}: {error}");
        let told = binding.recent_logs();
        assert!(told.iter().any(|line| line.text.contains("\"private\": true")), "{told:?}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_private_address_behind_a_name_can_be_granted() {
    let server = Server::start(|_| Reply::json(r#"{"status":"paid"}"#));
    let house = House::resolving(&[("orders.internal", &["127.0.0.1"])]);
    let origin = format!("http://orders.internal:{}", server.address.port());
    let checked = house
        .check(component(), |spec| {
            let grants = format!(r#"{{"http":[{{"origin":"{origin}","private":true}}]}}"#);
            spec.grants = serde_json::from_str(&grants).unwrap();
            orders(spec, &origin);
        })
        .await;
    assert_eq!(checked, COMMIT);
    let request = &server.requests()[0];
    assert!(request.contains(&format!("host: orders.internal:{}\r\n", server.address.port())), "{request}");
}

#[tokio::test]
async fn a_redirect_to_a_name_with_a_private_address_is_refused() {
    let inside = Server::start(|_| Reply::json(r#"{"status":"paid"}"#));
    let port = inside.address.port();
    let house = House::resolving(&[("cdn.example.com", &["127.0.0.1"])]);
    let to = format!("http://cdn.example.com:{port}/x");
    let checked =
        ask(&house, Reply::redirect(302, &to), |spec| grant(spec, &format!("http://cdn.example.com:{port}"))).await;
    assert!(guest_error(checked).contains("DestinationIpProhibited"));
    assert!(inside.requests().is_empty());
}

#[tokio::test]
async fn the_next_address_is_tried_if_the_first_does_not_answer() {
    let server = Server::start(|_| Reply::json(r#"{"status":"paid"}"#));
    // Nothing listens on 127.0.0.3 at this port.
    let house = House::resolving(&[("orders.internal", &["127.0.0.3", "127.0.0.1"])]);
    let origin = format!("http://orders.internal:{}", server.address.port());
    let checked = house
        .check(component(), |spec| {
            let grants = format!(r#"{{"http":[{{"origin":"{origin}","private":true}}]}}"#);
            spec.grants = serde_json::from_str(&grants).unwrap();
            orders(spec, &origin);
        })
        .await;
    assert_eq!(checked, COMMIT);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_gives_no_answer() {
    let house = House::resolving(&[("empty.example.com", &[])]);
    for (host, word) in [("nowhere.example.com", "DnsError"), ("empty.example.com", "DestinationNotFound")] {
        let origin = format!("http://{host}");
        let checked = house
            .check(component(), |spec| {
                grant(spec, &origin);
                orders(spec, &origin);
            })
            .await;
        let error = guest_error(checked);
        assert!(error.contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_configuration_is_told_and_is_no_answer() {
    let house = House::new();
    let error = guest_error(house.check(component(), |_| {}).await);
    assert!(error.contains("config `url` is missing"), "{error}");
    let no_key = Pending { half: vouch_plugin::Message { keys: Vec::new(), ..pending().half }, ..pending() };
    let binding = house.bind(component(), |spec| orders(spec, "http://127.0.0.1:1")).await;
    let error = guest_error(binding.check(no_key).await);
    assert!(error.contains("no key"), "{error}");
}

#[tokio::test]
async fn a_server_is_believed_over_https_only_if_its_authority_is() {
    let certified = rcgen::generate_simple_self_signed(vec!["orders.internal".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let server = Server::start_tls(Arc::new(tls), |_| Reply::json(r#"{"status":"paid"}"#));
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, certified.cert.pem()).unwrap();
    for (name, trusted, believed) in
        [("orders.internal", true, true), ("orders.internal", false, false), ("other.internal", true, false)]
    {
        let house = House::with(|config| {
            config.resolver = Arc::new(Table([(name, vec![server.address.ip()])].into()));
            config.extra_ca_file = trusted.then(|| ca_file.clone());
        });
        let origin = format!("https://{name}:{}", server.address.port());
        let checked = house
            .check(component(), |spec| {
                let grants = format!(r#"{{"http":[{{"origin":"{origin}","private":true}}]}}"#);
                spec.grants = serde_json::from_str(&grants).unwrap();
                orders(spec, &origin);
            })
            .await;
        if believed {
            assert_eq!(checked, COMMIT);
        } else {
            let error = guest_error(checked);
            assert!(error.contains("Tls"), "{name}: {error}");
        }
    }
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_file_of_authorities_that_holds_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    for text in ["", "not a certificate"] {
        std::fs::write(&file, text).unwrap();
        let mut config = vouch_plugin::EngineConfig::new(folder.path().join("compiled"));
        config.extra_ca_file = Some(file.clone());
        let error = vouch_plugin::Engine::start(config).err().unwrap().to_string();
        assert!(error.contains("ca.pem") && error.contains("no certificate"), "{error}");
    }
}
