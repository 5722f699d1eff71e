//! Components that do a list of steps with state and outbox, and say to their log what came of each; and a broker that lends.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use vouch_plugin::{
    Binding, BindingSpec, CallReach, Checked, Consumed, ConsumerDelivery, ConsumerVerdict, Draft, DraftRefused, Staged,
    StateValue,
};

use crate::{
    guests::component,
    support::{House, pending},
};

/// Where a script's result lies, and those of the functions that it calls.
const RESULT: u32 = 1024;
const RETURNED: u32 = 2048;
/// Texts of the script.
const TEXTS: u32 = 65_536;
/// Zeros, as many as anybody needs.
const ZEROS: u32 = 8 << 20;
/// Pages of memory: 14 MiB.
const PAGES: u32 = 224;

/// Names of the cases of `state-error` and `outbox-error`, in their order.
const STATE_ERRORS: [&str; 5] = ["not-granted: ", "invalid: ", "too-large: ", "quota-exceeded: ", "unavailable: "];
const OUTBOX_ERRORS: [&str; 4] = ["not-granted: ", "invalid: ", "too-large: ", "too-many: "];
/// Where the tables of them lie, and how far one is from the next.
const STATE_NAMES: u32 = 4096;
const OUTBOX_NAMES: u32 = 4352;
const NAME: u32 = 20;

/// What a script needs to ask a service ([`Script::ask`]): functions, and the world that has them.
const ASKS: (&str, &str) = (
    r#"(import "wasi:http/types@0.2.12" "[constructor]fields" (func $fields (result i32)))
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
    "import wasi:http/types@0.2.12; import wasi:http/outgoing-handler@0.2.12; import wasi:io/poll@0.2.12;",
);

/// What a component does, step by step. What went wrong it says in its log as `case: text`.
pub(crate) struct Script {
    texts: Vec<u8>,
    code: String,
}

/// A message that a script publishes.
#[derive(Clone, Default)]
pub(crate) struct Written<'a> {
    pub(crate) topic: &'a str,
    pub(crate) tag: Option<&'a str>,
    pub(crate) keys: &'a [&'a str],
    pub(crate) message_group: Option<&'a str>,
    pub(crate) properties: &'a [(&'a str, &'a str)],
    pub(crate) deliver_at: Option<u64>,
    /// So many zeros.
    pub(crate) body: u32,
}

/// What a script answers.
#[derive(Clone, Copy)]
pub(crate) enum Says<'a> {
    /// `commit` or `ack`: both are the first case.
    Done,
    /// `rollback`, or `retry` without a time: with this text.
    Second(&'a str),
    /// `unknown` or `reject`.
    Third(&'a str),
    /// `err`.
    Err(&'a str),
}

impl Script {
    pub(crate) fn new() -> Self {
        Self { texts: Vec::new(), code: String::new() }
    }

    /// Where a text lies, and how long it is.
    fn place(&mut self, text: &str) -> (u32, u32) {
        let at = TEXTS + self.texts.len() as u32;
        self.texts.extend(text.bytes());
        (at, text.len() as u32)
    }

    /// The same as two expressions.
    fn text(&mut self, text: &str) -> String {
        let (at, length) = self.place(text);
        format!("(i32.const {at}) (i32.const {length})")
    }

    fn optional(&mut self, text: Option<&str>) -> String {
        match text {
            Some(text) => format!("(i32.const 1) {}", self.text(text)),
            None => "(i32.const 0) (i32.const 0) (i32.const 0)".to_owned(),
        }
    }

    /// A list of texts, each of which has its place and its length in the table.
    fn list(&mut self, texts: &[&str], in_each: usize) -> String {
        let entries: Vec<(u32, u32)> = texts.iter().map(|text| self.place(text)).collect();
        while !self.texts.len().is_multiple_of(4) {
            self.texts.push(0);
        }
        let at = TEXTS as usize + self.texts.len();
        for number in entries.into_iter().flat_map(|(at, length)| [at, length]) {
            self.texts.extend(number.to_le_bytes());
        }
        format!("(i32.const {at}) (i32.const {})", texts.len() / in_each)
    }

    fn step(mut self, code: &str) -> Self {
        self.code += code;
        self.code += "\n";
        self
    }

    /// Says what is kept, or `none`.
    pub(crate) fn get(mut self, key: &str) -> Self {
        let key = self.text(key);
        self.step(&format!("(call $get {key} (i32.const {RETURNED})) (call $got)"))
    }

    /// Reads and says nothing, unless it went wrong.
    pub(crate) fn look(mut self, key: &str) -> Self {
        let key = self.text(key);
        self.step(&format!("(call $get {key} (i32.const {RETURNED})) (call $done)"))
    }

    pub(crate) fn set(mut self, key: &str, value: &str, expires_after: Option<u32>) -> Self {
        let (key, value) = (self.text(key), self.text(value));
        self.set_at(&key, &value, expires_after)
    }

    /// Sets so many zeros.
    pub(crate) fn set_zeros(mut self, key: &str, zeros: u32) -> Self {
        let key = self.text(key);
        self.set_at(&key, &format!("(i32.const {ZEROS}) (i32.const {zeros})"), None)
    }

    fn set_at(self, key: &str, value: &str, expires_after: Option<u32>) -> Self {
        let expires = (u32::from(expires_after.is_some()), expires_after.unwrap_or(0));
        self.step(&format!(
            "(call $set {key} {value} (i32.const {}) (i32.const {}) (i32.const {RETURNED})) (call $done)",
            expires.0, expires.1
        ))
    }

    pub(crate) fn remove(mut self, key: &str) -> Self {
        let key = self.text(key);
        self.step(&format!("(call $remove {key} (i32.const {RETURNED})) (call $done)"))
    }

    /// Traps if the sum is another one.
    pub(crate) fn add(mut self, key: &str, delta: i64, sum: i64) -> Self {
        let key = self.text(key);
        self.step(&format!(
            "(call $add {key} (i64.const {delta}) (i32.const {RETURNED})) (call $added (i64.const {sum}))"
        ))
    }

    /// Says the id.
    pub(crate) fn publish(mut self, message: &Written<'_>) -> Self {
        let topic = self.text(message.topic);
        let tag = self.optional(message.tag);
        let keys = self.list(message.keys, 1);
        let group = self.optional(message.message_group);
        let pairs: Vec<&str> = message.properties.iter().flat_map(|(name, value)| [*name, *value]).collect();
        let properties = self.list(&pairs, 2);
        let deliver_at = (u32::from(message.deliver_at.is_some()), message.deliver_at.unwrap_or(0));
        let body = message.body;
        self.step(&format!(
            "(call $publish {topic} {tag} {keys} {group} {properties} (i32.const {}) (i64.const {}) (i32.const {ZEROS}) \
             (i32.const {body}) (i32.const {RETURNED})) (call $published)",
            deliver_at.0, deliver_at.1
        ))
    }

    /// Asks the service at `host:port`, and waits until that answers, whatever it says; traps if the request is not let out. For
    /// [`Self::asking`].
    pub(crate) fn ask(mut self, authority: &str) -> Self {
        let (authority, path) = (self.text(authority), self.text("/"));
        self.step(&format!(
            "(i32.store (i32.const 30016) (call $request (call $fields)))
             (drop (call $scheme (i32.load (i32.const 30016)) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
             (drop (call $authority (i32.load (i32.const 30016)) (i32.const 1) {authority}))
             (drop (call $path (i32.load (i32.const 30016)) (i32.const 1) {path}))
             (call $handle (i32.load (i32.const 30016)) (i32.const 0) (i32.const 0) (i32.const {RETURNED}))
             (if (i32.load8_u (i32.const {RETURNED})) (then unreachable))
             (call $block (call $subscribe (i32.load offset=8 (i32.const {RETURNED}))))"
        ))
    }

    /// Any code.
    pub(crate) fn raw(self, code: &str) -> Self {
        self.step(code)
    }

    /// A component that does all this whatever it is asked, and then says so. It exports `consumer`, `checkback` and, if that is
    /// wanted, `checkback-batch`.
    fn build(mut self, says: Says<'_>, batch: bool, more: (&str, &str)) -> Bytes {
        let (outer, case, text) = match says {
            Says::Done => (0, 0, ""),
            Says::Second(text) => (0, 1, text),
            Says::Third(text) => (0, 2, text),
            Says::Err(text) => (1, 0, text),
        };
        let (at, length) = self.place(text);
        let store =
            |offset: u32, value: u32| format!("(i32.store (i32.const {}) (i32.const {value}))", RESULT + offset);
        let end = if outer == 1 {
            [store(0, 1), store(4, at), store(8, length)].concat()
        } else {
            [store(4, case), store(8, at), store(12, length)].concat()
        };
        // The first of the asked, committed: a list of one answer at 1200.
        let many = format!(
            r#"(func (export "vouch:plugin/checkback-batch@0.1.0#check-many") (param i32 i32) (result i32)
                (call $steps)
                (i32.store (i32.const 1200) (i32.load (local.get 0)))
                (i32.store (i32.const 1204) (i32.load offset=4 (local.get 0)))
                (i32.store (i32.const {}) (i32.const 1200)) (i32.store (i32.const {}) (i32.const 1))
                (i32.const {RESULT}))"#,
            RESULT + 4,
            RESULT + 8
        );
        let (imports, more) = more;
        let core = format!(
            r#"(module
                (import "vouch:plugin/host@0.1.0" "log" (func $log (param i32 i32 i32)))
                (import "vouch:plugin/state@0.1.0" "get" (func $get (param i32 i32 i32)))
                (import "vouch:plugin/state@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32 i32 i32)))
                (import "vouch:plugin/state@0.1.0" "remove" (func $remove (param i32 i32 i32)))
                (import "vouch:plugin/state@0.1.0" "add" (func $add (param i32 i32 i64 i32)))
                (import "vouch:plugin/outbox@0.1.0" "publish" (func $publish
                    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32)))
                {imports}
                (memory (export "memory") {PAGES})
                (global $next (mut i32) (i32.const {ALLOCATED}))
                {}{}(data (i32.const 8192) "none")(data (i32.const {TEXTS}) "{}")
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                    (local $at i32)
                    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
                    (global.set $next (i32.add (local.get $at) (local.get 3)))
                    (block $fits (loop $grow
                        (br_if $fits (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
                        (br_if $grow (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))
                        unreachable))
                    (local.get $at))
                (func $fail (param $names i32) (param $at i32)
                    (local $n i32)
                    (local.set $names (i32.add (local.get $names) (i32.mul (i32.load8_u (local.get $at)) (i32.const {NAME}))))
                    (local.set $n (i32.load8_u (local.get $names)))
                    (memory.copy (i32.const 16384) (i32.add (local.get $names) (i32.const 1)) (local.get $n))
                    (memory.copy (i32.add (i32.const 16384) (local.get $n))
                        (i32.load offset=4 (local.get $at)) (i32.load offset=8 (local.get $at)))
                    (call $log (i32.const 2) (i32.const 16384) (i32.add (local.get $n) (i32.load offset=8 (local.get $at)))))
                (func $done
                    (if (i32.load8_u (i32.const {RETURNED})) (then (call $fail (i32.const {STATE_NAMES}) (i32.const 2052)))))
                (func $got
                    (if (i32.load8_u (i32.const {RETURNED})) (then (call $done) return))
                    (if (i32.load8_u (i32.const 2052))
                        (then (call $log (i32.const 2) (i32.load (i32.const 2056)) (i32.load (i32.const 2060))))
                        (else (call $log (i32.const 2) (i32.const 8192) (i32.const 4)))))
                (func $added (param $sum i64)
                    (if (i32.load8_u (i32.const {RETURNED}))
                        (then (call $fail (i32.const {STATE_NAMES}) (i32.const 2056)) return))
                    (if (i64.ne (i64.load (i32.const 2056)) (local.get $sum)) (then unreachable)))
                (func $published
                    (if (i32.load8_u (i32.const {RETURNED}))
                        (then (call $fail (i32.const {OUTBOX_NAMES}) (i32.const 2052)))
                        (else (call $log (i32.const 2) (i32.load (i32.const 2052)) (i32.load (i32.const 2056))))))
                (func $steps {})
                (func $answer (param i32) (result i32) (call $steps) {end} (i32.const {RESULT}))
                (export "vouch:plugin/checkback@0.1.0#check" (func $answer))
                (export "vouch:plugin/consumer@0.1.0#consume" (func $answer))
                {})"#,
            names(STATE_NAMES, &STATE_ERRORS),
            names(OUTBOX_NAMES, &OUTBOX_ERRORS),
            escaped(&self.texts),
            self.code,
            if batch { many } else { String::new() },
            ALLOCATED = 1 << 20,
        );
        let batch = if batch { "include vouch:plugin/checkback-batch-plugin@0.1.0;" } else { "" };
        let world = format!(
            "package test:w; world w {{ include vouch:plugin/checkback-plugin@0.1.0; include vouch:plugin/consumer-plugin@0.1.0;
                import vouch:plugin/state@0.1.0; import vouch:plugin/outbox@0.1.0; {batch} {more} }}"
        );
        component("test:w/w", &[&world], &core)
    }

    /// The component.
    pub(crate) fn says(self, says: Says<'_>) -> Bytes {
        self.build(says, false, ("", ""))
    }

    /// The same with further imports, as the module and the world declare them.
    pub(crate) fn importing(self, imports: &str, world: &str) -> Bytes {
        self.build(Says::Done, false, (imports, world))
    }

    /// A component that may ask a service.
    pub(crate) fn asking(self) -> Bytes {
        self.build(Says::Done, false, ASKS)
    }

    /// A component that answers about many as well.
    pub(crate) fn with_batches(self) -> Bytes {
        self.build(Says::Done, true, ("", ""))
    }
}

/// A table of names: for each its length and its letters.
fn names(at: u32, names: &[&str]) -> String {
    let entry = |(n, name): (usize, &&str)| {
        let length = u8::try_from(name.len()).unwrap();
        format!("(data (i32.const {}) \"{}\")", at + NAME * n as u32, escaped(&[&[length], name.as_bytes()].concat()))
    };
    names.iter().enumerate().map(entry).collect()
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

/// What a broker lends: values that never change, and a topic that takes everything or nothing.
#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) kept: HashMap<String, StateValue>,
    /// Why nothing can be read.
    pub(crate) away: Option<String>,
    /// Why no draft is taken.
    pub(crate) refuses: Option<DraftRefused>,
    /// Keys that were asked for.
    pub(crate) asked: Mutex<Vec<String>>,
}

impl Shelf {
    /// A shelf with these values; each has the next version, from 1.
    pub(crate) fn with(values: &[(&str, &str)]) -> Self {
        let kept = values.iter().zip(1..).map(|((key, value), version)| {
            let value = Some(value.as_bytes().to_vec());
            ((*key).to_owned(), StateValue { value, version, expires_at_ms: None })
        });
        Self { kept: kept.collect(), ..Self::default() }
    }
}

impl CallReach for Shelf {
    fn read<'a>(&'a self, key: &'a str) -> Pin<Box<dyn Future<Output = Result<StateValue, String>> + Send + 'a>> {
        Box::pin(async move {
            // As one that has to look for it.
            tokio::task::yield_now().await;
            self.asked.lock().unwrap().push(key.to_owned());
            match &self.away {
                Some(why) => Err(why.clone()),
                None => Ok(self.kept.get(key).cloned().unwrap_or_default()),
            }
        })
    }

    fn check_draft<'a>(&'a self, _: &'a Draft) -> Pin<Box<dyn Future<Output = Result<(), DraftRefused>> + Send + 'a>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.refuses.clone().map_or(Ok(()), Err)
        })
    }

    fn message_id(&self, number: u32) -> String {
        format!("id-{number}")
    }
}

/// Grants state of its own, and publishing to `audit` and `copies`.
pub(crate) fn all_granted(spec: &mut BindingSpec) {
    spec.grants = serde_json::from_str(r#"{"state":true,"publish":["audit","copies"]}"#).unwrap();
}

/// A delivery with something in every field.
pub(crate) fn delivery() -> ConsumerDelivery {
    ConsumerDelivery {
        delivery_key: "g/0/17".to_owned(),
        message: pending().half,
        group: "billing".to_owned(),
        delivered_at_ms: 12_000,
        attempt: 2,
        attempts_left: 15,
    }
}

/// Hands a message to a component.
pub(crate) async fn consume(binding: &Binding, reach: Option<Arc<Shelf>>) -> (Consumed, Staged) {
    let reach = reach.map(|shelf| shelf as Arc<dyn CallReach>);
    binding.admit().await.consume_prepared(delivery, reach).await
}

/// The same in a house of its own, for a component that acknowledges and is granted everything: what it logged, and what it staged.
pub(crate) async fn done(script: Script, shelf: Shelf) -> (Vec<String>, Staged) {
    let binding = House::new().bind(script.says(Says::Done), all_granted).await;
    let (consumed, staged) = consume(&binding, Some(Arc::new(shelf))).await;
    assert_eq!(consumed, Consumed::Answer(ConsumerVerdict::Ack));
    (logged(&binding), staged)
}

/// Asks a component about a transaction.
pub(crate) async fn check(binding: &Binding, reach: Option<Arc<Shelf>>) -> (Checked, Staged) {
    let reach = reach.map(|shelf| shelf as Arc<dyn CallReach>);
    binding.admit().await.check_prepared(pending, reach).await
}

pub(crate) fn logged(binding: &Binding) -> Vec<String> {
    binding.recent_logs().into_iter().map(|line| line.text).collect()
}
