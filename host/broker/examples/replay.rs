//! How fast a log is replayed and what its state takes: `cargo run --release -p vouch-broker --example replay`.
//!
//! Builds the records in memory first, so that only decoding and applying are measured, then a snapshot and its reading.
//! Allocations are counted: applying a message makes none of its own, only tables that grow.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vouch_broker::check::CheckOverrides;
use vouch_broker::record::{
    Ack, End, EndedBy, Frame, GroupPut, Join, Lease, LeasedRange, MessagePlace, Record, TopicPut, encode_message,
};
use vouch_broker::state::RecordAt;
use vouch_broker::{
    BodyEncoding, Generation, GroupConfig, GroupId, HalfPosition, MessageKind, Millis, NewMessage, QueueOffset,
    RecordPosition, ResourceName, State, TopicConfig, TopicId, TransactionOutcome,
};

const TOPIC: TopicId = TopicId(1);
const GROUP: GroupId = GroupId(1);
const QUEUES: u32 = 8;
const START: u64 = 1_700_000_000_000;

/// A topic and a group that receives from it.
fn beginning() -> Vec<u8> {
    let mut records = Vec::new();
    let config = TopicConfig { queues: QUEUES, ..TopicConfig::default() };
    TopicPut { name: ResourceName::plain("orders"), config, expected_revision: None }.encode(&mut records);
    let config = GroupConfig::default();
    GroupPut { name: ResourceName::plain("workers"), config, expected_revision: None }.encode(&mut records);
    Join { group: GROUP, topic: TOPIC, at_end: false }.encode(&mut records);
    records
}

fn messages(out: &mut Vec<u8>, count: u64, kind: MessageKind, body: &Bytes) -> Vec<u64> {
    let mut message = NewMessage {
        message_id: String::new(),
        tag: Some("paid".to_owned()),
        keys: vec!["order-4711".to_owned()],
        properties: vec![("customer".to_owned(), "4711".to_owned())],
        kind,
        encoding: BodyEncoding::Identity,
        born_at: Millis(START),
        born_host: "10.0.0.1".to_owned(),
        trace_context: None,
        message_group: None,
        deliver_at: None,
        recovery_ms: None,
        body: body.clone(),
    };
    let mut positions = Vec::new();
    for n in 0..count {
        message.message_id.clear();
        let _ = write!(message.message_id, "01ABCDEF0123450000{n:016X}");
        positions.push(out.len() as u64);
        let place = MessagePlace { topic: TOPIC, queue: n as u32 % QUEUES, stored_at: Millis(START) };
        encode_message(out, place, "host@1@2@abc", &message, CheckOverrides::default());
    }
    positions
}

fn ends(out: &mut Vec<u8>, transactions: &[u64]) {
    for (n, transaction) in transactions.iter().enumerate() {
        let by = EndedBy::Client { client_id: "host@1@2@abc".to_owned(), from_check: false };
        let (outcome, queue) = (TransactionOutcome::Committed, n as u32 % QUEUES);
        End { transaction: HalfPosition(*transaction), outcome, queue, by, reason: String::new() }.encode(out);
    }
}

/// Batches of 32 of one queue, each message acknowledged.
fn deliveries(out: &mut Vec<u8>, count: u64) {
    let of_each = count / u64::from(QUEUES) / 32 * 32;
    for (generation, from) in (1..).map(Generation).zip((0..of_each).step_by(32).map(QueueOffset)) {
        for queue in 0..QUEUES {
            let to = from.plus(32);
            let leased: Vec<QueueOffset> = QueueOffset::each(from..to).collect();
            let (group, topic, deadline) = (GROUP, TOPIC, Millis(START + 60_000));
            let fresh = vec![LeasedRange { queue, from, to, leased: leased.clone(), left: vec![] }];
            Lease { group, topic, generation, deadline, renewed_for: None, fresh, again: vec![] }.encode(out);
            for offset in leased {
                Ack { group, topic, queue, offset, generation }.encode(out);
            }
        }
    }
}

/// Applies all records from `position` on; returns how many.
fn apply(state: &mut State, log: &[u8], mut position: usize) -> u64 {
    let (mut effects, mut count) = (Vec::new(), 0);
    while position < log.len() {
        let (frame, _) = Frame::split(&log[position..]).expect("a record just written");
        let record = Record::decode(&frame).expect("a record just written");
        let at = RecordAt { position: RecordPosition(position as u64), time: Millis(START + count / 20) };
        state.apply(at, &record, &mut effects).expect("a record that can be applied");
        effects.clear();
        count += 1;
        position += frame.record_len() as usize;
    }
    count
}

/// Resident memory in bytes, where the system tells it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Processor time of this thread so far, so that a busy machine changes nothing; wall time where the system has none.
struct Cpu(Instant, Option<Duration>);

impl Cpu {
    fn now() -> Option<Duration> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    }

    fn start() -> Self {
        Self(Instant::now(), Self::now())
    }

    fn elapsed(&self) -> Duration {
        self.1.zip(Self::now()).map_or_else(|| self.0.elapsed(), |(start, now)| now - start)
    }
}

struct Report {
    out: std::io::StdoutLock<'static>,
}

impl Report {
    fn line(&mut self, what: &str, count: u64, took: Duration, grown: u64) {
        let rate = count as f64 / took.as_secs_f64() / 1e6;
        let (ms, bytes) = (took.as_millis(), grown as f64 / count as f64);
        let _ = writeln!(self.out, "{what:<34} {count:>9}  {ms:>6} ms  {rate:>6.2} M/s  {bytes:>6.0} bytes each");
    }

    /// Applies a stretch of the log, and says how long it took and how memory grew.
    fn stretch(&mut self, what: &str, state: &mut State, log: &[u8], from: usize) {
        let (before, started) = (resident(), Cpu::start());
        let count = apply(state, log, from);
        self.line(what, count, started.elapsed(), resident().saturating_sub(before));
    }
}

fn main() {
    let count = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let body = Bytes::from(vec![7; 1024]);
    let mut report = Report { out: std::io::stdout().lock() };

    let mut log = beginning();
    let (mut state, mut at) = (State::default(), 0);
    apply(&mut state, &log, at);
    at = log.len();
    messages(&mut log, count, MessageKind::Normal, &body);
    report.stretch("messages of 1 KiB", &mut state, &log, at);
    at = log.len();
    deliveries(&mut log, count);
    report.stretch("leases of 32 and their acks", &mut state, &log, at);
    snapshot(&mut report, &state, count);
    drop((state, log));

    let mut log = beginning();
    let (mut state, mut at) = (State::default(), 0);
    apply(&mut state, &log, at);
    at = log.len();
    let transactions = messages(&mut log, count, MessageKind::Transaction, &Bytes::from_static(b"order"));
    report.stretch("half messages, all open", &mut state, &log, at);
    snapshot(&mut report, &state, count);
    at = log.len();
    ends(&mut log, &transactions);
    report.stretch("their commits", &mut state, &log, at);
}

fn snapshot(report: &mut Report, state: &State, count: u64) {
    let started = Cpu::start();
    let bytes = state.snapshot(RecordPosition(0));
    report.line("  a snapshot of it", count, started.elapsed(), bytes.len() as u64);
    let (before, started) = (resident(), Cpu::start());
    let read = State::from_snapshot(&bytes, &mut |part| Err::<Bytes, _>(std::io::Error::other(part.to_string())));
    report.line("  and its reading", count, started.elapsed(), resident().saturating_sub(before));
    drop(read);
}
