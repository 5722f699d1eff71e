//! kill -9 at random moments under load, many rounds.
//!
//! Producers send normal messages and transactions and write down what they were told. After every restart an auditor
//! reads what became visible and holds it against that ledger: every acknowledged send is there exactly as sent,
//! nothing rolled back or still open is, no message has two queue entries, nothing was invented. Calls whose answer was
//! lost are made again, with the same or the opposite decision, and must fit what had happened. The transactions of one
//! topic are settled by a component, in a race with rollbacks of their producer. One topic expires at once, so that
//! segments are released under all this, and what is still needed of them is carried on.
//!
//! `VOUCH_KILL_SEED` repeats a run's choices, `VOUCH_KILL_ROUNDS` makes it longer.

#![allow(clippy::unwrap_used, reason = "the guests of the plugin suite are made for tests")]

mod audit;
#[path = "../../../host/plugin/tests/suite/guests.rs"]
#[allow(dead_code, reason = "the plugin suite uses the rest")]
mod guests;
mod ledger;
mod load;
mod settle;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use vouch_tests::broker::Broker;

use crate::audit::Auditor;
use crate::ledger::Ledger;

/// Rounds of a run in continuous integration: about a minute and a half.
const DEFAULT_ROUNDS: u32 = 25;

/// In this round the broker is killed when it has released something of the log, so that the later ones begin with such a log.
const RELEASED_IN: u32 = 8;
/// Which takes no longer than this under load.
const RELEASED_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks whether it did.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a broker is under load before it is killed.
const SHORTEST_LIFE: Duration = Duration::from_millis(50);
const LONGEST_LIFE: Duration = Duration::from_millis(2_000);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_and_nothing_else_appears() -> anyhow::Result<()> {
    let seed = setting("VOUCH_KILL_SEED")?.unwrap_or_else(seed_of_the_moment);
    let rounds = setting("VOUCH_KILL_ROUNDS")?.and_then(|rounds| u32::try_from(rounds).ok()).unwrap_or(DEFAULT_ROUNDS);
    println!("seed: VOUCH_KILL_SEED={seed} VOUCH_KILL_ROUNDS={rounds}");
    let mut broker = Broker::new()?;
    let outcome = run(&mut broker, seed, rounds).await;
    match &outcome {
        Ok(summary) => println!("{summary}"),
        Err(_) => println!("{}\nthe folder is kept: {}", broker.log(), broker.keep_folder().display()),
    }
    outcome.map(drop).with_context(|| format!("VOUCH_KILL_SEED={seed}"))
}

/// The whole story; returns a sentence about it.
async fn run(broker: &mut Broker, seed: u64, rounds: u32) -> anyhow::Result<String> {
    let mut random = StdRng::seed_from_u64(seed);
    broker.start()?;
    create_topics(broker)?;
    bind_component(broker)?;
    let ledger = Arc::new(Ledger::new(seed));
    let mut auditor = Auditor::new("auditor");
    let mut slowest_start = Duration::ZERO;
    let began = Instant::now();
    for round in 1..=rounds {
        let life = random.random_range(SHORTEST_LIFE..LONGEST_LIFE);
        let load = load::start(broker.grpc(), &ledger, random.random())?;
        tokio::time::sleep(life).await;
        // On a quick machine all lives may be too short for that, and then no kill would meet a log that begins late.
        if round == RELEASED_IN {
            until_released(broker).await.with_context(|| format!("round {round}"))?;
        }
        broker.kill().context("killing the broker")?;
        load.finish().await?;
        slowest_start = slowest_start.max(broker.start()?);
        settle::settle(broker.grpc(), &ledger, &mut random).await.with_context(|| format!("round {round}"))?;
        auditor.read_everything(broker.grpc(), &ledger).await.with_context(|| format!("round {round}"))?;
        auditor.hold_against(&ledger).with_context(|| format!("round {round}, killed after {life:?}"))?;
    }

    // A clean stop changes nothing either, and a group that never read anything sees the same.
    anyhow::ensure!(broker.stop()?.success(), "SIGTERM must end the broker with status 0");
    broker.start()?;
    wait_for_the_component(broker).context("after a clean restart")?;
    ledger.all_is_settled();
    let mut newcomer = Auditor::new("newcomer");
    newcomer.read_everything(broker.grpc(), &ledger).await.context("after a clean restart")?;
    newcomer.hold_against(&ledger).context("after a clean restart")?;
    auditor.read_everything(broker.grpc(), &ledger).await.context("after a clean restart, acked messages")?;
    newcomer.agrees_with(&auditor).context("after a clean restart")?;
    anyhow::ensure!(ledger.has_load(), "no load reached the broker: {}", ledger.summary());
    anyhow::ensure!(!broker.log().contains("panicked at"), "the broker panicked");
    let took = began.elapsed();
    let log_start = broker.log_start()?;
    anyhow::ensure!(rounds < DEFAULT_ROUNDS || log_start > 0, "the log was never released");
    Ok(format!(
        "{rounds} rounds in {took:.1?}, slowest restart {slowest_start:.1?}, {} MiB of log released: {}",
        log_start >> 20,
        ledger.summary()
    ))
}

/// Waits until something of the log is released.
async fn until_released(broker: &Broker) -> anyhow::Result<()> {
    let by = Instant::now() + RELEASED_WITHIN;
    while broker.log_start()? == 0 {
        anyhow::ensure!(Instant::now() < by, "nothing of the log was released within {RELEASED_WITHIN:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn create_topics(broker: &Broker) -> anyhow::Result<()> {
    broker.call("PUT", &format!("/v1/topics/{}", ledger::NORMAL), r#"{"type":"normal","queues":4}"#)?;
    // Nobody asks: the outcomes are the producers' alone.
    let transaction = r#"{"type":"transaction","queues":4,"transaction":{"immunity":"1h","interval":"1h"}}"#;
    broker.call("PUT", &format!("/v1/topics/{}", ledger::TRANSACTION), transaction)?;
    let filler = r#"{"type":"normal","queues":1,"retention_size":"1MiB"}"#;
    broker.call("PUT", &format!("/v1/topics/{}", load::FILLER), filler)?;
    Ok(())
}

/// A component that always says *commit*, and a topic whose transactions it settles as soon as the settings allow.
fn bind_component(broker: &Broker) -> anyhow::Result<()> {
    let transaction = r#"{"type":"transaction","queues":2,"transaction":{"immunity":"1s","interval":"1s"}}"#;
    broker.call("PUT", &format!("/v1/topics/{}", ledger::CHECKED), transaction)?;
    let component = broker.folder().join("commit.wasm");
    std::fs::write(&component, guests::check(&guests::commit()))?;
    broker.vouch(&["plugin", "push", "commit:1", component.to_str().context("a folder with a UTF-8 name")?])?;
    broker.vouch(&["binding", "set", "commit", "--plugin", "commit:1", "--topic", ledger::CHECKED]).map(drop)
}

/// Waits until the component has settled everything that was left to it.
fn wait_for_the_component(broker: &Broker) -> anyhow::Result<()> {
    const DEADLINE: Duration = Duration::from_secs(120);
    let began = Instant::now();
    loop {
        let open = broker.call("GET", &format!("/v1/transactions?topic={}&state=open&limit=1", ledger::CHECKED), "")?;
        if open["items"].as_array().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < DEADLINE, "after {DEADLINE:?} the component has not settled {open}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn setting(name: &str) -> anyhow::Result<Option<u64>> {
    std::env::var(name).ok().map(|value| value.parse().with_context(|| format!("{name}={value}"))).transpose()
}

fn seed_of_the_moment() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs() ^ u64::from(since.subsec_nanos()))
}
