//! What a guest can make the host hold: all of it is counted or bounded.

use std::time::Duration;

use bytes::Bytes;
use vouch_plugin::{BindingSpec, ByteSize, Checked, NoAnswer};

use crate::{
    guests::{CHECKBACK, Guest, commit},
    http_server::{Reply, Server},
    support::{COMMIT, House, no_answer, pending},
};

const IMPORTS: &str = r#"
    (import "wasi:http/types@0.2.12" "[constructor]fields" (func $fields (result i32)))
    (import "wasi:http/types@0.2.12" "[method]fields.append" (func $append (param i32 i32 i32 i32 i32 i32)))
    (import "wasi:http/types@0.2.12" "[method]fields.set" (func $set (param i32 i32 i32 i32 i32 i32)))
    (import "wasi:http/types@0.2.12" "[method]fields.clone" (func $clone (param i32) (result i32)))
    (import "wasi:http/types@0.2.12" "[static]fields.from-list" (func $from-list (param i32 i32 i32)))
    (import "wasi:http/types@0.2.12" "[resource-drop]fields" (func $drop-fields (param i32)))
    (import "wasi:http/types@0.2.12" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
    (import "wasi:http/types@0.2.12" "[method]outgoing-request.set-method"
        (func $set-method (param i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.12" "[method]outgoing-request.set-scheme"
        (func $set-scheme (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.12" "[method]outgoing-request.set-authority"
        (func $set-authority (param i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.12" "[method]outgoing-request.set-path-with-query"
        (func $set-path (param i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.12" "[method]outgoing-request.body" (func $body (param i32 i32)))
    (import "wasi:http/types@0.2.12" "[static]outgoing-body.finish" (func $finish (param i32 i32 i32 i32)))
    (import "wasi:http/outgoing-handler@0.2.12" "handle" (func $handle (param i32 i32 i32 i32)))
"#;

/// Where the guest has 60 000 bytes of `/`, which are a path, and the same of `a`.
const SLASHES: u32 = 1 << 20;
const LETTERS: u32 = SLASHES + (1 << 16);
const LONG: u32 = 60_000;
/// Where functions leave their results.
const RESULT: u32 = 2048;

/// Does `step` so many times, and commits. A result is looked at by nobody: what is refused is not held.
fn repeating(times: u32, step: &str) -> Bytes {
    let world = format!(
        "package test:w; world w {{ include {CHECKBACK}; import wasi:http/types@0.2.12;
            import wasi:http/outgoing-handler@0.2.12; }}"
    );
    Guest {
        world: "test:w/w",
        packages: &[&world],
        imports: IMPORTS,
        data: "x",
        check: &format!(
            "(local $f i32)
             (drop (memory.grow (i32.const 18)))
             (memory.fill (i32.const {SLASHES}) (i32.const 47) (i32.const {LONG}))
             (memory.fill (i32.const {LETTERS}) (i32.const 97) (i32.const {LONG}))
             (local.set $n (i32.const {times}))
             (block $done (loop $more
                (br_if $done (i32.eqz (local.get $n)))
                {step}
                (local.set $n (i32.sub (local.get $n) (i32.const 1)))
                (br $more)))
             {}",
            commit()
        ),
        ..Guest::default()
    }
    .build()
}

fn text(at: u32) -> String {
    format!("(i32.const {at}) (i32.const {LONG})")
}

/// New fields with one long value, in `$f`.
fn long_fields() -> String {
    format!(
        "(local.set $f (call $fields))
         (call $append (local.get $f) (i32.const 0) (i32.const 1) {} (i32.const {RESULT}))",
        text(LETTERS)
    )
}

/// A request of its own for each step, with one part set.
fn request_with(part: &str) -> String {
    format!("(local.set $f (call $request (call $fields))) (drop {part})")
}

/// Each way to make the host hold a long text, and how often it is done in a check.
fn ways() -> Vec<(&'static str, String)> {
    // list<tuple<string, list<u8>>> with one entry, and list<list<u8>> with one, at 3072.
    let entry = |at: u32, values: &[u32]| -> String {
        let words = values.iter().enumerate();
        words.map(|(n, value)| format!("(i32.store (i32.const {}) (i32.const {value}))", at as usize + 4 * n)).collect()
    };
    vec![
        ("append", long_fields()),
        (
            "set",
            format!(
                "{} (call $set (call $fields) (i32.const 0) (i32.const 1) (i32.const 3072) (i32.const 1) (i32.const {RESULT}))",
                entry(3072, &[LETTERS, LONG])
            ),
        ),
        (
            "from-list",
            format!(
                "{} (call $from-list (i32.const 3072) (i32.const 1) (i32.const {RESULT}))",
                entry(3072, &[0, 1, LETTERS, LONG])
            ),
        ),
        (
            "clone",
            format!("(if (i32.eqz (local.get $f)) (then {})) (drop (call $clone (local.get $f)))", long_fields()),
        ),
        ("method", request_with(&format!("(call $set-method (local.get $f) (i32.const 9) {})", text(LETTERS)))),
        ("authority", request_with(&format!("(call $set-authority (local.get $f) (i32.const 1) {})", text(LETTERS)))),
        ("path", request_with(&format!("(call $set-path (local.get $f) (i32.const 1) {})", text(SLASHES)))),
        (
            "body",
            "(local.set $f (call $request (call $fields))) (call $body (local.get $f) (i32.const 2048))
             (local.set $f (call $request (call $fields))) (call $body (local.get $f) (i32.const 2048))"
                .to_owned(),
        ),
        (
            "trailers",
            format!(
                "(call $body (call $request (call $fields)) (i32.const 3072))
                 {}
                 (call $finish (i32.load (i32.const 3076)) (i32.const 1) (local.get $f) (i32.const {RESULT}))",
                long_fields()
            ),
        ),
    ]
}

#[tokio::test]
async fn what_a_guest_makes_the_host_hold_counts_as_its_memory() {
    let house = House::new();
    let limit = ByteSize::mib(16);
    for (way, step) in ways() {
        // The guest itself has 1.2 MiB. A step makes the host hold 60 000 bytes and more, bodies 64 KiB.
        for (times, fits) in [(100, true), (300, false)] {
            let checked = house.check(repeating(times, &step), |spec| spec.limits.memory = limit).await;
            if fits {
                assert_eq!(checked, COMMIT, "{way}");
            } else {
                assert_eq!(no_answer(checked), NoAnswer::MemoryLimit { limit }, "{way}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_guest_lets_go_of_counts_no_more() {
    let step = format!("{} (call $drop-fields (local.get $f))", long_fields());
    let checked = House::new().check(repeating(5_000, &step), |spec| spec.limits.memory = ByteSize::mib(2)).await;
    assert_eq!(checked, COMMIT);
}

#[tokio::test]
async fn one_set_of_fields_is_bounded_by_itself() {
    let house = House::new();
    // Names and values, and what the host keeps of each, are 64 KiB at most; the guest traps at a refusal.
    let append = |length: u32| {
        format!(
            "(call $append (call $fields) (i32.const 0) (i32.const 1) (i32.const {LETTERS}) (i32.const {length})
                (i32.const {RESULT}))
             (if (i32.load8_u (i32.const {RESULT})) (then unreachable))"
        )
    };
    assert_eq!(house.check(repeating(1, &append(LONG)), |_| {}).await, COMMIT);
    let why = no_answer(house.check(repeating(1, &append(1 << 16)), |_| {}).await);
    assert!(matches!(why, NoAnswer::Trap { .. }), "{why:?}");
}

/// Sends so many requests and looks at no response; what the host says of it.
async fn sends(house: &House, server: &Server, times: u32, before: &str) -> Vec<String> {
    let origin = server.address.to_string();
    let step = format!(
        "(local.set $f (call $request (call $fields)))
         (drop (call $set-scheme (local.get $f) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
         (drop (call $set-authority (local.get $f) (i32.const 1) (i32.const 16) (i32.const {})))
         (drop (call $set-path (local.get $f) (i32.const 1) (i32.const {SLASHES}) (i32.const 1)))
         {before}
         (call $handle (local.get $f) (i32.const 0) (i32.const 0) (i32.const {RESULT}))",
        origin.len()
    );
    let address: String = origin
        .bytes()
        .enumerate()
        .map(|(n, byte)| format!("(i32.store8 (i32.const {}) (i32.const {byte}))", 16 + n))
        .collect();
    let guest = repeating(times, &format!("{address} {step}"));
    let grants = serde_json::from_str(&format!(r#"{{"http":["http://{origin}"]}}"#)).unwrap();
    let binding = house
        .bind(guest, |spec: &mut BindingSpec| {
            spec.grants = grants;
            spec.limits.http_requests = 256;
        })
        .await;
    assert_eq!(binding.check(pending()).await, COMMIT);
    binding.recent_logs().into_iter().map(|line| line.text).collect()
}

#[tokio::test]
async fn requests_that_are_open_at_once_are_bounded() {
    let (house, server) = (House::new(), Server::start(|_| Reply::Hang));
    for (times, refused) in [(16, 0), (17, 1), (20, 4)] {
        let told = sends(&house, &server, times, "").await;
        let told = told.iter().filter(|text| text.contains("16 requests of this check are open")).count();
        assert_eq!(told, refused, "{times}");
    }
}

#[tokio::test]
async fn the_head_of_a_request_is_bounded() {
    let (house, server) = (House::new(), Server::start(|_| Reply::Hang));
    // Address, host field and method come to some bytes more.
    for (method, is_refused) in [(5_000, false), (6_000, true)] {
        let before = format!(
            "(drop (call $set-path (local.get $f) (i32.const 1) {}))
             (drop (call $set-method (local.get $f) (i32.const 9) (i32.const {LETTERS}) (i32.const {method})))",
            text(SLASHES)
        );
        let told = sends(&house, &server, 1, &before).await;
        let told = told.iter().any(|text| text.contains("65536 are the most"));
        assert_eq!(told, is_refused, "{method}: {told:?}");
    }
}

#[tokio::test]
async fn a_long_line_of_the_log_takes_the_room_of_what_is_kept() {
    let house = House::new();
    let guest = Guest {
        imports: r#"(import "vouch:plugin/host@0.1.0" "log" (func $log (param i32 i32 i32)))"#,
        check: &format!(
            "(drop (memory.grow (i32.const 4)))
             (memory.fill (i32.const 65536) (i32.const 97) (i32.const 200000))
             (call $log (i32.const 3) (i32.const 65536) (i32.const 200000)) {}",
            commit()
        ),
        ..Guest::default()
    }
    .build();
    let binding = house.bind(guest, |_| {}).await;
    assert_eq!(binding.check(pending()).await, COMMIT);
    assert_eq!(binding.recent_logs().len(), 1);
    assert!(binding.recent_logs()[0].text.len() <= 4096);
}

#[tokio::test]
async fn the_name_of_a_function_is_no_program_that_the_host_runs() {
    // In the way C++ writes names: each parameter is a template of the one before, twice. Written out it is longer than memory.
    let mut name = String::from("_Z1f1A1BIS_S_E");
    let sequence = |n: u32| {
        if n == 0 {
            "S_".to_owned()
        } else {
            format!("S{}_", char::from_digit(n - 1, 36).unwrap().to_ascii_uppercase())
        }
    };
    for n in 2..34 {
        name += &format!("S0_I{0}{0}E", sequence(n));
    }
    let core = format!(
        r#"(module
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8192))
            (func $bomb (@name "{name}") unreachable)
            (func (export "vouch:plugin/checkback@0.1.0#check") (param i32) (result i32)
                (call $bomb) (i32.const 0)))"#
    );
    let guest = crate::guests::component(CHECKBACK, &[], &core);
    let house = House::new();
    let checked = tokio::time::timeout(Duration::from_secs(30), house.check(guest, |_| {})).await.expect("it ends");
    let Checked::NoAnswer(NoAnswer::Trap { why, trace }) = &checked else { panic!("{checked:?}") };
    assert!(why.contains("unreachable") && trace.starts_with("0: _Z1f1A1BI"), "{why} {trace}");
    assert!(why.len() <= 2048 && trace.len() <= 2048);
}
