//! What a guest hands over in one call of a function: more for a message that it may publish, and for nothing else.

use std::sync::Arc;

use bytes::Bytes;
use vouch_plugin::{BindingSpec, ByteSize, Checked, NoAnswer, Staged};

use crate::{
    scripts::{Script, Written, all_granted, check},
    support::{COMMIT, House, no_answer},
};

/// The bound for all functions but one.
const MOST: u32 = 256 << 10;
/// Zeros of a script.
const ZEROS: u32 = 8 << 20;
/// Where a function leaves its result.
const RETURNED: u32 = 2048;

async fn asked(wasm: Bytes, change: impl FnOnce(&mut BindingSpec)) -> Checked {
    let binding = House::new().bind(wasm, change).await;
    check(&binding, Some(Arc::default())).await.0
}

/// Everything is granted, and a database that is not there.
fn granted(spec: &mut BindingSpec) {
    spec.grants = serde_json::from_str(
        r#"{"state": true, "publish": ["audit"], "sql": {"db": {"url": "postgres://v@127.0.0.1:1/db"}}}"#,
    )
    .unwrap();
}

/// A call of one function.
struct Way {
    name: &'static str,
    /// What the module imports, and what the world does.
    imports: String,
    world: &'static str,
    /// The call, with `TEXT` for as many zeros as are handed over.
    call: String,
    /// What is counted beside these.
    beside: u32,
}

fn ways() -> Vec<Way> {
    let way = |name, imports: String, world, call: &str, beside| {
        let call = call.replace("RETURNED", &format!("(i32.const {RETURNED})"));
        let call = call.replace("LETTER", &format!("(i32.const {ZEROS}) (i32.const 1)"));
        Way { name, imports, world, call, beside }
    };
    let import = |interface: &str, function: &str, signature: &str| {
        format!(r#"(import "{interface}" "{function}" (func $call {signature}))"#)
    };
    let (types, http) = ("wasi:http/types@0.2.12", "import wasi:http/types@0.2.12;");
    let fields = format!(r#"(import "{types}" "[constructor]fields" (func $fields (result i32)))"#);
    let request = format!(
        r#"{fields} (import "{types}" "[constructor]outgoing-request" (func $request (param i32) (result i32)))"#
    );
    let field = |function: &str, signature: &str| fields.clone() + &import(types, function, signature);
    let lookup = r#"(import "wasi:sockets/instance-network@0.2.12" "instance-network" (func $network (result i32)))"#
        .to_owned()
        + &import("wasi:sockets/ip-name-lookup@0.2.12", "resolve-addresses", "(param i32 i32 i32 i32)");
    let stdout = r#"(import "wasi:cli/stdout@0.2.12" "get-stdout" (func $stdout (result i32)))"#.to_owned()
        + &import("wasi:io/streams@0.2.12", "[method]output-stream.write", "(param i32 i32 i32 i32)");
    vec![
        way("log", String::new(), "", "(call $log (i32.const 2) TEXT)", 0),
        way(
            "config",
            import("vouch:plugin/host@0.1.0", "config", "(param i32 i32 i32)"),
            "",
            "(call $call TEXT RETURNED)",
            0,
        ),
        way("state.get", String::new(), "", "(call $get TEXT RETURNED)", 0),
        way("state.set", String::new(), "", "(call $set LETTER TEXT (i32.const 0) (i32.const 0) RETURNED)", 1),
        // A key and no statements; a text counts for some bytes more than it has.
        way(
            "sql.run-once",
            import("vouch:plugin/sql@0.1.0", "run-once", "(param i32 i32 i32 i32 i32 i32 i32)"),
            "import vouch:plugin/sql@0.1.0;",
            "(call $call (i32.const 0) (i32.const 0) TEXT (i32.const 0) (i32.const 0) RETURNED)",
            24,
        ),
        way(
            "fields.get",
            field("[method]fields.get", "(param i32 i32 i32 i32)"),
            http,
            "(call $call (call $fields) TEXT RETURNED)",
            0,
        ),
        way(
            "fields.has",
            field("[method]fields.has", "(param i32 i32 i32) (result i32)"),
            http,
            "(drop (call $call (call $fields) TEXT))",
            0,
        ),
        way(
            "fields.delete",
            field("[method]fields.delete", "(param i32 i32 i32 i32)"),
            http,
            "(call $call (call $fields) TEXT RETURNED)",
            0,
        ),
        way(
            "fields.append",
            field("[method]fields.append", "(param i32 i32 i32 i32 i32 i32)"),
            http,
            "(call $call (call $fields) LETTER TEXT RETURNED)",
            1,
        ),
        way(
            "set-path-with-query",
            request
                + &import(
                    types,
                    "[method]outgoing-request.set-path-with-query",
                    "(param i32 i32 i32 i32) (result i32)",
                ),
            http,
            "(drop (call $call (call $request (call $fields)) (i32.const 1) TEXT))",
            0,
        ),
        way(
            "resolve-addresses",
            lookup,
            "import wasi:sockets/instance-network@0.2.12; import wasi:sockets/ip-name-lookup@0.2.12;",
            "(call $call (call $network) TEXT RETURNED)",
            0,
        ),
        way(
            "stdout",
            stdout,
            "import wasi:cli/stdout@0.2.12; import wasi:io/streams@0.2.12;",
            "(call $call (call $stdout) TEXT RETURNED)",
            0,
        ),
    ]
}

#[tokio::test]
async fn every_function_but_one_takes_so_much_whether_the_binding_may_publish_or_not() {
    type Grant = fn(&mut BindingSpec);
    let without: Grant = |spec| {
        granted(spec);
        spec.grants.publish.clear();
    };
    for Way { name, imports, world, call, beside } in ways() {
        for grants in [without, granted as Grant] {
            let called = |bytes: u32| {
                let text = format!("(i32.const {ZEROS}) (i32.const {})", bytes - beside);
                Script::new().raw(&call.replace("TEXT", &text)).importing(&imports, world)
            };
            assert_eq!(asked(called(MOST), grants).await, COMMIT, "{name}");
            let why = no_answer(asked(called(300 << 10), grants).await);
            assert_eq!(why, NoAnswer::OutputTooLarge { limit: ByteSize(MOST.into()) }, "{name}");
        }
    }
}

#[tokio::test]
async fn a_list_of_what_is_waited_for_is_bounded_as_well() {
    // By how many handles there may be in all, which is less than what the bytes would allow.
    let waits = |handles: u32| {
        let code = format!(
            "(local $handle i32) (local $at i32)
             (local.set $handle (call $timer (i64.const 0)))
             (local.set $at (i32.const {ZEROS}))
             (loop $more
                (i32.store (local.get $at) (local.get $handle))
                (local.set $at (i32.add (local.get $at) (i32.const 4)))
                (br_if $more (i32.lt_u (local.get $at) (i32.const {}))))
             (call $poll (i32.const {ZEROS}) (i32.const {handles}) (i32.const {RETURNED}))",
            ZEROS + 4 * handles
        );
        let imports = r#"(import "wasi:clocks/monotonic-clock@0.2.12" "subscribe-duration" (func $timer (param i64) (result i32)))
            (import "wasi:io/poll@0.2.12" "poll" (func $poll (param i32 i32 i32)))"#;
        Script::new()
            .raw(&code)
            .importing(imports, "import wasi:clocks/monotonic-clock@0.2.12; import wasi:io/poll@0.2.12;")
    };
    assert_eq!(asked(waits(1_000), granted).await, COMMIT);
    let why = no_answer(asked(waits(100_000), granted).await);
    assert!(matches!(&why, NoAnswer::Trap { why, .. } if why.contains("handle limit")), "{why:?}");
}

#[tokio::test]
async fn a_message_is_handed_over_whole_where_the_binding_may_publish() {
    let publish =
        |body: u32| Script::new().publish(&Written { topic: "audit", body, ..Written::default() }).importing("", "");
    let most = Staged::MAX_DRAFTED as u32;
    assert_eq!(asked(publish(most), all_granted).await, COMMIT);
    // A little more is told to the component, and ends it beyond that.
    assert_eq!(asked(publish(most + (200 << 10)), all_granted).await, COMMIT);
    let limit = ByteSize(u64::from(most + MOST));
    assert_eq!(no_answer(asked(publish(most + (300 << 10)), all_granted).await), NoAnswer::OutputTooLarge { limit });
    let limit = ByteSize(MOST.into());
    assert_eq!(no_answer(asked(publish(300 << 10), |_| {}).await), NoAnswer::OutputTooLarge { limit });
}
