//! The load: producers of normal messages and of transactions, and consumers that acknowledge while they can.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;
use vouch_protocol::wire::{self, Code, TransactionResolution};
use vouch_tests::client::{Client, Outcome, resource};

use crate::ledger::{CHECKED, Fate, Ledger, NORMAL, TOPICS, TRANSACTION};

const SENDERS: u32 = 8;
const TRANSACTION_SENDERS: u32 = 4;
const CHECKED_SENDERS: u32 = 2;
const CONSUMERS: u32 = 3;
/// How long a sender thinks before it rolls back what a component may have committed meanwhile.
const LONGEST_THOUGHT_MS: u64 = 1_500;

/// The group that consumes while the broker is being killed; the auditor has its own.
const GROUP: &str = "worker";
/// Longer than a round, so that an acknowledgement that came through came from the only holder.
const LEASE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(500);

/// A topic whose messages expire at once and that nobody reads.
pub(crate) const FILLER: &str = "filler";
const FILLER_BODY: usize = 128 << 10;

/// The client id of a message's sender: a repeat is recognised by it.
pub(crate) const PRODUCER: &str = "kill-producer";

/// Workers that run until their broker is gone.
pub(crate) struct Load {
    workers: JoinSet<anyhow::Result<()>>,
    stopping: Arc<AtomicBool>,
}

/// Starts the workers against the broker at `address`.
pub(crate) fn start(address: &str, ledger: &Arc<Ledger>, seed: u64) -> anyhow::Result<Load> {
    let stopping = Arc::new(AtomicBool::new(false));
    let acked = Arc::new(Mutex::new(HashSet::new()));
    let mut workers = JoinSet::new();
    for _ in 0..SENDERS {
        let (client, ledger) = (Client::new(address, PRODUCER)?, Arc::clone(ledger));
        workers.spawn(async move { send_normal_messages(&client, &ledger).await });
    }
    for n in 0..TRANSACTION_SENDERS {
        let (client, ledger) = (Client::new(address, PRODUCER)?, Arc::clone(ledger));
        let random = StdRng::seed_from_u64(seed ^ u64::from(n));
        workers.spawn(async move { send_transactions(&client, &ledger, random).await });
    }
    for n in 0..CHECKED_SENDERS {
        let (client, ledger) = (Client::new(address, PRODUCER)?, Arc::clone(ledger));
        let random = StdRng::seed_from_u64(seed ^ 0xC4EC ^ u64::from(n));
        workers.spawn(async move { send_checked(&client, &ledger, random).await });
    }
    let client = Client::new(address, PRODUCER)?;
    workers.spawn(async move { send_filler(&client, seed).await });
    for n in 0..CONSUMERS {
        let client = Client::new(address, &format!("kill-consumer-{n}"))?;
        let topic = TOPICS[n as usize % TOPICS.len()];
        let (acked, stopping) = (Arc::clone(&acked), Arc::clone(&stopping));
        workers.spawn(async move { consume(&client, topic, &acked, &stopping).await });
    }
    Ok(Load { workers, stopping })
}

impl Load {
    /// Waits for the workers; the broker must be gone, or they go on.
    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        self.stopping.store(true, Ordering::Relaxed);
        while let Some(worker) = self.workers.join_next().await {
            worker??;
        }
        Ok(())
    }
}

/// Sends until a call has no answer.
async fn send_normal_messages(client: &Client, ledger: &Ledger) -> anyhow::Result<()> {
    loop {
        let (id, message) = ledger.begin(NORMAL, Fate::SendUnknown);
        match client.send(message).await {
            Outcome::Done(_) => ledger.record(&id, Fate::Sent),
            Outcome::Refused(code, text) => {
                only_overload(code, &text)?;
                ledger.record(&id, Fate::Refused);
            }
            Outcome::Unknown(_) => return Ok(()),
        }
    }
}

/// Sends what expires at once, so that everything else must be carried on, again and again.
async fn send_filler(client: &Client, seed: u64) -> anyhow::Result<()> {
    for n in 0_u64.. {
        let system_properties = wire::SystemProperties {
            message_id: format!("filler-{seed:x}-{n}"),
            body_encoding: wire::Encoding::Identity.into(),
            message_type: wire::MessageType::Normal.into(),
            ..Default::default()
        };
        let message = wire::Message {
            topic: Some(resource(FILLER)),
            system_properties: Some(system_properties),
            body: vec![0; FILLER_BODY].into(),
            ..Default::default()
        };
        match client.send(message).await {
            Outcome::Done(_) => {}
            Outcome::Refused(code, text) => only_overload(code, &text)?,
            Outcome::Unknown(_) => break,
        }
    }
    Ok(())
}

/// Sends half messages and commits, rolls back or abandons them, until a call has no answer.
async fn send_transactions(client: &Client, ledger: &Ledger, mut random: StdRng) -> anyhow::Result<()> {
    loop {
        let (id, message) = ledger.begin(TRANSACTION, Fate::HalfUnknown);
        let transaction = match client.send(message).await {
            Outcome::Done(transaction) => transaction,
            Outcome::Refused(code, text) => {
                only_overload(code, &text)?;
                ledger.record(&id, Fate::Refused);
                continue;
            }
            Outcome::Unknown(_) => return Ok(()),
        };
        ledger.record_open(&id, &transaction);
        let (resolution, unknown, known) = match random.random_range(0..10) {
            0 => continue,
            1..4 => (TransactionResolution::Rollback, Fate::RollbackUnknown, Fate::RolledBack),
            _ => (TransactionResolution::Commit, Fate::CommitUnknown, Fate::Committed),
        };
        ledger.record(&id, unknown);
        match client.end(TRANSACTION, &id, &transaction, resolution).await {
            Outcome::Done(()) => ledger.record(&id, known),
            Outcome::Refused(code, text) => {
                only_overload(code, &text)?;
                ledger.record(&id, Fate::Open);
            }
            Outcome::Unknown(_) => return Ok(()),
        }
    }
}

/// Sends half messages that a component commits, and sometimes rolls one back first, or too late.
async fn send_checked(client: &Client, ledger: &Ledger, mut random: StdRng) -> anyhow::Result<()> {
    loop {
        let (id, message) = ledger.begin(CHECKED, Fate::AskedUnknown);
        let transaction = match client.send(message).await {
            Outcome::Done(transaction) => transaction,
            Outcome::Refused(code, text) => {
                only_overload(code, &text)?;
                ledger.record(&id, Fate::Refused);
                continue;
            }
            Outcome::Unknown(_) => return Ok(()),
        };
        ledger.record_open(&id, &transaction);
        tokio::time::sleep(Duration::from_millis(random.random_range(1..20))).await;
        if random.random_bool(0.7) {
            continue;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..LONGEST_THOUGHT_MS))).await;
        ledger.record(&id, Fate::RaceUnknown);
        match client.end(CHECKED, &id, &transaction, TransactionResolution::Rollback).await {
            Outcome::Done(()) => ledger.record(&id, Fate::RolledBack),
            Outcome::Refused(Code::PreconditionFailed, _) => ledger.record(&id, Fate::Committed),
            Outcome::Refused(code, text) => {
                only_overload(code, &text)?;
                ledger.record(&id, Fate::Asked);
            }
            Outcome::Unknown(_) => return Ok(()),
        }
    }
}

/// The one refusal that correct calls may get, and it comes before anything is queued (ruling 21).
fn only_overload(code: Code, text: &str) -> anyhow::Result<()> {
    ensure!(code == Code::TooManyRequests, "a correct call was refused with {code:?}: {text}");
    Ok(())
}

/// Receives and acknowledges until the broker is gone. What was acknowledged must not come again.
async fn consume(
    client: &Client,
    topic: &str,
    acked: &Mutex<HashSet<String>>,
    stopping: &AtomicBool,
) -> anyhow::Result<()> {
    loop {
        let deliveries = match client.receive(topic, GROUP, LEASE, POLL).await {
            Ok(deliveries) => deliveries,
            Err(_) if stopping.load(Ordering::Relaxed) => return Ok(()),
            // The kill may be seen here before the flag is.
            Err(failure) if failure.is::<tonic::Status>() => return Ok(()),
            Err(failure) => return Err(failure),
        };
        for delivery in deliveries {
            let id = delivery.system.message_id.clone();
            let known = acked.lock().unwrap_or_else(PoisonError::into_inner).contains(&id);
            ensure!(!known, "{id} was acknowledged and is delivered again");
            match client.ack(topic, GROUP, std::slice::from_ref(&delivery)).await {
                Outcome::Done(()) => {
                    acked.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
                }
                Outcome::Unknown(_) => break,
                Outcome::Refused(code, text) => anyhow::bail!("ack of a fresh lease refused: {code:?} {text}"),
            }
        }
    }
}
