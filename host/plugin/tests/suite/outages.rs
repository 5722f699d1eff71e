//! Whose fault it is when a guest fails after a request of its own failed.

use vouch_plugin::NoAnswer;

use crate::{
    guests::{CHECKBACK, Guest, SPIN},
    http_server::{Reply, Server},
    support::{House, no_answer},
};

/// Asks `http://{authority}/`, waits until the request is answered or failed, and traps.
fn asks_and_traps(authority: &str) -> bytes::Bytes {
    asks_and(
        authority,
        "(if (i32.eqz (i32.load8_u (i32.const 2048)))
            (then (call $block (call $subscribe (i32.load (i32.const 2056))))))
         unreachable",
    )
}

/// Asks, and does this then.
fn asks_and(authority: &str, then: &str) -> bytes::Bytes {
    let world = format!(
        "package test:w; world w {{ include {CHECKBACK}; import wasi:http/types@0.2.12;
            import wasi:http/outgoing-handler@0.2.12; import wasi:io/poll@0.2.12; }}"
    );
    let length = authority.len();
    Guest {
        world: "test:w/w",
        packages: &[&world],
        imports: r#"
            (import "wasi:http/types@0.2.12" "[constructor]fields" (func $fields (result i32)))
            (import "wasi:http/types@0.2.12" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
            (import "wasi:http/types@0.2.12" "[method]outgoing-request.set-scheme"
                (func $scheme (param i32 i32 i32 i32 i32) (result i32)))
            (import "wasi:http/types@0.2.12" "[method]outgoing-request.set-authority"
                (func $authority (param i32 i32 i32 i32) (result i32)))
            (import "wasi:http/types@0.2.12" "[method]outgoing-request.set-path-with-query"
                (func $path (param i32 i32 i32 i32) (result i32)))
            (import "wasi:http/types@0.2.12" "[method]future-incoming-response.subscribe"
                (func $subscribe (param i32) (result i32)))
            (import "wasi:http/outgoing-handler@0.2.12" "handle" (func $handle (param i32 i32 i32 i32)))
            (import "wasi:io/poll@0.2.12" "[method]pollable.block" (func $block (param i32)))"#,
        data: &format!("{authority}/"),
        check: &format!(
            "(local.set $n (call $request (call $fields)))
             (drop (call $scheme (local.get $n) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
             (drop (call $authority (local.get $n) (i32.const 1) (i32.const 0) (i32.const {length})))
             (drop (call $path (local.get $n) (i32.const 1) (i32.const {length}) (i32.const 1)))
             (call $handle (local.get $n) (i32.const 0) (i32.const 0) (i32.const 2048))
             {then}"
        ),
        ..Guest::default()
    }
    .build()
}

/// What a guest is blamed for that traps after the server answered so.
async fn blamed(reply: Reply) -> NoAnswer {
    ask(reply, asks_and_traps).await
}

async fn ask(reply: Reply, guest: impl Fn(&str) -> bytes::Bytes) -> NoAnswer {
    let server = Server::start(move |_| reply.clone());
    let origin = server.origin();
    let guest = guest(origin.strip_prefix("http://").unwrap());
    let grants = format!(r#"{{"http":["{origin}"]}}"#);
    let grants: vouch_plugin::Grants = serde_json::from_str(&grants).unwrap();
    let deadline = std::time::Duration::from_millis(200);
    no_answer(House::new().check(guest, |spec| (spec.grants, spec.limits.deadline) = (grants, deadline)).await)
}

#[tokio::test]
async fn a_guest_that_gives_up_on_a_service_that_is_silent_is_not_to_blame() {
    let why = ask(Reply::Hang, |authority| asks_and(authority, "unreachable")).await;
    assert!(matches!(&why, NoAnswer::Outside { then, .. } if matches!(**then, NoAnswer::Trap { .. })), "{why:?}");
    // Spins instead of waiting; where the machine has no time for that, it waited.
    let why = ask(Reply::Hang, |authority| asks_and(authority, SPIN)).await;
    assert!(matches!(why, NoAnswer::Outside { .. } | NoAnswer::Deadline { .. }), "{why:?}");
    assert!(!why.blames_component());
}

#[tokio::test]
async fn a_guest_that_traps_after_its_service_failed_is_not_to_blame() {
    for reply in [Reply::status(500), Reply::status(503), Reply::Close] {
        let why = blamed(reply).await;
        assert!(matches!(&why, NoAnswer::Outside { then, .. } if matches!(**then, NoAnswer::Trap { .. })), "{why:?}");
        assert!(!why.blames_component() && !why.trace().is_empty(), "{why:?}");
    }
}

#[tokio::test]
async fn a_guest_that_traps_on_a_proper_answer_is_to_blame() {
    for status in [200, 404] {
        let why = blamed(Reply::status(status)).await;
        assert!(matches!(why, NoAnswer::Trap { .. }) && why.blames_component(), "{status}: {why:?}");
    }
}

#[tokio::test]
async fn a_request_that_was_not_granted_is_no_excuse() {
    let why = no_answer(House::new().check(asks_and_traps("127.0.0.1:9"), |_| {}).await);
    assert!(matches!(why, NoAnswer::Trap { .. }), "{why:?}");
}
