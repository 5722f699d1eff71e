//! What components that mean no good cost the sends beside them: benchmarks, not verdicts. That they harm nothing else is a verdict.
//!
//! The first: one broker, one component that spins until its deadline, and more open transactions than it has places, so that
//! guests run all the time. Sends at a fixed pace are measured by turns with the component bound and unbound; printed
//! are the latencies of each turn and their medians. The others are in `hostile`. Run them on a machine that does nothing else:
//!
//! ```text
//! cargo test --release --locked --workspace --test isolation -- --ignored --nocapture
//! ```
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for the terminal, which may end with a panic")]

#[path = "../../../host/plugin/tests/suite/guests.rs"]
#[allow(dead_code, reason = "the plugin suite uses the rest")]
mod guests;
mod hostile;
#[path = "../../../host/node/tests/common/keepers.rs"]
mod keepers;

use std::time::{Duration, Instant};

use serde_json::Value;
use vouch_protocol::wire;
use vouch_tests::broker::Broker;
use vouch_tests::client::{Client, Outcome, resource};

/// Pairs of turns, with the component and without.
const PAIRS: usize = 5;
/// Measured seconds of a turn.
const SECONDS: &str = "5";
/// Messages a second, open loop.
const RATE: &str = "2000";
/// Open transactions that the component is asked about: more than it answers within their interval.
const STUCK: usize = 64;
const TOPIC: &str = "stuck";
/// When all messages of these tests were made, in s since 1970.
const BORN_S: i64 = 1_700_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a benchmark of about two minutes"]
async fn sends_beside_a_component_that_spins() -> anyhow::Result<()> {
    let mut broker = Broker::new()?;
    broker.start()?;
    let component = broker.folder().join("spin.wasm");
    std::fs::write(&component, guests::check(guests::SPIN))?;
    broker.vouch(&["plugin", "push", "spin:1", component.to_str().unwrap()])?;
    let topic = r#"{"type":"transaction","queues":1,"transaction":{"immunity":"1s","interval":"1s"}}"#;
    broker.call("PUT", &format!("/v1/topics/{TOPIC}"), topic)?;
    leave_open(broker.grpc(), STUCK).await?;

    println!("{STUCK} open transactions; sends at {RATE}/s for {SECONDS} s a turn");
    println!("{:>5}  {:<9} {:>9} {:>9} {:>9}  unanswered checks", "pair", "component", "p50", "p99", "p99.9");
    let mut p99 = [Vec::new(), Vec::new()];
    let mut bound = false;
    for pair in 1..=PAIRS {
        // Who begins changes: the disk is not the same from minute to minute.
        for spins in if pair % 2 == 0 { [false, true] } else { [true, false] } {
            if spins != std::mem::replace(&mut bound, spins) {
                bind(&broker, spins)?;
            }
            let before = metric(&broker, "vouch_checks_unanswered_total")?;
            let seen = measure(&broker)?;
            let unanswered = metric(&broker, "vouch_checks_unanswered_total")? - before;
            anyhow::ensure!(
                spins == (unanswered > 0.0),
                "spinning is {spins}, yet {unanswered} checks went unanswered"
            );
            let name = if spins { "spinning" } else { "unbound" };
            let ms = |name| seen[name].as_f64().map_or(f64::NAN, |micros: f64| micros / 1e3);
            let [p50, p99_ms, p999] = ["p50_us", "p99_us", "p999_us"].map(ms);
            println!("{pair:>5}  {name:<9} {p50:>6.2} ms {p99_ms:>6.2} ms {p999:>6.2} ms  {unanswered}");
            p99[usize::from(spins)].push(p99_ms);
        }
    }
    let [unbound, spinning] = p99.map(median);
    println!(
        "\np99 of sends: median {unbound:.2} ms unbound, {spinning:.2} ms beside the spinning component: {:.2} times, {:+.2} ms",
        spinning / unbound,
        spinning - unbound
    );
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Half messages that nobody ends.
async fn leave_open(address: &str, count: usize) -> anyhow::Result<()> {
    let client = Client::new(address, "isolation")?;
    for n in 0..count {
        let message = wire::Message {
            topic: Some(resource(TOPIC)),
            system_properties: Some(wire::SystemProperties {
                message_id: format!("01{n:030X}"),
                message_type: wire::MessageType::Transaction.into(),
                born_host: "127.0.0.1".to_owned(),
                born_timestamp: Some(prost_types::Timestamp { seconds: BORN_S, nanos: 0 }),
                ..Default::default()
            }),
            body: bytes::Bytes::from_static(b"nobody knows"),
            ..Default::default()
        };
        let answer = client.send(message).await;
        anyhow::ensure!(matches!(answer, Outcome::Done(_)), "a half message was not taken: {answer:?}");
    }
    Ok(())
}

/// Binds the component, and waits until it spins; or unbinds it, and waits until nothing of it runs.
fn bind(broker: &Broker, spins: bool) -> anyhow::Result<()> {
    if spins {
        broker.vouch(&["binding", "set", "spin", "--plugin", "spin:1", "--topic", TOPIC])?;
    } else {
        broker.vouch(&["binding", "delete", "spin"])?;
    }
    let began = Instant::now();
    while (metric(broker, "vouch_checks_running")? > 0.0) != spins {
        anyhow::ensure!(began.elapsed() < Duration::from_secs(30), "checks running never became {spins}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// One turn: what `vouch bench send` saw of the running broker.
fn measure(broker: &Broker) -> anyhow::Result<Value> {
    let arguments =
        ["bench", "send", "--without-peers", "--rounds", "1", "--json", "--seconds", SECONDS, "--rate", RATE];
    let report: Value = serde_json::from_slice(&broker.vouch(&arguments)?)?;
    Ok(report["rounds"][0]["vouch"].clone())
}

fn metric(broker: &Broker, name: &str) -> anyhow::Result<f64> {
    let metrics = broker.call("GET", "/metrics", "")?;
    let text = metrics.as_str().unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.ok_or_else(|| anyhow::anyhow!("there is no metric {name} in:\n{text}"))
}
