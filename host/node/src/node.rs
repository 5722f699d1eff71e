//! A running node, as the edges see it.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vouch_broker::record::{
    Ack, ChangeInvisible, DeadLetter, DeadLetterSized, End, EndedBy, MessagePlace, encode_message,
};
use vouch_broker::state::{Applied, Outcome};
use vouch_broker::{
    AckLevel, Handle, MessageKind, Millis, NotDone, NothingStored, Refusal, ResourceName, ShardId, State, TagFilter,
    TransactionOutcome, check::CheckOverrides,
};
use vouch_commitlog::{DurationCounts, LogReader, Recovery};
use vouch_storage::{DiskUse, Folders, LookupReport, Lookups, ScrubReport};

use crate::directory::Route;
use crate::metrics::{Answered, Metrics, PRODUCER, SeriesView, Views};
use crate::plugins::PluginHost;
use crate::retention::RetentionReport;
use crate::routes::Routes;
use crate::served::ServedLog;
use crate::sessions::{SESSION_LIMIT, Sessions};
use crate::settings::Settings;
use crate::shard::{Batch, Poll, RENEWED_LEASE_MS, Shard, Shared};
use crate::shortages::Shortages;
use crate::stopping::Stopping;
use crate::stored;
use crate::turns::SearchTurns;
use crate::writable::Writable;
use crate::{Delivery, EndReceipt, EndRequest, Health, NodeConfig, Receipt, ReceiveRequest, SendRequest};

/// A lease without a stated length lasts this long.
const DEFAULT_LEASE_MS: u64 = 60_000;
/// Longest a receive waits.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// A running node. Clones are the same node.
#[derive(Clone)]
pub struct Node {
    /// Sends, receives and acknowledges.
    pub messages: Messages,
    /// Ends transactions, and shows them.
    pub transactions: Transactions,
    /// Topics, groups and their settings.
    pub settings: Arc<Settings>,
    /// Plugins, their components, and bindings.
    pub components: Components,
    /// Finds messages.
    pub search: Search,
    /// What of the log is damaged.
    pub damage: LogDamage,
    /// How the node is.
    pub status: Status,
    /// What was counted since the node started.
    pub metrics: Arc<Metrics>,
    /// Who is connected.
    pub sessions: Arc<Sessions>,
    /// Whose node it is.
    pub identity: Identity,
    pub(crate) inner: Arc<Inner>,
}

/// Messages: sent, received, acknowledged.
#[derive(Clone)]
pub struct Messages(pub(crate) Arc<Inner>);

/// Transactions: ended, resumed, shown.
#[derive(Clone)]
pub struct Transactions(pub(crate) Arc<Inner>);

/// Plugins with their components, and bindings.
#[derive(Clone)]
pub struct Components(pub(crate) Arc<Inner>);

/// Finds messages.
#[derive(Clone)]
pub struct Search(pub(crate) Arc<Inner>);

/// What of the log is damaged.
#[derive(Clone)]
pub struct LogDamage(pub(crate) Arc<Inner>);

/// How the node is.
#[derive(Clone)]
pub struct Status(pub(crate) Arc<Inner>);

/// Whose node it is; made with the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// Key of the check value in receipt handles.
    pub handle_key: [u8; 32],
    /// The shard that this node serves.
    pub shard: ShardId,
}

pub(crate) struct Inner {
    pub(crate) shard: Arc<Shard>,
    pub(crate) log: Arc<ServedLog>,
    /// What the log should still hold and lies before its first file.
    pub(crate) missing: Option<Range<u64>>,
    pub(crate) scrub: Arc<ScrubReport>,
    pub(crate) lookups: Arc<Lookups>,
    pub(crate) retention: Arc<RetentionReport>,
    pub(crate) disk: Arc<DiskUse>,
    pub(crate) shortages: Arc<Shortages>,
    pub(crate) writable: Writable,
    pub(crate) segment_size: u64,
    pub(crate) shared: Arc<Shared>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) reader: LogReader,
    pub(crate) plugins: PluginHost,
    pub(crate) stopping: Arc<Stopping>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) views: Views,
    pub(crate) searches: SearchTurns,
    pub(crate) config: NodeConfig,
    /// The folder's, until the node is stopped: tasks that end later find the log closed.
    pub(crate) folders: Arc<Mutex<Option<Folders>>>,
}

impl Status {
    /// Whether it serves.
    pub fn health(&self) -> Health {
        match self.0.shared.closed() {
            _ if self.0.stopping.is_cancelled() => Health::Stopping,
            None => Health::Ready,
            Some(NothingStored::ReadOnly(reason)) => Health::ReadOnly(reason.clone()),
            Some(NothingStored::Poisoned(reason)) => Health::Poisoned(reason.clone()),
            Some(other) => Health::Poisoned(other.to_string()),
        }
    }

    /// Whether anything can be written; every call that writes asks first. What a request names may lie behind the damage
    /// of a log that is only read: then nobody can say that it is not there.
    ///
    /// # Errors
    /// [`NothingStored::ReadOnly`] or [`NothingStored::Poisoned`].
    pub fn check_writable(&self) -> Result<(), NotDone> {
        self.0.writable.check()
    }

    /// What groups and topics have: at most a second old, and made in pieces that hold nobody up.
    ///
    /// # Errors
    /// [`NothingStored::Stopping`].
    pub async fn series(&self) -> Result<Arc<SeriesView>, NotDone> {
        self.0.views.get(&self.0).await
    }

    /// How long the syncs of the log took; nothing on a log that is only read.
    pub fn syncs(&self) -> DurationCounts {
        match &*self.0.log {
            ServedLog::Kept(upkeep) => upkeep.housekeeping.syncs(),
            ServedLog::Damaged(_) => DurationCounts::default(),
        }
    }

    /// When the data folder was backed up last, milliseconds since 1970. Reads a file.
    pub fn backed_up_at_ms(&self) -> Option<u64> {
        vouch_storage::last_backup_ms(&self.0.config.data_dir)
    }

    /// Messages that were acknowledged in memory (ack level `memory`) and then not stored.
    pub fn refused_in_memory(&self) -> u64 {
        self.0.shared.refused_in_memory()
    }

    /// Looks for messages that receives made: when they came, and when something came that they may want.
    pub fn receive_scans(&self) -> u64 {
        self.0.shared.scans()
    }

    /// What the scrubber found since the node started.
    pub fn scrub(&self) -> &ScrubReport {
        &self.0.scrub
    }

    /// What retention did since the node started.
    pub fn retention(&self) -> &RetentionReport {
        &self.0.retention
    }

    /// How full the disk is.
    pub fn disk(&self) -> &DiskUse {
        &self.0.disk
    }

    /// What the log occupies.
    pub fn log_usage(&self) -> vouch_commitlog::Usage {
        self.0.log.usage()
    }

    /// How the index stands by which messages are found.
    pub fn lookup(&self) -> &LookupReport {
        self.0.lookups.report()
    }

    /// What recovery found when the node started; `None` on a damaged log, which is not recovered.
    pub fn recovery(&self) -> Option<&Recovery> {
        match &*self.0.log {
            ServedLog::Kept(upkeep) => Some(&upkeep.recovery),
            ServedLog::Damaged(_) => None,
        }
    }

    /// The log's time, milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.0.shared.clock.now().0
    }

    /// By how many milliseconds the log's time is ahead of the wall clock; below zero where the wall clock is ahead.
    pub fn clock_ahead_ms(&self) -> i64 {
        self.0.shared.clock.ahead_ms()
    }

    /// Bytes that may be proposed and not answered.
    pub fn bytes_in_flight_max(&self) -> u64 {
        self.0.config.bytes_in_flight
    }

    /// Bytes that are proposed and not answered.
    pub fn bytes_in_flight(&self) -> u64 {
        self.0.shard.in_flight()
    }
}

impl Messages {
    /// Stores messages: all of them or none. Resolves when they are durable, or, on a topic with the ack level `memory`,
    /// when they are written.
    pub async fn send(&self, request: SendRequest) -> Result<Vec<Receipt>, NotDone> {
        let began = Instant::now();
        request.topic.check_sent_to()?;
        self.0.writable.check()?;
        self.0.shortages.check_disk()?;
        let route = self.0.routes.route_for_send(&request.topic).await?;
        let records = encode_send(&route, &request, self.0.shared.clock.now())?;
        let halves = request.messages.iter().any(|message| message.kind == MessageKind::Transaction);
        if halves {
            self.0.shared.sessions.note_half(&request.producer, &request.topic, Instant::now());
        }
        let in_memory = route.info.config.ack == AckLevel::Memory && !halves;
        let proposed = match in_memory {
            false => self.0.shard.propose_if_room(records).await,
            true => self.0.shard.propose_in_memory(records).await,
        };
        let outcomes = self.0.shortages.counted(proposed)?;
        self.0.metrics.sends.observe(began.elapsed());
        let stored = outcomes.len() as u64;
        self.0.metrics.messages_in.fetch_add(stored, Ordering::Relaxed);
        if in_memory {
            self.0.metrics.messages_in_memory.fetch_add(stored, Ordering::Relaxed);
        }
        outcomes.into_iter().map(receipt).collect()
    }

    /// Waits for messages of a topic and leases them to the caller. Empty if none came in time.
    ///
    /// If the future is dropped while it waits, nothing is leased.
    pub async fn receive(&self, request: ReceiveRequest) -> Result<Vec<Delivery>, NotDone> {
        let began = Instant::now();
        self.0.writable.check()?;
        request.group.check_group()?;
        let default = if request.auto_renew { RENEWED_LEASE_MS } else { DEFAULT_LEASE_MS };
        let invisible_ms = request.invisible_ms.filter(|_| !request.auto_renew).unwrap_or(default);
        let (topic, client_id) = (request.topic.clone(), request.client_id.clone());
        let batch = self
            .0
            .shard
            .receive(|waiter| Poll {
                topic: request.topic,
                group: request.group,
                client_id: request.client_id,
                filter: request.filter,
                max: request.max as usize,
                invisible_ms,
                auto_renew: request.auto_renew,
                until: Instant::now() + request.wait.min(WAIT_MAX),
                waiter,
            })
            .await?;
        let Some(batch) = batch else { return Ok(Vec::new()) };
        let lease = Duration::from_millis(invisible_ms).min(SESSION_LIMIT);
        self.0.shared.sessions.leased(&client_id, Instant::now() + lease);
        let deliveries = self.0.deliveries(&batch, invisible_ms, &topic).await?;
        self.0.metrics.receives.observe(began.elapsed());
        self.0.metrics.messages_out.fetch_add(deliveries.len() as u64, Ordering::Relaxed);
        Ok(deliveries)
    }

    /// Marks messages as done; one answer a handle, in order. Resolves when that is durable.
    pub async fn ack(&self, handles: &[Handle]) -> Result<Vec<Result<(), Refusal>>, NotDone> {
        let mut records = Vec::new();
        for handle in handles {
            let Handle { group, topic, queue, offset, generation, .. } = *handle;
            Ack { group, topic, queue, offset, generation }.encode(&mut records);
        }
        let outcomes = self.0.shortages.counted(self.0.shard.propose(records).await)?;
        Ok(outcomes.into_iter().map(|outcome| outcome.map(drop)).collect())
    }

    /// Lets a lease end `invisible_ms` from now and returns the handle to use from now on. `suspend`: the delivery does
    /// not count as an attempt.
    pub async fn change_invisible(&self, handle: Handle, invisible_ms: u64, suspend: bool) -> Result<Handle, NotDone> {
        let now = self.0.shared.clock.now();
        let changed =
            Handle { generation: self.0.shared.clock.generation(now), deadline: now.plus_ms(invisible_ms), ..handle };
        let Handle { group, topic, queue, offset, generation, .. } = handle;
        let record = ChangeInvisible {
            group,
            topic,
            queue,
            offset,
            generation,
            new_generation: changed.generation,
            deadline: changed.deadline,
            uncounted: suspend,
        };
        self.0.shard.propose_one(|out| record.encode(out)).await?;
        Ok(changed)
    }

    /// Moves a message to its group's dead letters; one that is done or in other hands is left alone (§4.9).
    pub async fn forward_to_dead_letter(&self, handle: Handle, reason: &str) -> Result<(), NotDone> {
        let Handle { group, topic, queue, offset, generation, .. } = handle;
        let find = move |state: &State| state.topics().get(topic).and_then(|topic| topic.entry(queue, offset));
        // What cannot be read is moved all the same, and counts as nothing.
        let entry = self.0.shard.read(find).await?;
        let record_len =
            entry.and_then(|entry| vouch_storage::record_len(&self.0.reader, entry.position).ok()).unwrap_or(0);
        let letter = DeadLetter { group, topic, queue, offset, generation, reason: reason.to_owned() };
        let record = DeadLetterSized { letter, record_len };
        self.0.shard.propose_one(|out| record.encode(out)).await.map(drop)
    }
}

impl Transactions {
    /// Ends a transaction. A repeat gets the recorded outcome, the opposite a conflict that names it (ruling 6).
    pub async fn end(&self, request: EndRequest) -> Result<EndReceipt, NotDone> {
        self.0.writable.check()?;
        let EndRequest { topic, message_id, transaction, outcome, by, reason } = request;
        let topic = self.0.half_named(transaction, topic.as_ref(), message_id.as_deref()).await?;
        let queue = self.0.routes.queue_for(&topic).await?;
        self.0.end(&End { transaction, outcome, queue, by, reason }).await
    }
}

fn encode_send(route: &Route, request: &SendRequest, now: Millis) -> Result<Vec<u8>, NotDone> {
    let config = &route.info.config;
    let place = MessagePlace { topic: route.info.id, queue: route.next_queue(), stored_at: now };
    let room: usize = request.messages.iter().map(|message| message.body.len() + 512).sum();
    let mut records = Vec::with_capacity(room);
    for message in &request.messages {
        if matches!(message.kind, MessageKind::Fifo | MessageKind::Delay) && config.topic_type.takes(message.kind) {
            return Err(NotDone::Refused(Refusal::NotBuilt(match message.kind {
                MessageKind::Fifo => "an ordered message (with a message group)",
                _ => "a delayed message",
            })));
        }
        if !config.topic_type.takes(message.kind) {
            return Err(NotDone::Refused(Refusal::TypeMismatch {
                topic: request.topic.clone(),
                topic_type: config.topic_type.as_str(),
                kind: kind_name(message.kind),
            }));
        }
        let checks = match message.kind {
            MessageKind::Transaction => CheckOverrides::of(message)?,
            _ => CheckOverrides::default(),
        };
        encode_message(&mut records, place, &request.producer, message, checks);
    }
    Ok(records)
}

fn kind_name(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Normal => "normal",
        MessageKind::Fifo => "fifo",
        MessageKind::Delay => "delay",
        MessageKind::Transaction => "transaction",
    }
}

fn receipt(outcome: Outcome) -> Result<Receipt, NotDone> {
    match outcome? {
        Applied::Stored { queue, offset } => Ok(Receipt::Stored { queue, offset }),
        Applied::Prepared { transaction } => Ok(Receipt::Prepared { transaction }),
        Applied::Done => Ok(Receipt::InMemory),
        other => Err(NotDone::Unknown(format!("a send was answered with {other:?}"))),
    }
}

impl Inner {
    /// Ends a transaction, whoever decided, and counts how that went.
    pub(crate) async fn end(&self, end: &End) -> Result<EndReceipt, NotDone> {
        let applied = self.shortages.counted(self.shard.propose_one(|out| end.encode(out)).await);
        let counter = match &applied {
            Err(NotDone::Refused(Refusal::OutcomeConflict { .. })) => Some(&self.metrics.end_conflicts),
            Ok(Applied::Ended { outcome: TransactionOutcome::Committed, repeated: false }) => {
                Some(&self.metrics.commits)
            }
            Ok(Applied::Ended { outcome: TransactionOutcome::RolledBack, repeated: false }) => {
                Some(&self.metrics.rollbacks)
            }
            _ => None,
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if let (EndedBy::Client { from_check: true, .. }, Ok(Applied::Ended { outcome, repeated: false })) =
            (&end.by, &applied)
        {
            self.metrics.checks.count(PRODUCER, Answered::Ended(*outcome));
        }
        match applied? {
            Applied::Ended { outcome, repeated } => Ok(EndReceipt { outcome, repeated }),
            other => Err(NotDone::Unknown(format!("an end was answered with {other:?}"))),
        }
    }

    async fn deliveries(
        &self,
        batch: &Batch,
        invisible_ms: u64,
        topic: &ResourceName,
    ) -> Result<Vec<Delivery>, NotDone> {
        let mut deliveries = Vec::with_capacity(batch.messages.len());
        for picked in &batch.messages {
            let (head, message) = match stored::message(&self.reader, picked.position) {
                Ok(found) => found,
                Err(refusal) => {
                    // One bad message is reported, the others go on; its lease ends and it is tried again.
                    let offset = picked.offset.0;
                    tracing::error!(%topic, picked.queue, picked.offset = offset, %refusal, "a message cannot be delivered");
                    continue;
                }
            };
            let dead_letter_origin = if head.topic == batch.topic {
                None
            } else {
                let origin = self.routes.topic_name(head.topic).await?;
                Some((origin.name, message.message.message_id.clone()))
            };
            let handle = Handle {
                shard: ShardId::FIRST,
                topic: batch.topic,
                group: batch.group,
                queue: picked.queue,
                offset: picked.offset,
                generation: batch.generation,
                deadline: batch.deadline,
            };
            deliveries.push(Delivery {
                message,
                queue: picked.queue,
                offset: picked.offset,
                attempt: picked.attempt,
                handle,
                invisible_ms,
                dead_letter_origin,
            });
        }
        Ok(deliveries)
    }
}

/// What an operator decides about a transaction.
impl EndRequest {
    /// A decision of an operator.
    pub fn by_operator(
        transaction: u64,
        outcome: vouch_broker::TransactionOutcome,
        name: String,
        reason: String,
    ) -> Self {
        Self { topic: None, message_id: None, transaction, outcome, by: EndedBy::Operator { name }, reason }
    }
}

/// Everything, for a consumer that gave no filter.
impl Default for ReceiveRequest {
    fn default() -> Self {
        Self {
            topic: ResourceName::default(),
            group: ResourceName::default(),
            client_id: String::new(),
            max: 1,
            filter: TagFilter::All,
            invisible_ms: None,
            auto_renew: false,
            wait: Duration::ZERO,
        }
    }
}
