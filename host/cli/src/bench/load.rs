//! The load: producers that send through a few connections, closed or open loop, for a bounded time.
//!
//! *Closed loop*: each producer sends its next request when the last one was answered; latency counts from the send.
//! *Open loop* (`--rate`): requests are due at a fixed pace whether or not the server keeps up, and latency counts
//! from when a request was due, so that a stalled server cannot hide its stall (no coordinated omission).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Mutex, mpsc};
use tonic::transport::Channel;
use vouch_protocol::wire::messaging_service_client::MessagingServiceClient;
use vouch_protocol::wire::{self, Code};

use super::stats::{Latencies, Measured};
use crate::rpc;

/// Requests that are due and wait for a free producer, at most. The pacer waits beyond that; what it hands out late
/// still carries the time it was due.
const DUE_MAX: usize = 65_536;

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Every producer goes round these, one for each request.
    pub(crate) topics: Arc<[String]>,
    /// Half messages that are committed, instead of plain ones.
    pub(crate) transactions: bool,
    /// Messages per request.
    pub(crate) batch: u32,
    /// Requests in flight at most.
    pub(crate) producers: u32,
    /// Connections that the producers share.
    pub(crate) connections: u32,
    /// Bytes of a body.
    pub(crate) body: u32,
    /// Messages per second; `None` is closed loop.
    pub(crate) rate: Option<u32>,
}

#[cfg(test)]
impl Load {
    /// What the tests of reports and turns begin with.
    pub(super) fn of_tests(topics: Arc<[String]>) -> Self {
        Self { topics, transactions: false, batch: 1, producers: 64, connections: 8, body: 1024, rate: None }
    }
}

impl Load {
    /// The topic of a producer's next request. Producers begin at different topics and each steps over those of the others,
    /// so that together they send to all.
    fn take_turn(&self, turn: &mut usize) -> usize {
        let topic = *turn % self.topics.len();
        *turn = topic + self.producers as usize;
        topic
    }
}

/// So many names of topics; `name` itself where it is one.
pub(crate) fn topics(name: &str, count: u32) -> Arc<[String]> {
    if count == 1 { [name.to_owned()].into() } else { (0..count).map(|number| format!("{name}-{number}")).collect() }
}

/// How long it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendWindow {
    /// Not measured.
    pub(crate) warmup: Duration,
    /// Measured.
    pub(crate) measured: Duration,
    /// Messages sent at most, warm-up included: ends the measurement early, so that no disk is filled by mistake.
    pub(crate) messages_max: u64,
}

/// Beginning and end of what is measured.
#[derive(Clone, Copy)]
struct Interval {
    from: Instant,
    to: Instant,
}

/// When the next request is due.
#[derive(Clone)]
enum Pace {
    Closed,
    Open(Arc<Mutex<mpsc::Receiver<Instant>>>),
}

/// What one producer saw.
struct Seen {
    messages: u64,
    failures: u64,
    first_failure: Option<String>,
    latencies: Latencies,
    /// When the last message that counts was answered.
    last: Option<Instant>,
}

/// Runs the load against one server. `cpu` reads the processor time that the server has used so far.
pub(crate) async fn run(
    address: &str,
    load: &Load,
    window: SendWindow,
    cpu: impl Fn() -> anyhow::Result<Option<Duration>>,
) -> anyhow::Result<Measured> {
    let mut channels = Vec::new();
    for _ in 0..load.connections.min(load.producers) {
        channels.push(rpc::connect(address).await?);
    }
    let begin = Instant::now();
    let from = begin + window.warmup;
    let interval = Interval { from, to: from + window.measured };
    let pace = start_pace(load, begin, interval.to)?;
    let body = Bytes::from(random_body(load.body));
    let left = Arc::new(AtomicU64::new(window.messages_max));
    let producers: Vec<_> = (0..load.producers)
        .map(|number| {
            let channel = channels[number as usize % channels.len()].clone();
            let client = client(channel, number);
            let sender = Sender { client, load: load.clone(), body: body.clone(), turn: number as usize };
            tokio::spawn(produce(sender, pace.clone(), interval, Arc::clone(&left)))
        })
        .collect();
    tokio::time::sleep_until(interval.from.into()).await;
    let cpu_before = cpu()?;
    tokio::time::sleep_until(interval.to.into()).await;
    let server_cpu = cpu()?.zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
    let mut total = Seen::none();
    for producer in producers {
        total.add(&producer.await?);
    }
    if total.messages == 0
        && total.failures > 0
        && let Some(wrong_port) = rpc::wrong_port(address).await
    {
        return Err(wrong_port);
    }
    let spent = left.load(Relaxed) < u64::from(load.batch);
    let elapsed = total.last.filter(|_| spent).map_or(window.measured, |last| last.duration_since(interval.from));
    Ok(Measured {
        messages: total.messages,
        failures: total.failures,
        first_failure: total.first_failure,
        elapsed,
        latencies: total.latencies,
        server_cpu,
    })
}

/// Bodies do not compress, so that no layer below can make the work smaller.
fn random_body(bytes: u32) -> Vec<u8> {
    let mut body = vec![0; bytes as usize];
    rand::fill(body.as_mut_slice());
    body
}

/// Starts the pacer, a thread of its own: timers of the runtime have a resolution of 1 ms, too coarse here. It ends
/// at the end of the measurement.
fn start_pace(load: &Load, begin: Instant, end: Instant) -> anyhow::Result<Pace> {
    let Some(rate) = load.rate else {
        return Ok(Pace::Closed);
    };
    let step = Duration::from_secs(u64::from(load.batch)) / rate.max(1);
    let (due, waiting) = mpsc::channel(DUE_MAX);
    std::thread::Builder::new().name("bench-pacer".to_owned()).spawn(move || {
        let mut next = begin;
        while next < end {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            if due.blocking_send(next).is_err() {
                return;
            }
            next += step;
        }
    })?;
    Ok(Pace::Open(Arc::new(Mutex::new(waiting))))
}

/// A stub with the headers of one client.
type Client = MessagingServiceClient<tonic::service::interceptor::InterceptedService<Channel, rpc::Headers>>;

/// A client of its own on a shared connection.
fn client(channel: Channel, number: u32) -> Client {
    let headers = rpc::Headers::numbered(number);
    MessagingServiceClient::with_interceptor(channel, headers).max_encoding_message_size(usize::MAX)
}

/// One producer.
struct Sender {
    client: Client,
    load: Load,
    body: Bytes,
    /// Its place in the round of the topics.
    turn: usize,
}

/// Sends until the time is over or the budget is spent.
async fn produce(mut sender: Sender, pace: Pace, interval: Interval, left: Arc<AtomicU64>) -> Seen {
    let batch = u64::from(sender.load.batch);
    let mut seen = Seen::none();
    loop {
        let due = match &pace {
            Pace::Closed => Instant::now(),
            Pace::Open(waiting) => match waiting.lock().await.recv().await {
                Some(due) => due,
                None => return seen,
            },
        };
        let in_budget = left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(batch)).is_ok();
        if Instant::now() >= interval.to || !in_budget {
            return seen;
        }
        let outcome = sender.send().await;
        seen.count(&outcome, due, interval, sender.load.batch);
    }
}

impl Sender {
    /// One request, or half and commit.
    async fn send(&mut self) -> Result<(), String> {
        let topics = self.load.topics.clone();
        let topic = &topics[self.load.take_turn(&mut self.turn)];
        let messages: Vec<wire::Message> = (0..self.load.batch).map(|_| self.message(topic)).collect();
        let request = wire::SendMessageRequest { messages };
        let answer = self.client.send_message(request).await.map_err(|error| error.to_string())?.into_inner();
        check(answer.status.as_ref())?;
        if answer.entries.len() != self.load.batch as usize {
            return Err(format!("{} entries in the answer to {} messages", answer.entries.len(), self.load.batch));
        }
        for entry in answer.entries {
            check(entry.status.as_ref())?;
            if self.load.transactions {
                self.commit(topic, entry).await?;
            }
        }
        Ok(())
    }

    /// Commits a half message.
    async fn commit(&mut self, topic: &str, half: wire::SendResultEntry) -> Result<(), String> {
        let request = wire::EndTransactionRequest {
            topic: Some(rpc::resource(topic)),
            message_id: half.message_id,
            transaction_id: half.transaction_id,
            resolution: wire::TransactionResolution::Commit as i32,
            source: wire::TransactionSource::SourceClient as i32,
            trace_context: String::new(),
        };
        let answer = self.client.end_transaction(request).await.map_err(|error| error.to_string())?;
        check(answer.into_inner().status.as_ref())
    }

    /// A message with a body that all share.
    fn message(&self, topic: &str) -> wire::Message {
        let kind = if self.load.transactions { wire::MessageType::Transaction } else { wire::MessageType::Normal };
        rpc::calls::new_message(topic, self.body.clone(), kind)
    }
}

/// What the server refused, if it did.
fn check(status: Option<&wire::Status>) -> Result<(), String> {
    match status {
        Some(status) if status.code == Code::Ok as i32 => Ok(()),
        Some(status) => Err(format!("{} ({})", status.message, status.code)),
        None => Err("an answer without status".to_owned()),
    }
}

impl Seen {
    /// Nothing yet.
    fn none() -> Self {
        Self { messages: 0, failures: 0, first_failure: None, latencies: Latencies::new(), last: None }
    }

    /// Counts what was answered within the measured interval. Failures count whenever they happen.
    fn count(&mut self, outcome: &Result<(), String>, due: Instant, interval: Interval, batch: u32) {
        let now = Instant::now();
        match outcome {
            Ok(()) if now >= interval.from && now < interval.to => {
                self.messages += u64::from(batch);
                self.latencies.record(now.duration_since(due));
                self.last = Some(now);
            }
            Ok(()) => {}
            Err(why) => {
                self.failures += 1;
                self.first_failure.get_or_insert_with(|| why.clone());
            }
        }
    }

    /// The sum of both; of two first failures one is kept.
    fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.failures += other.failures;
        self.latencies.merge(&other.latencies);
        self.last = self.last.max(other.last);
        if self.first_failure.is_none() {
            self.first_failure.clone_from(&other.first_failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(from_ms: u64, to_ms: u64) -> (Instant, Interval) {
        let now = Instant::now();
        let ago = |ms| now.checked_sub(Duration::from_millis(ms)).unwrap();
        (now, Interval { from: ago(from_ms), to: ago(0) + Duration::from_millis(to_ms) })
    }

    #[test]
    fn latency_counts_from_when_the_request_was_due() {
        let (now, interval) = interval(1_000, 60_000);
        let mut seen = Seen::none();
        let due = now.checked_sub(Duration::from_millis(500)).unwrap();
        seen.count(&Ok(()), due, interval, 16);
        assert_eq!(seen.messages, 16);
        assert!(seen.latencies.percentile(50.0) >= Duration::from_millis(499));
    }

    #[test]
    fn what_is_answered_outside_the_interval_is_not_counted() {
        let (now, mut outside) = interval(1_000, 60_000);
        outside.from = now + Duration::from_secs(60);
        let mut seen = Seen::none();
        seen.count(&Ok(()), now, outside, 1);
        assert_eq!(seen.messages, 0);
    }

    #[test]
    fn a_failure_is_counted_and_the_first_one_is_kept() {
        let (now, interval) = interval(1_000, 60_000);
        let mut seen = Seen::none();
        seen.count(&Err("first".to_owned()), now, interval, 1);
        seen.count(&Err("second".to_owned()), now, interval, 1);
        assert_eq!((seen.failures, seen.messages, seen.first_failure.as_deref()), (2, 0, Some("first")));
    }

    fn load(topics_wanted: u32, producers: u32) -> Load {
        Load {
            topics: topics("t", topics_wanted),
            transactions: false,
            batch: 2,
            producers,
            connections: 1,
            body: 1,
            rate: Some(2_000),
        }
    }

    #[test]
    fn producers_go_round_all_topics_and_each_gets_its_share() {
        assert_eq!(topics("t", 1)[..], ["t"]);
        assert_eq!(topics("t", 2)[..], ["t-0", "t-1"]);
        for (topics, producers) in [(1, 8), (7, 3), (10, 10), (96, 64), (3, 64)] {
            let load = load(topics, producers);
            let mut sent = vec![0; topics as usize];
            for producer in 0..producers as usize {
                let mut turn = producer;
                (0..topics).for_each(|_| sent[load.take_turn(&mut turn)] += 1);
            }
            assert_eq!(sent, vec![producers; topics as usize], "{topics} topics, {producers} producers");
        }
    }

    #[tokio::test]
    async fn requests_are_due_at_the_pace_of_the_rate() {
        let load = load(1, 1);
        let begin = Instant::now();
        let Pace::Open(waiting) = start_pace(&load, begin, begin + Duration::from_millis(5)).unwrap() else {
            panic!("a rate makes an open loop");
        };
        let mut due = Vec::new();
        while let Some(next) = waiting.lock().await.recv().await {
            due.push(next.duration_since(begin).as_micros());
        }
        assert_eq!(due, [0, 1_000, 2_000, 3_000, 4_000], "two messages per request at 2000 per second");
    }
}
