//! Reads what is visible and holds it against the ledger.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use vouch_tests::client::{Client, Delivery, Outcome};

use crate::ledger::{Ledger, TOPICS};

const LEASE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
const EMPTY_ANSWERS_MEAN_DONE: u32 = 3;
const READ_DEADLINE: Duration = Duration::from_secs(240);

type Position = (String, i32, i64);

/// A consumer group that reads every message once and remembers where it lay.
#[derive(Debug)]
pub(crate) struct Auditor {
    group: &'static str,
    seen: HashMap<String, Position>,
}

impl Auditor {
    pub(crate) fn new(group: &'static str) -> Self {
        Self { group, seen: HashMap::new() }
    }

    /// Reads and acknowledges whatever this group has not had yet.
    pub(crate) async fn read_everything(&mut self, address: &str, ledger: &Ledger) -> anyhow::Result<()> {
        let client = Client::new(address, self.group)?;
        for topic in TOPICS {
            let began = Instant::now();
            let mut empty = 0;
            while empty < EMPTY_ANSWERS_MEAN_DONE {
                ensure!(began.elapsed() < READ_DEADLINE, "{topic} is not read after {READ_DEADLINE:?}");
                let deliveries = client.receive(topic, self.group, LEASE, POLL).await?;
                empty = if deliveries.is_empty() { empty + 1 } else { 0 };
                for delivery in &deliveries {
                    self.take(topic, delivery, ledger)?;
                }
                if deliveries.is_empty() {
                    continue;
                }
                match client.ack(topic, self.group, &deliveries).await {
                    Outcome::Done(()) => {}
                    other => bail!("ack of {} messages of {topic}: {other:?}", deliveries.len()),
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, topic: &str, delivery: &Delivery, ledger: &Ledger) -> anyhow::Result<()> {
        let id = &delivery.system.message_id;
        let line = ledger.line(id).with_context(|| format!("{id} was never sent"))?;
        let (got, sent) = (&delivery.message, ledger.message(topic, line.serial));
        ensure!(got.topic == sent.topic, "{id}: topic {:?} became {:?}", sent.topic, got.topic);
        ensure!(got.body == sent.body, "{id}: the body is not the one sent");
        ensure!(got.user_properties == sent.user_properties, "{id}: {:?}", got.user_properties);
        let (got, sent) = (&delivery.system, sent.system_properties.context("made with system properties")?);
        ensure!(got.tag == sent.tag, "{id}: tag {:?} became {:?}", sent.tag, got.tag);
        ensure!(got.keys == sent.keys, "{id}: keys {:?} became {:?}", sent.keys, got.keys);
        ensure!(got.born_timestamp == sent.born_timestamp, "{id}: born {:?}", got.born_timestamp);
        ensure!(got.born_host == sent.born_host, "{id}: born at {:?}", got.born_host);
        if let Some(before) = self.seen.insert(id.clone(), delivery.position()) {
            bail!("{id} was acknowledged at {before:?} and is delivered again at {:?}", delivery.position());
        }
        Ok(())
    }

    /// Every message is there as often as the ledger allows.
    pub(crate) fn hold_against(&self, ledger: &Ledger) -> anyhow::Result<()> {
        for (id, line) in ledger.all() {
            let (least, most) = line.fate.entries();
            let there = usize::from(self.seen.contains_key(&id));
            ensure!(there >= least, "{id} is {:?} and not there (serial {})", line.fate, line.serial);
            ensure!(there <= most, "{id} is {:?} and there at {:?}", line.fate, self.seen.get(&id));
        }
        Ok(())
    }

    /// Two groups see the same messages at the same positions.
    pub(crate) fn agrees_with(&self, other: &Self) -> anyhow::Result<()> {
        for (id, position) in &other.seen {
            let here = self.seen.get(id);
            ensure!(here == Some(position), "{id} lay at {position:?}, now at {here:?}");
        }
        ensure!(self.seen.len() == other.seen.len(), "{} messages became {}", other.seen.len(), self.seen.len());
        Ok(())
    }
}
