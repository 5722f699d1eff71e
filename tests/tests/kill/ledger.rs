//! What producers did and were told, and what each message must look like.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use vouch_protocol::wire;
use vouch_tests::client::resource;

/// The topics of the run.
pub(crate) const NORMAL: &str = "kill-normal";
pub(crate) const TRANSACTION: &str = "kill-transaction";
/// Transactions that a component settles; it always says *commit*.
pub(crate) const CHECKED: &str = "kill-checked";
pub(crate) const TOPICS: [&str; 3] = [NORMAL, TRANSACTION, CHECKED];

/// One message in a hundred is this large, so that a kill also falls into the middle of a large write.
const LARGE_BODY: usize = 256 * 1024;
const SMALL_BODY: usize = 2 * 1024;

/// What is known about one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A normal message without an answer: there or not, but at most once.
    SendUnknown,
    /// A normal message that was acknowledged: there, once.
    Sent,
    /// Refused before it was stored: not there.
    Refused,
    /// A half message without an answer, so that nobody can end it: never there.
    HalfUnknown,
    /// A half message that nobody ended: not there.
    Open,
    /// A commit without an answer: there or not, but at most once.
    CommitUnknown,
    /// There, once.
    Committed,
    /// A rollback without an answer: never there.
    RollbackUnknown,
    /// Never there.
    RolledBack,
    /// Left to the component, which commits it sooner or later: at most once now, once in the end.
    Asked,
    /// Perhaps left to the component, if the half message arrived at all.
    AskedUnknown,
    /// A rollback without an answer, against a component that commits: one of the two won.
    RaceUnknown,
}

impl Fate {
    /// How often the message may be visible: at least, at most.
    pub(crate) fn entries(self) -> (usize, usize) {
        match self {
            Self::Sent | Self::Committed => (1, 1),
            Self::SendUnknown | Self::CommitUnknown => (0, 1),
            Self::Asked | Self::AskedUnknown | Self::RaceUnknown => (0, 1),
            Self::Refused | Self::HalfUnknown | Self::Open | Self::RollbackUnknown | Self::RolledBack => (0, 0),
        }
    }
}

/// One line of the ledger.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) topic: &'static str,
    pub(crate) serial: u64,
    pub(crate) fate: Fate,
    /// Empty for a normal message and for a half whose answer was lost.
    pub(crate) transaction_id: String,
}

/// Shared by all workers of a run; outlives the brokers.
#[derive(Debug)]
pub(crate) struct Ledger {
    seed: u64,
    next_serial: AtomicU64,
    lines: Mutex<HashMap<String, Line>>,
}

impl Ledger {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, next_serial: AtomicU64::new(0), lines: Mutex::new(HashMap::new()) }
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<String, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The message of a serial: always the same one, so that it need not be kept to be compared.
    pub(crate) fn message(&self, topic: &str, serial: u64) -> wire::Message {
        let mut random = StdRng::seed_from_u64(self.seed ^ serial.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let longest = if random.random_ratio(1, 100) { LARGE_BODY } else { SMALL_BODY };
        let mut body = vec![0; random.random_range(1..=longest)];
        random.fill_bytes(&mut body);
        let kind = if topic == NORMAL { wire::MessageType::Normal } else { wire::MessageType::Transaction };
        let user_properties =
            (0..random.random_range(0..4)).map(|n| (format!("p{n}"), format!("v-ü-{}", random.next_u32()))).collect();
        wire::Message {
            topic: Some(resource(topic)),
            user_properties,
            system_properties: Some(wire::SystemProperties {
                tag: random.random_bool(0.5).then(|| format!("tag{}", random.random_range(0..5))),
                keys: (0..random.random_range(0..3)).map(|_| format!("key-{}", random.next_u32())).collect(),
                message_id: format!("01{:016X}{serial:016X}", self.seed),
                body_encoding: wire::Encoding::Identity.into(),
                message_type: kind.into(),
                born_timestamp: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 }),
                born_host: "10.0.0.1".to_owned(),
                ..Default::default()
            }),
            body: Bytes::from(body),
        }
    }

    /// A message that was not sent before, written down as `fate` until its outcome is known.
    pub(crate) fn begin(&self, topic: &'static str, fate: Fate) -> (String, wire::Message) {
        let serial = self.next_serial.fetch_add(1, Ordering::Relaxed);
        let message = self.message(topic, serial);
        let id = message.system_properties.as_ref().map(|system| system.message_id.clone()).unwrap_or_default();
        self.lines().insert(id.clone(), Line { topic, serial, fate, transaction_id: String::new() });
        (id, message)
    }

    pub(crate) fn record(&self, id: &str, fate: Fate) {
        if let Some(line) = self.lines().get_mut(id) {
            line.fate = fate;
        }
    }

    pub(crate) fn record_open(&self, id: &str, transaction_id: &str) {
        if let Some(line) = self.lines().get_mut(id) {
            line.fate = if line.topic == CHECKED { Fate::Asked } else { Fate::Open };
            transaction_id.clone_into(&mut line.transaction_id);
        }
    }

    pub(crate) fn line(&self, id: &str) -> Option<Line> {
        self.lines().get(id).cloned()
    }

    /// Every line, in the order of sending.
    pub(crate) fn all(&self) -> Vec<(String, Line)> {
        let mut all: Vec<_> = self.lines().iter().map(|(id, line)| (id.clone(), line.clone())).collect();
        all.sort_by_key(|(_, line)| line.serial);
        all
    }

    /// Nothing is open any more: what was left to the component is committed.
    pub(crate) fn all_is_settled(&self) {
        for line in self.lines().values_mut().filter(|line| line.fate == Fate::Asked) {
            line.fate = Fate::Committed;
        }
    }

    /// How many messages met which fate.
    pub(crate) fn summary(&self) -> String {
        let mut counts = BTreeMap::<String, usize>::new();
        for line in self.lines().values() {
            *counts.entry(format!("{:?}", line.fate)).or_default() += 1;
        }
        counts.iter().map(|(fate, count)| format!("{count} {fate}")).collect::<Vec<_>>().join(", ")
    }

    /// Whether the run tested anything: sends and both kinds of ends came through.
    pub(crate) fn has_load(&self) -> bool {
        let lines = self.lines();
        [Fate::Sent, Fate::Committed, Fate::RolledBack].iter().all(|fate| lines.values().any(|line| line.fate == *fate))
    }
}
