//! A binding is tried: its databases are looked at, and its component is asked in dry calls, of which nothing stays (ruling 34).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vouch_broker::record::EndedBy;
use vouch_broker::state::{BindingEntry, Ended};
use vouch_broker::{HalfPosition, NotDone, Refusal, ResourceName, State, TopicId};
use vouch_plugin::{
    Answered, ByteSize, ConsumerDelivery, ConsumerVerdict, ExaminedDatabase, Message, Pending, SqlError, Tried, Verdict,
};

use super::bound::bind;
use super::comparing::LONG_MS;
use super::document::BindingDocument;
use super::pending::Answerer;
use super::standing::{BindingStanding, Contradiction};
use super::{Compared, Components, EndedByProducer, compare, note};
use crate::effects::Effects;
use crate::stored;
use crate::turns::{STEP, blocking};
use vouch_registry::Digest;

/// A binding is set after this time, tried to the end or not.
const TRIAL_WITHIN: Duration = Duration::from_secs(10);
/// One that could not be tried, since a service or a database was away, is tried again so often.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Most ended transactions that one trial asks about, and how long it goes on with that.
const ENDED_MAX: usize = 1000;
const ENDED_WITHIN: Duration = Duration::from_secs(60);
/// Of so many that ended last it looks for those of the binding's topics.
const ENDED_LOOKED_AT: usize = 4 * STEP;
/// What stands for each value of a half message that nobody named.
const SAMPLE: &str = "vouch-sample";

/// A half message that a component is asked about, as users write it. What is left out is made up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleHalf {
    /// Message id.
    id: Option<String>,
    /// Topic; the first of the binding.
    topic: Option<String>,
    /// Tag.
    tag: Option<String>,
    /// Business keys.
    keys: Option<Vec<String>>,
    /// Properties.
    #[serde(default)]
    properties: BTreeMap<String, String>,
    /// Body, as text.
    body: Option<String>,
}

/// What came of trying a binding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BindingTrial {
    /// Its databases.
    pub databases: Vec<TriedDatabase>,
    /// Calls of its component.
    pub calls: Vec<TriedCall>,
    /// What it said of transactions that ended, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<EndedOnes>,
}

/// One database of a binding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TriedDatabase {
    /// Its name in the binding.
    pub name: String,
    /// Why its fence must not be used.
    pub refusals: Vec<String>,
    /// Why a crash may take back what it said.
    pub warnings: Vec<String>,
    /// Why nobody knows: it was not reached, for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How a component is asked about a sample.
struct SampleAsk {
    asked_as: &'static str,
    age_ms: u64,
    number: u32,
    checks_left: u32,
}

const FIRST_CHECK: SampleAsk = SampleAsk { asked_as: "first check", age_ms: 0, number: 1, checks_left: 9 };
/// Of an old transaction: all that a component does it does by then.
const LAST_CHECK: SampleAsk = SampleAsk { asked_as: "last check", age_ms: LONG_MS, number: 10, checks_left: 0 };
/// How a component is asked that consumes.
const DELIVERY: &str = "delivery";
/// In the place of an answer.
const NO_ANSWER: &str = "no answer";

/// One dry call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TriedCall {
    /// `first check`, `last check` or `delivery`.
    pub asked_as: &'static str,
    /// `commit`, `rollback` or `unknown` of a check; `ack`, `retry` or `reject` of a delivery; `no answer`.
    pub answer: &'static str,
    /// The component's reason, or why there is no answer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What is wrong with the component, the binding or a statement, and stays so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrong: Option<String>,
    /// What it asked for.
    pub asked_for: Vec<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Memory that it had at the end.
    pub memory: ByteSize,
    /// Of so much.
    pub memory_limit: ByteSize,
}

/// What a component said of transactions that their producers had ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EndedOnes {
    /// How many it was asked about: the newest first, as far as the log and the time allow.
    pub asked: usize,
    /// About which it said the same.
    pub agreed: usize,
    /// About which it said nothing that can be compared.
    pub undecided: usize,
    /// Why, of the newest of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undecided_because: Option<String>,
    /// About which it said the opposite.
    pub contradictions: Vec<Contradiction>,
}

impl Components {
    /// Tries a binding as it stands: its databases, and its component with this half message, at the first check of a transaction
    /// and at the last one of an old one. One that stood untried does not any more, if that works.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; why it cannot be asked at all.
    pub async fn try_binding(&self, name: &str, half: SampleHalf) -> Result<BindingTrial, NotDone> {
        let (entry, document) = self.to_try(name).await?;
        let one = self.one_to_try(name, &entry, &document).await?;
        let asks = Asks { half, now_ms: self.clock.now().0, checks: &[FIRST_CHECK, LAST_CHECK] };
        let trial = tried(&one, &document, asks, &self.effects).await;
        // What it was tried with may have been odd: that it works is told, and no more.
        if let (Some(answerer), Ok(None)) = (self.bound.made(name, entry.revision), verdict(&trial)) {
            answerer.notes.tried(None);
        }
        Ok(trial)
    }

    /// Asks a binding's component about the newest transactions of its topics that their producers ended themselves, at most
    /// `count`.
    ///
    /// # Errors
    /// As [`Self::try_binding`]; [`Refusal::Invalid`] for none, or more than [`ENDED_MAX`].
    pub async fn try_ended(&self, name: &str, count: usize) -> Result<BindingTrial, NotDone> {
        if !(1..=ENDED_MAX).contains(&count) {
            let why = format!("ended is {count}: at least 1 and at most {ENDED_MAX} transactions are asked about");
            return Err(NotDone::Refused(Refusal::Invalid(why)));
        }
        let (entry, document) = self.to_try(name).await?;
        let answerer = self.bound.answerer(name, &entry).await?;
        let databases = answerer.binding.examine().await.into_iter().map(tried_database).collect();
        let until = Instant::now() + ENDED_WITHIN;
        let mut compared = Vec::new();
        for (transaction, topic, ended) in self.ended_by_producers(&document.topics, count).await? {
            if Instant::now() >= until {
                break;
            }
            let Ok(half) = self.halves.get(transaction).await else { continue };
            let ended_at = ended.record;
            let ended = EndedByProducer { transaction, topic, half, outcome: ended.outcome };
            compared.push((ended_at, compare(&answerer, ended, (&self.effects, &self.clock)).await?));
        }
        // In the order of their ends: what it says of the newest is how it is now.
        compared.iter().rev().for_each(|(ended_at, compared)| note(&answerer, *ended_at, compared));
        // What is found here is to be over as soon as it is mended, like what is found otherwise.
        self.sample.take_all(self.bound.contradicted().await?);
        let mut found = EndedOnes { asked: compared.len(), ..EndedOnes::default() };
        for (_, compared) in compared {
            match compared {
                Compared::Agrees => found.agreed += 1,
                Compared::Contradicts(contradiction) => found.contradictions.push(contradiction),
                Compared::Undecided(why) => {
                    found.undecided += 1;
                    found.undecided_because.get_or_insert(why);
                }
            }
        }
        Ok(BindingTrial { databases, calls: Vec::new(), ended: Some(found) })
    }

    /// What is known of a binding where this node asks it.
    pub fn standing(&self, name: &str, revision: u64) -> Option<BindingStanding> {
        let consumer = self.consumers.of(name);
        match self.bound.made(name, revision) {
            Some(answerer) => Some(BindingStanding { consumer, ..answerer.notes.shown() }),
            None => consumer.map(|consumer| BindingStanding { consumer: Some(consumer), ..BindingStanding::default() }),
        }
    }

    /// Tries a binding before it stands (ruling 34). Returns what is to be warned of, and why nobody knows whether it works.
    ///
    /// # Errors
    /// [`Refusal::Invalid`]: something is wrong with it that stays so.
    pub(super) async fn try_before_it_stands(
        &self,
        answerer: &Answerer,
        document: &BindingDocument,
    ) -> Result<(Vec<String>, Option<String>), NotDone> {
        let asking = tried(answerer, document, Asks::of_last_check(self.clock.now().0), &self.effects);
        let Ok(trial) = tokio::time::timeout(TRIAL_WITHIN, asking).await else {
            return Ok((Vec::new(), Some(format!("it was not tried to the end within {} s", TRIAL_WITHIN.as_secs()))));
        };
        let untried = verdict(&trial).map_err(|wrong| {
            NotDone::Refused(Refusal::Invalid(format!(
                "the binding was tried and cannot do what it is set for: {wrong}; mend that, or set it all the same with \
                 \"unchecked\": true"
            )))
        })?;
        let said = |TriedDatabase { name, warnings, .. }: TriedDatabase| {
            warnings.into_iter().map(move |warning| format!("database {name}: {warning}"))
        };
        Ok((trial.databases.into_iter().flat_map(said).collect(), untried))
    }

    /// A binding that was set stands as untried, for this reason: it is tried again until that tells something, or it is another
    /// one.
    pub(super) async fn stands_untried(&self, name: &str, revision: u64, why: String) {
        let Ok(Some(entry)) = self.binding(name).await else { return };
        if let Ok(answerer) = self.bound.answerer(name, &entry).await
            && answerer.revision == revision
        {
            answerer.notes.tried(Some(why));
        }
        let (bound, clock, name) = (Arc::downgrade(&self.bound), self.clock.clone(), name.to_owned());
        let effects = self.effects.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
                // It ends with the node, and where this node asks it no more, or knows that it works.
                let Some(bound) = bound.upgrade() else { return };
                if !bound.asks(&name, revision).await {
                    return;
                }
                let Ok(answerer) = bound.answerer(&name, &entry).await else { continue };
                let Ok(document) = BindingDocument::parse(&entry.spec) else { return };
                if answerer.revision != revision || answerer.notes.untried().is_none() {
                    return;
                }
                drop(bound);
                let asks = Asks::of_last_check(clock.now().0);
                let found = verdict(&tried(&answerer, &document, asks, &effects).await);
                if let Err(wrong) = &found {
                    tracing::warn!(
                        binding = name,
                        wrong,
                        "the binding was tried again and cannot do what it is set for"
                    );
                }
                answerer.notes.tried(found.unwrap_or_else(Some));
            }
        });
    }

    async fn to_try(&self, name: &str) -> Result<(BindingEntry, BindingDocument), NotDone> {
        let missing = || NotDone::Refused(Refusal::NotFound(format!("there is no binding {name}")));
        let entry = self.binding(name).await?.ok_or_else(missing)?;
        let document = BindingDocument::parse(&entry.spec)?;
        Ok((entry, document))
    }

    /// One of its own: what it says does not mix with what checks say, and it takes no place of theirs.
    async fn one_to_try(
        &self,
        name: &str,
        entry: &BindingEntry,
        document: &BindingDocument,
    ) -> Result<Answerer, NotDone> {
        let plugin = self.bound.load(Digest(entry.digest)).await?;
        let opened = self.bound.opened(&document.secrets()).await?;
        bind(&plugin, document, (name, 0, entry.created), &opened, None)
    }

    /// The newest transactions of these topics that their producers ended, at most `count`, the newest first.
    async fn ended_by_producers(
        &self,
        topics: &[String],
        count: usize,
    ) -> Result<Vec<(HalfPosition, ResourceName, Ended)>, NotDone> {
        let topics: Vec<ResourceName> = topics.iter().map(|topic| ResourceName::parse(topic)).collect();
        let look = move |state: &State| {
            let id = |name| Some((state.topics().named(name).ok()?.id, name));
            let topics: BTreeMap<TopicId, &ResourceName> = topics.iter().filter_map(id).collect();
            let ended = state.outcomes().iter().rev().take(ENDED_LOOKED_AT);
            let theirs = ended.filter_map(|(transaction, ended)| {
                topics.get(&ended.topic).map(|topic| (transaction, (*topic).clone(), *ended))
            });
            theirs.collect::<Vec<_>>()
        };
        let newest = self.shard.read(look).await?;
        let log = self.halves.log.clone();
        // Who ended each stands in its record: read and verified, not on a thread that serves calls.
        let by_producers = move || {
            let is_by_producer = |ended: &Ended| {
                stored::end(&log, ended.record).is_ok_and(|end| matches!(end.by, EndedBy::Client { .. }))
            };
            newest.into_iter().filter(|(_, _, ended)| is_by_producer(ended)).take(count).collect()
        };
        blocking(by_producers).await
    }
}

/// What a binding is tried with.
struct Asks {
    /// What the user says of the message.
    half: SampleHalf,
    now_ms: u64,
    /// How it is asked about a transaction, if it answers for topics.
    checks: &'static [SampleAsk],
}

impl Asks {
    /// With a message that is made up.
    fn of_last_check(now_ms: u64) -> Self {
        Self { half: SampleHalf::default(), now_ms, checks: &[LAST_CHECK] }
    }
}

/// Looks at a binding's databases, and asks its component: about a transaction if it answers for topics, and with a delivery if
/// it consumes for groups.
async fn tried(answerer: &Answerer, document: &BindingDocument, asks: Asks, effects: &Arc<Effects>) -> BindingTrial {
    let (binding, Asks { half, now_ms, checks }) = (&answerer.binding, asks);
    let databases = binding.examine().await.into_iter().map(tried_database).collect();
    let mut calls = Vec::new();
    let reach = || Some(effects.reach(&answerer.settler, SAMPLE));
    let checks = if document.topics.is_empty() { &[] } else { checks };
    for ask in checks {
        let asked = pending(sample(document, half.clone(), now_ms), now_ms, ask);
        let Tried { checked, asked, wrong, took, memory } = binding.try_check(asked, reach()).await;
        let call = TriedCall::of(ask.asked_as, said(checked, check_said), binding.limits().memory);
        calls.push(call.with(asked, wrong, took, memory));
    }
    if let Some(group) = document.groups.first() {
        let message = delivered_sample(document, half, now_ms);
        let delivery = ConsumerDelivery {
            delivery_key: SAMPLE.to_owned(),
            message,
            group: group.clone(),
            delivered_at_ms: now_ms,
            attempt: 1,
            attempts_left: 16,
        };
        let Tried { checked, asked, wrong, took, memory } = binding.try_consume(delivery, reach()).await;
        let call = TriedCall::of(DELIVERY, said(checked, consumer_said), binding.limits().memory);
        calls.push(call.with(asked, wrong, took, memory));
    }
    BindingTrial { databases, calls, ended: None }
}

/// What a trial says of a binding: nothing against it; or that nobody knows, and why.
///
/// # Errors
/// What is wrong with it, and stays so.
fn verdict(trial: &BindingTrial) -> Result<Option<String>, String> {
    let refusals = trial
        .databases
        .iter()
        .flat_map(|found| found.refusals.iter().map(|why| format!("database {}: {why}", found.name)));
    let wrong: Vec<String> = refusals.chain(trial.calls.iter().filter_map(|call| call.wrong.clone())).collect();
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    let away =
        trial.databases.iter().find_map(|found| Some(format!("database {}: {}", found.name, found.error.as_ref()?)));
    let unanswered = trial.calls.iter().find(|call| call.answer == NO_ANSWER);
    Ok(away.or_else(|| unanswered.map(|call| call.reason.clone())))
}

fn tried_database(ExaminedDatabase { name, found }: ExaminedDatabase) -> TriedDatabase {
    match found {
        Ok(found) => TriedDatabase { name, refusals: found.refusals, warnings: found.warnings, error: None },
        Err(why @ (SqlError::Invalid(_) | SqlError::NotGranted(_))) => {
            TriedDatabase { name, refusals: vec![why.to_string()], ..TriedDatabase::default() }
        }
        Err(why) => TriedDatabase { name, error: Some(why.to_string()), ..TriedDatabase::default() },
    }
}

/// An answer in words, or none.
fn said<V>(answered: Answered<V>, say: impl FnOnce(V) -> (&'static str, String)) -> Answered<(&'static str, String)> {
    match answered {
        Answered::Answer(verdict) => Answered::Answer(say(verdict)),
        Answered::NoAnswer(why) => Answered::NoAnswer(why),
    }
}

/// What a component said of a transaction, and why.
fn check_said(verdict: Verdict) -> (&'static str, String) {
    match verdict {
        Verdict::Commit => ("commit", String::new()),
        Verdict::Rollback(reason) => ("rollback", reason),
        Verdict::Unknown { reason, .. } => ("unknown", reason),
    }
}

/// What a component said of a delivery, and why.
fn consumer_said(verdict: ConsumerVerdict) -> (&'static str, String) {
    match verdict {
        ConsumerVerdict::Ack => ("ack", String::new()),
        ConsumerVerdict::Retry { reason, .. } => ("retry", reason),
        ConsumerVerdict::Reject(reason) => ("reject", reason),
    }
}

impl TriedCall {
    fn of(asked_as: &'static str, said: Answered<(&'static str, String)>, memory_limit: ByteSize) -> Self {
        let (answer, reason, wrong) = match said {
            Answered::Answer((answer, reason)) => (answer, reason, None),
            Answered::NoAnswer(why) => {
                let failed = why.blames_component().then(|| why.to_string());
                (NO_ANSWER, why.to_string(), failed)
            }
        };
        let (asked_for, took_ms, memory) = (Vec::new(), 0, ByteSize(0));
        Self { asked_as, answer, reason, wrong, asked_for, took_ms, memory, memory_limit }
    }

    fn with(self, asked: Vec<String>, wrong: Option<String>, took: Duration, memory: ByteSize) -> Self {
        Self { asked_for: asked, wrong: wrong.or(self.wrong), took_ms: millis(took), memory, ..self }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A half message with every field, those of the user among them. It has each property that a value of the config names
/// in braces (`{property.NAME}`).
fn sample(document: &BindingDocument, half: SampleHalf, now_ms: u64) -> Message {
    let topic = half.topic.or_else(|| document.topics.first().cloned()).unwrap_or_default();
    let mut properties = half.properties;
    for name in document.properties_named() {
        properties.entry(name).or_insert_with(|| SAMPLE.to_owned());
    }
    let body = bytes::Bytes::from(half.body.unwrap_or_else(|| SAMPLE.to_owned()));
    Message {
        id: half.id.unwrap_or_else(|| SAMPLE.to_owned()),
        topic: ResourceName::parse(&topic).to_string(),
        tag: Some(half.tag.unwrap_or_else(|| SAMPLE.to_owned())),
        keys: half.keys.unwrap_or_else(|| vec![SAMPLE.to_owned()]),
        message_group: None,
        properties: properties.into_iter().collect(),
        attributes: vec![("message-type".to_owned(), "transaction".to_owned())],
        born_at_ms: now_ms,
        born_host: SAMPLE.to_owned(),
        stored_at_ms: now_ms,
        body_size: u32::try_from(body.len()).unwrap_or(u32::MAX),
        body,
    }
}

/// A message that is delivered: of the first topic that is subscribed to, if the user names none, and with a body that is JSON, since
/// many components want that.
fn delivered_sample(document: &BindingDocument, half: SampleHalf, now_ms: u64) -> Message {
    let first = || document.subscribed().ok()?.first().map(|(topic, _)| topic.to_string());
    let half = SampleHalf {
        topic: half.topic.clone().or_else(first),
        body: Some(half.body.clone().unwrap_or_else(|| "{}".to_owned())),
        ..half
    };
    let attributes = vec![("message-type".to_owned(), "normal".to_owned())];
    Message { attributes, ..sample(document, half, now_ms) }
}

fn pending(half: Message, now_ms: u64, ask: &SampleAsk) -> Pending {
    let at = now_ms.saturating_sub(ask.age_ms);
    Pending {
        transaction_id: SAMPLE.to_owned(),
        half: Message { born_at_ms: at, stored_at_ms: at, ..half },
        producer: SAMPLE.to_owned(),
        opened_at_ms: at,
        asked_at_ms: now_ms,
        check_number: ask.number,
        checks_left: ask.checks_left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_every_field_and_each_property_that_the_config_names() {
        let document = serde_json::json!({"plugin": "p:1", "topics": ["tenant/orders"], "config": {
            "url": "http://h/{key}/{property.region}?x={property.shop}", "other": "{property.region", "secret": {"secret": "s"},
        }});
        let document = BindingDocument::parse(&document.to_string()).unwrap();
        let made = sample(&document, SampleHalf::default(), 7);
        let filled = |name: &str| (name.to_owned(), SAMPLE.to_owned());
        assert_eq!(made.properties, [filled("region"), filled("shop")]);
        assert_eq!((made.topic.as_str(), made.keys.as_slice()), ("tenant/orders", &[SAMPLE.to_owned()][..]));
        assert!(made.tag.is_some() && made.body_size as usize == made.body.len() && !made.id.is_empty());
        let half: SampleHalf =
            serde_json::from_str(r#"{"id": "m1", "keys": [], "properties": {"shop": "7"}, "body": "x"}"#).unwrap();
        let made = sample(&document, half, 7);
        assert_eq!((made.id.as_str(), made.keys.len(), made.body_size), ("m1", 0, 1));
        assert!(made.properties.contains(&("shop".to_owned(), "7".to_owned())));
        assert!(serde_json::from_str::<SampleHalf>(r#"{"keyes": []}"#).is_err());
    }
}
