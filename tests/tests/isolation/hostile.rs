//! Consumers that mean no good, each beside an honest one: they are told what they may not, are bounded, and nobody else is harmed.
//!
//! The long one measures what sends to another topic take beside each, at a fixed pace: windows before, beside and after.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use vouch_protocol::wire;
use vouch_tests::broker::Broker;
use vouch_tests::client::{Client, Outcome, resource};

use crate::guests::commit;
use crate::keepers::{DELIVERY_KEY, RETURNED, consumer, or_trap, publish};
use crate::{BORN_S, measure, median, metric};

/// Messages for each attacker where nothing is measured, and for the honest one.
const FEW: usize = 24;
/// Messages in one send.
const IN_EACH: usize = 100;
/// Windows before, beside and after.
const BEFORE: usize = 3;
const BESIDE: usize = 2;
/// Bounds a test that fails, and nothing else.
const NEVER_LONGER: Duration = Duration::from_secs(60);
/// What an attacker leaves behind in memory at most, in bytes: with the allocator, and in the engine's pools.
const LEFT_BEHIND: u64 = 96 << 20;
/// Keys that the greedy reader reads, and bytes of each.
const HOARD: usize = 512;
const HOARDED: usize = 32_000;

/// A component and what it may.
struct Attack {
    name: &'static str,
    wasm: Bytes,
    limits: Value,
    /// Part of what its last failed delivery says; `None`: none fails.
    told: Option<&'static str>,
    /// Messages that it publishes in each delivery.
    publishes: usize,
    /// Deliveries that are there for it while sends are measured.
    supply: usize,
    /// What is kept in its namespace before.
    hoards: bool,
}

/// The number of the local variable `$n` as two letters at 4096: 512 keys.
const KEY: &str = "(i32.store8 (i32.const 4096) (i32.add (i32.const 64) (i32.and (local.get $n) (i32.const 31))))
    (i32.store8 (i32.const 4097) (i32.add (i32.const 64) (i32.shr_u (local.get $n) (i32.const 5))))";

/// The last digit of the message's id.
const DIGIT: &str =
    "(i32.sub (i32.load8_u (i32.sub (i32.add (i32.load offset=8 (local.get 0)) (i32.load offset=12 (local.get 0)))
    (i32.const 1))) (i32.const 48))";

/// So many times, with the turn in `$n`.
fn times(count: usize, code: &str) -> String {
    format!(
        "(local.set $n (i32.const 0)) (loop $each {code} (local.set $n (i32.add (local.get $n) (i32.const 1)))
         (br_if $each (i32.lt_u (local.get $n) (i32.const {count}))))"
    )
}

/// Traps unless what was called last was refused with this case of its error.
fn or_is_refused(case: u32) -> String {
    format!(
        "(if (i32.or (i32.ne (i32.load8_u (i32.const {RETURNED})) (i32.const 1))
                     (i32.ne (i32.load8_u (i32.const {})) (i32.const {case}))) (then unreachable))",
        RETURNED + 4
    )
}

/// Only for messages whose number is odd: whoever fails always is soon paused.
fn every_other(code: &str) -> String {
    format!("(if (i32.and {DIGIT} (i32.const 1)) (then {code}))")
}

/// Keeps 4 × 60 000 bytes under keys that nobody else uses.
fn overflow() -> String {
    let letter = "(i32.store8 (i32.load (local.get 0)) (i32.add (i32.const 97) (local.get $n)))";
    let set = format!(
        "(call $set {DELIVERY_KEY} (i32.const 65536) (i32.const 60000) (i32.const 0) (i32.const 0) (i32.const {RETURNED}))"
    );
    format!("(drop (memory.grow (i32.const 2))) {}", times(4, &[letter, &set, &or_trap()].concat()))
}

/// Reads each of the 512 keys.
fn reads() -> String {
    let get = format!("(call $get (i32.const 4096) (i32.const 2) (i32.const {RETURNED}))");
    times(HOARD, &[KEY, &get, &or_trap()].concat())
}

/// Publishes as many messages of this size as it may, and is refused one more.
fn floods(size: u32) -> String {
    let publish = publish((0, 4), (65_536, size));
    let all = times(16, &[&publish, &*or_trap()].concat());
    format!("(drop (memory.grow (i32.const 5))) {all} {publish} {}", or_is_refused(3))
}

/// Tries to publish again and again where it may not, or where there is nothing.
fn publishes_elsewhere((at, length): (u32, u32), case: u32) -> String {
    times(2000, &[publish((at, length), (4096, 16)), or_is_refused(case)].concat())
}

fn attacks() -> Vec<Attack> {
    let component = |code: String| consumer("spamnowhereother", &[code, commit()].concat());
    let all = |name, code, supply| Attack {
        name,
        wasm: component(code),
        limits: json!({"state": "64MiB", "deadline": "1s"}),
        told: None,
        publishes: 0,
        supply,
        hoards: false,
    };
    let fails = |name, code, told, supply| Attack {
        told: Some(told),
        limits: json!({"state": "1MiB", "deadline": "1s"}),
        ..all(name, code, supply)
    };
    let traps = "unreachable".to_owned();
    vec![
        fails("keeps more than it may, always", overflow(), "limits.state", 20_000),
        fails("keeps more than it may, every other time", every_other(&overflow()), "limits.state", 50_000),
        all("reads 512 keys that are not there", reads(), 50_000),
        Attack { hoards: true, ..all("reads 512 keys of 32 kB", reads(), 20_000) },
        Attack { publishes: 16, ..all("publishes 16 messages of 16 B", floods(16), 50_000) },
        // A record of all 4 MiB that a call may publish would be longer than the segments of this broker.
        Attack { publishes: 16, ..all("publishes 16 messages of 240 KiB", floods(240 << 10), 5_000) },
        all("publishes 2 000 times where it may not", publishes_elsewhere((11, 5), 0), 50_000),
        all("publishes 2 000 times to a topic that is not there", publishes_elsewhere((4, 7), 1), 50_000),
        fails("traps always", traps.clone(), "unreachable", 20_000),
        fails("traps every other time", every_other(&traps), "unreachable", 100_000),
    ]
}

/// Sends so many small messages to a topic; the last digits of each id are its number.
async fn send(client: &Client, topic: &str, numbers: std::ops::Range<usize>) -> anyhow::Result<()> {
    for first in numbers.clone().step_by(IN_EACH) {
        let each = |n: usize| wire::Message {
            topic: Some(resource(topic)),
            system_properties: Some(wire::SystemProperties {
                message_id: format!("01{n:032}"),
                message_type: wire::MessageType::Normal.into(),
                born_host: "127.0.0.1".to_owned(),
                born_timestamp: Some(prost_types::Timestamp { seconds: BORN_S, nanos: 0 }),
                ..Default::default()
            }),
            body: Bytes::from_static(b"x"),
            ..Default::default()
        };
        let sent = client.send_all((first..numbers.end.min(first + IN_EACH)).map(each).collect()).await;
        anyhow::ensure!(matches!(sent, Outcome::Done(_)), "messages were not taken: {sent:?}");
    }
    Ok(())
}

/// A broker with an honest binding and an attacker, which is not bound yet.
struct Field<'a> {
    broker: Broker,
    client: Client,
    attack: &'a Attack,
    /// Messages that the honest one got so far.
    honest: usize,
}

impl<'a> Field<'a> {
    async fn new(mut broker: Broker, attack: &'a Attack) -> anyhow::Result<Self> {
        broker.start()?;
        for topic in ["good", "evil", "other", "hoard"] {
            broker.call("PUT", &format!("/v1/topics/{topic}"), "{}")?;
        }
        // Whatever is published stays for a while only: it would fill the disk.
        broker.call("PUT", "/v1/topics/spam", r#"{"retention_size":"128MiB","unconsumed":"expire"}"#)?;
        // What fails is a dead letter at once, so that the next one has its turn.
        broker.call("PUT", "/v1/groups/evil", r#"{"max_attempts":1,"backoff":["0s"]}"#)?;
        let add = format!("(call $add {DELIVERY_KEY} (i64.const 1) (i32.const {RETURNED})) {}", or_trap());
        let hoard = hoarder();
        for (name, wasm) in
            [("good", consumer("", &(add + &commit()))), ("hoard", hoard), ("evil", attack.wasm.clone())]
        {
            let file = broker.folder().join(format!("{name}.wasm"));
            std::fs::write(&file, wasm)?;
            broker.vouch(&["plugin", "push", &format!("{name}:1"), file.to_str().unwrap()])?;
        }
        let client = Client::new(broker.grpc(), "hostile")?;
        let mut field = Self { broker, client, attack, honest: 0 };
        field.bind("good", &json!(true), &json!({}))?;
        field.is_honest().await?;
        if attack.hoards {
            field.bind("hoard", &json!("hoard"), &json!({"state": "64MiB"}))?;
            send(&field.client, "hoard", 0..HOARD).await?;
            field.until("it is hoarded", || Ok(field.shown("hoard")?["waiting"] == 0))?;
        }
        Ok(field)
    }

    fn bind(&self, name: &str, state: &Value, limits: &Value) -> anyhow::Result<()> {
        let spec = json!({
            "plugin": format!("{name}:1"), "groups": [name], "subscriptions": {name: "*"}, "unchecked": true, "limits": limits,
            "grants": {"state": state, "publish": ["spam", "nowhere"]},
        });
        self.broker.call("PUT", &format!("/v1/bindings/{name}"), &spec.to_string()).map(drop)
    }

    fn begin(&self) -> anyhow::Result<()> {
        let state = if self.attack.hoards { json!("hoard") } else { json!(true) };
        self.bind("evil", &state, &self.attack.limits)
    }

    fn until(&self, what: &str, mut is: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let began = Instant::now();
        while !is()? {
            let shown = self.shown("evil").unwrap_or_default();
            anyhow::ensure!(began.elapsed() < NEVER_LONGER, "{}: still not so: {what}; {shown}", self.attack.name);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn shown(&self, binding: &str) -> anyhow::Result<Value> {
        self.broker.call("GET", &format!("/v1/bindings/{binding}"), "")
    }

    fn deliveries(&self, binding: &str, outcome: &str) -> anyhow::Result<f64> {
        // There is none before the first.
        let name = format!("vouch_deliveries_total{{binding=\"{binding}\",outcome=\"{outcome}\"}}");
        Ok(metric(&self.broker, &name).unwrap_or(0.0))
    }

    /// The honest binding gets some messages, and counts each once.
    async fn is_honest(&mut self) -> anyhow::Result<()> {
        let from = self.honest;
        self.honest += FEW;
        send(&self.client, "good", from..self.honest).await?;
        self.until("the honest one has done its work", || Ok(self.deliveries("good", "ack")? >= self.honest as f64))?;
        let kept = self.broker.call("GET", "/v1/bindings/good/state?limit=1000", "")?;
        let items = kept["items"].as_array().map_or(&[][..], Vec::as_slice);
        anyhow::ensure!(items.len() == self.honest && items.iter().all(|item| item["value"] == "1"), "{kept}");
        Ok(())
    }

    /// The attacker is told what its failed deliveries are for, or does not fail at all; and it keeps no more than it may.
    fn is_told(&self) -> anyhow::Result<()> {
        let failed = || self.deliveries("evil", "failed");
        if let Some(told) = self.attack.told {
            self.until(told, || {
                let shown = self.shown("evil")?;
                let last = shown["standing"]["consumer"]["last_error"].as_str().unwrap_or_default().to_owned();
                // Of one that succeeded since nothing is told.
                Ok(failed()? > 0.0 && (last.is_empty() || last.contains(told)))
            })?;
        } else {
            self.until("it gets on", || Ok(self.deliveries("evil", "ack")? > 0.0))?;
            anyhow::ensure!(failed()? == 0.0, "{}: {}", self.attack.name, self.shown("evil")?);
        }
        let kept = self.broker.call("GET", "/v1/bindings/evil/state?limit=1", "")?;
        anyhow::ensure!(kept["bytes"].as_u64() <= kept["quota"].as_u64(), "{}: {kept}", self.attack.name);
        Ok(())
    }

    /// Each delivery that is done has published what it may, and none anything else.
    async fn has_published(&self) -> anyhow::Result<()> {
        self.until("it has done what there is", || {
            Ok(self.attack.told.is_some() || self.shown("evil")?["waiting"] == 0)
        })?;
        let done = self.deliveries("evil", "ack")?;
        let expected = self.attack.publishes * done as usize;
        for (topic, expected) in [("spam", expected), ("other", 0)] {
            let mut found = 0;
            loop {
                let got = self.client.receive(topic, "looks", NEVER_LONGER, Duration::ZERO).await?.len();
                if got == 0 {
                    break;
                }
                found += got;
            }
            anyhow::ensure!(found == expected, "{}: {found} messages in {topic}, not {expected}", self.attack.name);
        }
        Ok(())
    }

    /// It is unbound; nothing of it runs, and what it had is given back.
    fn end(&self, memory: u64) -> anyhow::Result<()> {
        self.broker.vouch(&["binding", "delete", "evil"])?;
        if self.attack.hoards {
            self.broker.vouch(&["binding", "delete", "hoard"])?;
        }
        self.until("memory is given back", || Ok(self.broker.memory()? < memory + LEFT_BEHIND))
    }
}

/// Keeps what the greedy reader reads: under the key of each message's number.
fn hoarder() -> Bytes {
    // The last three digits of the id: its number.
    let digit = |n: usize, place: usize| {
        format!(
            "(i32.mul (i32.const {place}) (i32.sub (i32.load8_u (i32.sub (i32.add (i32.load offset=8 (local.get 0)) \
             (i32.load offset=12 (local.get 0))) (i32.const {n}))) (i32.const 48)))"
        )
    };
    let number = format!("(i32.add {} (i32.add {} {}))", digit(1, 1), digit(2, 10), digit(3, 100));
    let set = format!(
        "(call $set (i32.const 4096) (i32.const 2) (i32.const 65536) (i32.const {HOARDED}) (i32.const 0) (i32.const 0) \
         (i32.const {RETURNED}))"
    );
    let code =
        format!("(drop (memory.grow (i32.const 1))) (local.set $n {number}) {KEY} {set} {}{}", or_trap(), commit());
    consumer("", &code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_that_mean_no_good_are_told_why_and_nobody_else_suffers() -> anyhow::Result<()> {
    for attack in &attacks() {
        let mut field = Field::new(Broker::new()?, attack).await?;
        let memory = field.broker.memory()?;
        send(&field.client, "evil", 0..FEW).await?;
        field.begin()?;
        field.is_told()?;
        field.is_honest().await?;
        field.has_published().await?;
        field.end(memory)?;
        field.is_honest().await?;
        anyhow::ensure!(field.broker.stop()?.success(), "{}: it stops as it should", attack.name);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a benchmark of some minutes"]
async fn sends_beside_consumers_that_mean_no_good() -> anyhow::Result<()> {
    let only = std::env::var("VOUCH_HOSTILE_ONLY").unwrap_or_default();
    println!(
        "| beside a consumer that | p99 before | beside | after | at most | deliveries a second, done and failed |"
    );
    println!("|---|---|---|---|---|---|");
    for attack in attacks().iter().filter(|attack| attack.name.contains(&only)) {
        let mut field = Field::new(Broker::with_its_own_sizes()?, attack).await?;
        let p99 = |windows: usize| -> anyhow::Result<Vec<f64>> {
            (0..windows).map(|_| Ok(measure(&field.broker)?["p99_us"].as_f64().unwrap_or(f64::NAN) / 1e3)).collect()
        };
        let before = p99(BEFORE)?;
        send(&field.client, "evil", 0..attack.supply).await?;
        field.begin()?;
        field.is_told()?;
        let count = || -> anyhow::Result<[f64; 2]> {
            Ok([field.deliveries("evil", "ack")?, field.deliveries("evil", "failed")?])
        };
        let (began, done) = (Instant::now(), count()?);
        let beside = p99(BESIDE)?;
        let (seconds, now) = (began.elapsed().as_secs_f64(), count()?);
        let left = field.shown("evil")?["waiting"].as_u64().unwrap_or(0);
        field.broker.vouch(&["binding", "delete", "evil"])?;
        let after = p99(1)?;
        field.is_honest().await?;
        let at_most = median(before.clone());
        let at_most = (at_most * 1.2).max(at_most + 1.0);
        let ms = |windows: &[f64]| windows.iter().map(|ms| format!("{ms:.1}")).collect::<Vec<_>>().join(" ");
        let rates = [0, 1].map(|n| (now[n] - done[n]) / seconds);
        println!(
            "| {} | {} | {} | {} | {at_most:.1} | {:.0}, {:.0}{} |",
            attack.name,
            ms(&before),
            ms(&beside),
            ms(&after),
            rates[0],
            rates[1],
            if left == 0 { " (all there were)" } else { "" }
        );
    }
    Ok(())
}
