//! What is linked and leads nowhere.

use vouch_plugin::NoAnswer;

use crate::{
    guests::{CHECKBACK, Guest, commit},
    support::{COMMIT, House, no_answer, pending},
};

const WORLD: &str = "test:w/w";

fn world(items: &str) -> String {
    format!("package test:w; world w {{ include {CHECKBACK}; {items} }}")
}

#[tokio::test]
async fn state_outbox_and_sql_answer_not_granted() {
    // Each call leaves result<…, error> at 2048; `not-granted` is the first case of each error.
    for (interface, function, signature, arguments, error_at) in [
        ("state", "get", "(param i32 i32 i32)", "(i32.const 0) (i32.const 1)", 2052),
        ("state", "remove", "(param i32 i32 i32)", "(i32.const 0) (i32.const 1)", 2052),
        ("state", "add", "(param i32 i32 i64 i32)", "(i32.const 0) (i32.const 1) (i64.const 1)", 2056),
        (
            "sql",
            "run-all",
            "(param i32 i32 i32 i32 i32)",
            "(i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0)",
            2052,
        ),
    ] {
        let world = world(&format!("import vouch:plugin/{interface}@0.1.0;"));
        let guest = Guest {
            world: WORLD,
            packages: &[&world],
            imports: &format!(r#"(import "vouch:plugin/{interface}@0.1.0" "{function}" (func $call {signature}))"#),
            data: "k",
            check: &format!(
                "(call $call {arguments} (i32.const 2048))
                 (if (i32.ne (i32.load8_u (i32.const 2048)) (i32.const 1)) (then unreachable))
                 (if (i32.load8_u (i32.const {error_at})) (then unreachable))
                 {}",
                commit()
            ),
            ..Guest::default()
        }
        .build();
        let house = House::new();
        let binding = house.bind(guest, |_| {}).await;
        assert_eq!(binding.check(pending()).await, COMMIT, "{interface}.{function}");
        assert!(binding.warnings()[0].contains(interface), "{:?}", binding.warnings());
    }
}

#[tokio::test]
async fn a_guest_that_exits_gives_no_answer() {
    let house = House::new();
    for code in [0, 1] {
        let world = world("import wasi:cli/exit@0.2.12;");
        let guest = Guest {
            world: WORLD,
            packages: &[&world],
            imports: r#"(import "wasi:cli/exit@0.2.12" "exit" (func $exit (param i32)))"#,
            check: &format!("(call $exit (i32.const {code})) unreachable"),
            ..Guest::default()
        }
        .build();
        let why = no_answer(house.check(guest, |_| {}).await);
        assert!(matches!(&why, NoAnswer::Trap { why: text, .. } if text.contains(&format!("exit({code})"))), "{why:?}");
    }
}

/// A call that returns a list (pointer and length at 2048), of which the length must be 0.
async fn empty_list(import: &str, function: &str) {
    let world = world(&format!("import {import};"));
    let guest = Guest {
        world: WORLD,
        packages: &[&world],
        imports: &format!(r#"(import "{import}" "{function}" (func $call (param i32)))"#),
        check: &format!(
            "(call $call (i32.const 2048)) (if (i32.load (i32.const 2052)) (then unreachable)) {}",
            commit()
        ),
        ..Guest::default()
    }
    .build();
    assert_eq!(House::new().check(guest, |_| {}).await, COMMIT, "{import} {function}");
}

#[tokio::test]
async fn a_guest_sees_no_environment_no_arguments_and_no_folders() {
    empty_list("wasi:cli/environment@0.2.12", "get-environment").await;
    empty_list("wasi:cli/environment@0.2.12", "get-arguments").await;
    empty_list("wasi:filesystem/preopens@0.2.12", "get-directories").await;
}

#[tokio::test]
async fn a_guest_cannot_open_a_socket() {
    let world = world("import wasi:sockets/tcp-create-socket@0.2.12;");
    let guest = Guest {
        world: WORLD,
        packages: &[&world],
        imports: r#"(import "wasi:sockets/tcp-create-socket@0.2.12" "create-tcp-socket" (func $call (param i32 i32)))"#,
        // result<tcp-socket, error-code> at 2048: 1 is an error.
        check: &format!(
            "(call $call (i32.const 0) (i32.const 2048))
             (if (i32.ne (i32.load8_u (i32.const 2048)) (i32.const 1)) (then unreachable)) {}",
            commit()
        ),
        ..Guest::default()
    }
    .build();
    assert_eq!(House::new().check(guest, |_| {}).await, COMMIT);
}

/// A guest that writes twelve bytes to standard error so many times, by two at once where they are many, and then does this.
fn writes_an_error(data: &str, times: usize, then: &str) -> Vec<u8> {
    // It may hold a thousand handles, and gets one for each.
    let (times, data, len) = if times > 100 { (times / 2, data.repeat(2), 24) } else { (times, data.to_owned(), 12) };
    let world = world("import wasi:cli/stderr@0.2.12; import wasi:io/streams@0.2.12;");
    let write = format!("(call $write (call $stderr) (i32.const 0) (i32.const {len}) (i32.const 2048)) ").repeat(times);
    Guest {
        world: WORLD,
        packages: &[&world],
        imports: r#"(import "wasi:cli/stderr@0.2.12" "get-stderr" (func $stderr (result i32)))
            (import "wasi:io/streams@0.2.12" "[method]output-stream.blocking-write-and-flush"
                (func $write (param i32 i32 i32 i32)))"#,
        data: &data,
        check: &format!("{write} {then}"),
        ..Guest::default()
    }
    .build()
    .into()
}

#[tokio::test]
async fn what_a_guest_wrote_before_it_trapped_is_told_with_the_trap_and_without_secrets() {
    let house = House::new();
    let trapped = async |data: &str, times: usize| {
        let set =
            |spec: &mut vouch_plugin::BindingSpec| drop(spec.config.insert("token".to_owned(), "s3cr3t".to_owned()));
        let binding = house.bind(writes_an_error(data, times, "unreachable").into(), set).await;
        match binding.check(pending()).await {
            vouch_plugin::Checked::NoAnswer(vouch_plugin::NoAnswer::Trap { why, trace }) => (why, trace),
            other => panic!("{other:?}"),
        }
    };
    let (why, trace) = trapped(r"panicked: 7\n", 1).await;
    assert!(why.starts_with("panicked: 7\n") && why.contains("unreachable") && !trace.is_empty(), "{why} {trace}");
    let (why, _) = trapped(r"has s3cr3t!\n", 2).await;
    assert!(why.starts_with("has ***!\nhas ***!\n"), "{why}");
    // Only the last of it, however much that was.
    let (why, _) = trapped(r"0123456789a\n", 1_800).await;
    assert!(why.len() > 16 << 10 && why.len() < (16 << 10) + 512 && why.contains("unreachable"), "{}", why.len());
}

#[tokio::test]
async fn standard_error_becomes_lines_of_the_log() {
    let guest = bytes::Bytes::from(writes_an_error(r"first\nsecond", 1, &commit()));
    let house = House::new();
    let binding = house.bind(guest, |_| {}).await;
    assert_eq!(binding.check(pending()).await, COMMIT);
    let texts: Vec<String> = binding.recent_logs().into_iter().map(|line| line.text).collect();
    assert_eq!(texts, ["first", "second"]);
}
