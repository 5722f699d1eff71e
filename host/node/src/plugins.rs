//! Components in the broker: uploads into the log, files and compiled code out of it, bindings ready to be asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use vouch_broker::record::{PluginChunk, PluginPublish};
use vouch_broker::state::{Artifact, Plugins};
use vouch_broker::{
    BodyEncoding, MessageKind, Millis, NotDone, Refusal, ResourceName, ShardId, State, StoredMessage, TopicType,
    TransactionId,
};
use vouch_plugin::{
    Binding, BindingSpec, Engine, EngineConfig, Grants, InspectError, Limits, MASK, Message, Pending, Plugin, Refused,
    UploadVerdict, mask_document, mask_urls, masked_member,
};
use vouch_protocol::DecompressError;
use vouch_protocol::limits::DECOMPRESSED_BODY_MAX_BYTES;
use vouch_registry::{ArtifactStore, Digest, Reference, Target, check_plugin_name, check_tag};

use crate::answerers::Answerers;
use vouch_leader::checks::Due;

use crate::checks::Outages;
use crate::node::Inner;
use crate::stored;
use crate::written::written;
use crate::{NodeConfig, PluginUpload, StartError, Written};

/// Bytes of a component in one record.
const CHUNK: usize = 1 << 20;

/// Why an upload was not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The component itself is refused; its author reads this.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It was not stored, or nobody knows.
    #[error(transparent)]
    NotDone(#[from] NotDone),
}

impl From<Refusal> for UploadError {
    fn from(refusal: Refusal) -> Self {
        Self::NotDone(refusal.into())
    }
}

impl From<InspectError> for UploadError {
    fn from(error: InspectError) -> Self {
        match error {
            InspectError::Refused(refused) => Self::Refused(refused),
            InspectError::Host(_) => Self::NotDone(NotDone::internal(error.to_string())),
        }
    }
}

/// A binding as users write it (`PUT /v1/bindings/{name}`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BindingDocument {
    pub(crate) plugin: String,
    #[serde(default)]
    pub(crate) topics: Vec<String>,
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    #[serde(default)]
    grants: Grants,
    #[serde(default)]
    config: BTreeMap<String, serde_json::Value>,
    #[serde(default = "yes")]
    body: bool,
    #[serde(default)]
    fallback: Fallback,
    #[serde(default)]
    limits: Limits,
}

fn yes() -> bool {
    true
}

/// Who is asked when the component gives no answer (ruling 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Fallback {
    #[default]
    None,
    Producer,
}

impl BindingDocument {
    pub(crate) fn parse(spec: &str) -> Result<Self, NotDone> {
        let document: Self = serde_json::from_str(spec).map_err(|error| {
            NotDone::Refused(Refusal::Invalid(format!("the binding cannot be read: {}", mask_urls(&error.to_string()))))
        })?;
        if !document.groups.is_empty() {
            return Err(NotDone::Refused(Refusal::NotBuilt("a binding for consumer groups (use topics)")));
        }
        if document.topics.is_empty() {
            return Err(NotDone::Refused(Refusal::Invalid(
                "the binding names no topic; list at least one in \"topics\"".to_owned(),
            )));
        }
        for topic in &document.topics {
            ResourceName::parse(topic).check_topic()?;
        }
        Ok(document)
    }

    fn spec(&self, name: &str) -> Result<BindingSpec, NotDone> {
        let text = |(key, value): (&String, &serde_json::Value)| match value {
            serde_json::Value::String(text) => Ok((key.clone(), text.clone())),
            serde_json::Value::Object(object) if object.contains_key("secret") => {
                Err(NotDone::Refused(Refusal::NotBuilt("a secret in a binding's config")))
            }
            other => {
                let shown = shown_entry(key, other);
                Err(NotDone::Refused(Refusal::Invalid(format!("config.{key} is {shown}; it must be a text in quotes"))))
            }
        };
        Ok(BindingSpec {
            name: name.to_owned(),
            grants: self.grants.clone(),
            limits: self.limits.clone(),
            config: self.config.iter().map(text).collect::<Result<_, _>>()?,
            body: self.body,
        })
    }
}

/// The limits that hold for a binding whose document has these `limits`: those that it sets, and the defaults of the others.
/// What cannot be read, since another version wrote it, is left as it is.
pub fn limits_in_force(limits: &serde_json::Value) -> serde_json::Value {
    let read = serde_json::from_value::<Limits>(limits.clone());
    read.ok().and_then(|limits| serde_json::to_value(limits).ok()).unwrap_or_else(|| limits.clone())
}

/// A binding that can be asked.
#[derive(Clone)]
pub(crate) struct Answerer {
    pub(crate) binding: Binding,
    pub(crate) fallback_to_producer: bool,
    /// Log position of the record that set the binding.
    pub(crate) revision: u64,
}

impl Answerer {
    /// What the component is asked.
    ///
    /// Decompresses the body: takes up to a second and up to `limits.memory`, so it belongs into a place of the binding.
    pub(crate) fn pending(&self, due: &Due, half: StoredMessage) -> Pending {
        let half = &half;
        let message = &half.message;
        let (body_size, body) = self.body(due.transaction, half);
        Pending {
            transaction_id: TransactionId { shard: ShardId::FIRST, position: due.transaction }.to_string(),
            half: Message {
                id: message.message_id.clone(),
                topic: due.topic.to_string(),
                tag: message.tag.clone(),
                keys: message.keys.clone(),
                message_group: message.message_group.clone(),
                properties: message.properties.clone(),
                attributes: attributes(half),
                born_at_ms: message.born_at.0,
                born_host: message.born_host.clone(),
                stored_at_ms: half.stored_at.0,
                body_size: u32::try_from(body_size).unwrap_or(u32::MAX),
                body,
            },
            producer: half.producer.clone(),
            opened_at_ms: due.opened_at.0,
            asked_at_ms: due.asked_at.0,
            check_number: due.number,
            checks_left: due.checks_left,
        }
    }

    fn body(&self, transaction: u64, half: &StoredMessage) -> (u64, Bytes) {
        let max = self.binding.body_max().as_usize();
        body_for(half, self.binding.wants_body(), max).unwrap_or_else(|error| {
            let id = TransactionId { shard: ShardId::FIRST, position: transaction };
            tracing::warn!(transaction = %id, %error, "the body of a half message is handed over as it was sent");
            as_sent(half, self.binding.wants_body())
        })
    }
}

/// The body as the producer's application had it, if wanted, and its size; at most `max` bytes are decompressed to keep
/// them. What cannot be decompressed is handed over as it came: the component may know better, or look at the keys alone,
/// and the transaction must not be stuck for it.
fn body_for(half: &StoredMessage, wanted: bool, max: usize) -> Result<(u64, Bytes), DecompressError> {
    let body = &half.message.body;
    match (half.message.encoding, wanted) {
        (BodyEncoding::Identity, _) => Ok(as_sent(half, wanted)),
        (BodyEncoding::Gzip, false) => Ok((vouch_protocol::decompressed_len(body)?, Bytes::new())),
        (BodyEncoding::Gzip, true) => {
            let plain = vouch_protocol::decompress_up_to(body, max.min(DECOMPRESSED_BODY_MAX_BYTES))?;
            Ok((plain.len() as u64, plain))
        }
    }
}

fn as_sent(half: &StoredMessage, wanted: bool) -> (u64, Bytes) {
    let body = &half.message.body;
    (body.len() as u64, if wanted { body.clone() } else { Bytes::new() })
}

fn attributes(half: &StoredMessage) -> Vec<(String, String)> {
    let mut attributes = vec![("message-type".to_owned(), "transaction".to_owned())];
    if let Some(trace) = &half.message.trace_context {
        attributes.push(("trace-context".to_owned(), trace.clone()));
    }
    attributes
}

/// Components of this node.
pub(crate) struct PluginHost {
    pub(crate) engine: Engine,
    store: ArtifactStore,
    answerers: Answerers<Answerer>,
    /// The revision of each binding that last answered, and when: tells a transaction on which the component fails from a
    /// component that always fails (ruling 4).
    answered: Mutex<HashMap<String, (u64, Millis)>>,
    /// What was said about checks without an answer.
    pub(crate) outages: Outages,
}

/// What the settings say of the engine.
fn engine_config(config: &NodeConfig) -> EngineConfig {
    let mut engine = EngineConfig::new(config.data_dir.join("plugins").join("compiled"));
    engine.threads = config.plugin_threads;
    engine.concurrency = config.plugin_concurrency;
    engine.compiler = config.plugin_compiler.clone();
    engine
}

/// Whether the engine would run with these settings.
pub(crate) fn check_settings(config: &NodeConfig) -> Result<(), StartError> {
    engine_config(config).validate().map_err(|error| StartError::Plugins(error.to_string()))
}

impl PluginHost {
    pub(crate) fn start(config: &NodeConfig) -> Result<Self, StartError> {
        let components = config.data_dir.join(vouch_storage::COMPONENTS);
        let store = ArtifactStore::open(components).map_err(|error| StartError::Plugins(error.to_string()))?;
        let engine = Engine::start(engine_config(config)).map_err(|error| StartError::Plugins(error.to_string()))?;
        Ok(Self {
            engine,
            store,
            answerers: Answerers::default(),
            answered: Mutex::default(),
            outages: Outages::default(),
        })
    }

    /// Removes files of components that the log no longer knows.
    pub(crate) fn remove_unused(&self, plugins: &Plugins) {
        if let Err(error) = self.store.retain(|digest| plugins.artifact(&digest.0).is_some()) {
            tracing::warn!(%error, "files of removed components could not be cleared away");
        }
    }

    fn answered_table(&self) -> MutexGuard<'_, HashMap<String, (u64, Millis)>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A binding's component answered.
    pub(crate) fn answered(&self, binding: &str, revision: u64, at: Millis) {
        let mut answered = self.answered_table();
        match answered.get_mut(binding) {
            Some(last) => *last = (revision, at),
            None => drop(answered.insert(binding.to_owned(), (revision, at))),
        }
    }

    /// Whether the component of a binding, as it was set by this record, answered since then. Another binding of the same
    /// component asks another service, and says nothing about this one.
    pub(crate) fn answered_since(&self, binding: &str, revision: u64, since: Millis) -> bool {
        self.answered_table().get(binding).is_some_and(|(of, at)| *of == revision && *at >= since)
    }

    /// The binding with this name, loaded and joined with its grants. Cached until the binding is set again.
    pub(crate) async fn answerer(&self, inner: &Arc<Inner>, name: &str) -> Result<Answerer, NotDone> {
        let wanted = name.to_owned();
        let entry = inner.shard.read(move |state| state.plugins().binding(&wanted).cloned()).await?;
        let Some(entry) = entry else {
            self.answerers.forget(name);
            self.answered_table().remove(name);
            self.outages.forget(name);
            return Err(NotDone::Refused(Refusal::NotFound(format!("there is no binding {name}"))));
        };
        let make = async {
            let document = BindingDocument::parse(&entry.spec)?;
            let plugin = self.load(inner, Digest(entry.digest)).await?;
            bind(&plugin, &document, name, entry.revision)
        };
        self.answerers.get_or_make(name, entry.revision, make).await
    }

    /// What a binding would lack, without setting it: its warnings. Refuses one that cannot do what it is set for.
    pub(crate) async fn try_bind(
        &self,
        inner: &Arc<Inner>,
        name: &str,
        spec: &str,
    ) -> Result<(Digest, Vec<String>), NotDone> {
        refuse_masked(spec)?;
        let document = BindingDocument::parse(spec)?;
        let digest = resolve(inner, &document.plugin).await?;
        let plugin = self.load(inner, digest).await?;
        // First what bounds how much there is to look through.
        let mut warnings = bind(&plugin, &document, name, 0)?.binding.warnings();
        let spec = document.spec(name)?;
        let checked = tokio::task::spawn_blocking(move || plugin.check_config(&spec.config, &spec.grants)).await;
        checked
            .map_err(|error| NotDone::internal(format!("the config cannot be checked: {error}")))?
            .map_err(|error| NotDone::Refused(Refusal::Invalid(error.to_string())))?;
        warnings.extend(warnings_of_topics(inner, &document.topics).await?);
        Ok((digest, warnings))
    }

    /// A binding that was asked on this node, with its revision.
    pub(crate) fn logs_of(&self, name: &str) -> Option<(u64, Binding)> {
        self.answerers.get(name).map(|answerer| (answerer.revision, answerer.binding))
    }

    /// A component's file, from this node's folder or from the log.
    pub(crate) async fn component(&self, inner: &Arc<Inner>, digest: Digest) -> Result<Bytes, NotDone> {
        match self.store.get(&digest) {
            Ok(Some(wasm)) => Ok(wasm),
            Ok(None) => self.rebuild(inner, digest).await,
            Err(error) => Err(NotDone::internal(error.to_string())),
        }
    }

    async fn load(&self, inner: &Arc<Inner>, digest: Digest) -> Result<Plugin, NotDone> {
        let wasm = self.component(inner, digest).await?;
        self.engine.load(&digest.to_string(), wasm).await.map_err(|error| NotDone::internal(error.to_string()))
    }

    /// Puts a component's file together from its chunks in the log.
    async fn rebuild(&self, inner: &Arc<Inner>, digest: Digest) -> Result<Bytes, NotDone> {
        let artifact = inner.shard.read(move |state| state.plugins().artifact(&digest.0).cloned()).await?;
        let artifact = artifact
            .ok_or_else(|| NotDone::Refused(Refusal::NotFound(format!("component {digest} is not in the log"))))?;
        let wasm = read_chunks(inner, &artifact)?;
        if Digest::of(&wasm) != digest {
            return Err(NotDone::internal(format!("the chunks of component {digest} do not make it up")));
        }
        self.store.put(&wasm).map_err(|error| NotDone::internal(error.to_string()))?;
        Ok(wasm)
    }

    /// Takes an upload: looked at, kept in the log, published under its tag.
    pub(crate) async fn upload(
        &self,
        inner: &Arc<Inner>,
        upload: PluginUpload,
    ) -> Result<(UploadVerdict, Written), UploadError> {
        let invalid = |error: vouch_registry::ReferenceError| NotDone::Refused(Refusal::Invalid(error.to_string()));
        check_plugin_name(&upload.name).map_err(invalid)?;
        check_tag(&upload.tag).map_err(invalid)?;
        let expected = match &upload.expected {
            Some(text) => {
                Some(text.parse::<Digest>().map_err(|error| NotDone::Refused(Refusal::Invalid(error.to_string())))?.0)
            }
            None => None,
        };
        inner.shortages.check_disk()?;
        let verdict = self.engine.inspect(upload.wasm.clone()).await?;
        let digest = self.store.put(&upload.wasm).map_err(|error| NotDone::internal(error.to_string()))?;
        let received = inner
            .shard
            .read(move |state| state.plugins().artifact(&digest.0).map_or(0, |artifact| artifact.received))
            .await?;
        for (number, data) in upload.wasm.chunks(CHUNK).enumerate() {
            let offset = (number * CHUNK) as u64;
            if offset < received {
                continue;
            }
            let total = upload.wasm.len() as u64;
            let chunk = PluginChunk { digest: digest.0, offset, total, data: data.to_vec() };
            let mut record = Vec::new();
            chunk.encode(&mut record);
            inner.shard.propose_if_room(record).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
        }
        let publish = PluginPublish {
            name: upload.name,
            tag: upload.tag,
            digest: digest.0,
            expected,
            verdict: serde_json::to_string(&verdict).map_err(|error| NotDone::internal(error.to_string()))?,
        };
        let written = written(&inner.shard, |out| publish.encode(out)).await?;
        Ok((verdict, written))
    }
}

fn bind(plugin: &Plugin, document: &BindingDocument, name: &str, revision: u64) -> Result<Answerer, NotDone> {
    let binding =
        plugin.bind(document.spec(name)?).map_err(|error| NotDone::Refused(Refusal::Invalid(error.to_string())))?;
    Ok(Answerer { binding, fallback_to_producer: document.fallback == Fallback::Producer, revision })
}

/// An entry of a binding's config as it may be shown.
fn shown_entry(key: &str, value: &serde_json::Value) -> String {
    let mut document = serde_json::json!({"config": {key: value}});
    mask_document(&mut document);
    match &document["config"][key] {
        serde_json::Value::String(masked) => masked.clone(),
        other => other.to_string(),
    }
}

/// A binding is shown without its secrets; sent back as it was shown it would lose them.
fn refuse_masked(spec: &str) -> Result<(), NotDone> {
    let masked = serde_json::from_str(spec).ok().and_then(|document| masked_member(&document));
    masked.map_or(Ok(()), |member| {
        Err(NotDone::Refused(Refusal::Invalid(format!(
            "{member} has {MASK}, which is shown in place of a secret and is not the secret: write the value itself"
        ))))
    })
}

/// Refuses topics that do not exist, and says of which no transaction can come.
async fn warnings_of_topics(inner: &Arc<Inner>, topics: &[String]) -> Result<Vec<String>, NotDone> {
    let names: Vec<ResourceName> = topics.iter().map(|topic| ResourceName::parse(topic)).collect();
    let look = move |state: &State| {
        let topics = names.iter().map(|name| state.topics().named(name));
        topics.map(|topic| topic.map(|topic| (topic.name.clone(), topic.config.topic_type))).collect()
    };
    let found: Result<Vec<_>, Refusal> = inner.shard.read(look).await?;
    let without = found?.into_iter().filter(|(_, topic_type)| !topic_type.takes(MessageKind::Transaction));
    let warning = |(name, topic_type): (ResourceName, TopicType)| {
        format!(
            "topic {name} has type {}, which takes no half messages: the component is never asked about it",
            topic_type.as_str()
        )
    };
    Ok(without.map(warning).collect())
}

/// The digest that a reference means now (ruling 7).
async fn resolve(inner: &Arc<Inner>, reference: &str) -> Result<Digest, NotDone> {
    let Reference { name, target } = reference.parse().map_err(|error: vouch_registry::ReferenceError| {
        NotDone::Refused(Refusal::Invalid(format!("\"plugin\": {error}")))
    })?;
    let missing = NotDone::Refused(Refusal::NotFound(format!(
        "plugin {reference} does not exist; push it with: vouch plugin push"
    )));
    let find = move |state: &State| {
        let plugins = state.plugins();
        match target {
            Target::Tag(tag) => plugins.tag(&name, &tag).map(|tag| Digest(tag.digest)),
            Target::Digest(digest) => plugins
                .plugin(&name)
                .filter(|plugin| plugin.tags.values().flatten().any(|tag| tag.digest == digest.0))
                .map(|_| digest),
        }
    };
    inner.shard.read(find).await?.ok_or(missing)
}

fn read_chunks(inner: &Inner, artifact: &Artifact) -> Result<Bytes, NotDone> {
    let mut wasm = BytesMut::with_capacity(usize::try_from(artifact.total).unwrap_or(0));
    for (position, _) in &artifact.chunks {
        let record = stored::record(&inner.reader, *position)?;
        let carried = vouch_broker::record::before_carried(&record);
        let record = carried.map_err(|why| NotDone::internal(why.to_string()))?.map_or(record, |(_, first)| first);
        match decode(&record)? {
            vouch_broker::record::Record::PluginChunk(chunk) => wasm.extend_from_slice(&chunk.data),
            _ => return Err(NotDone::internal(format!("the record at {position} is not a piece of a component"))),
        }
    }
    Ok(wasm.freeze())
}

fn decode(record: &Bytes) -> Result<vouch_broker::record::Record, NotDone> {
    let defect = |why: vouch_broker::record::DecodeError| NotDone::internal(why.to_string());
    let (frame, _) = vouch_broker::record::Frame::split(record).map_err(defect)?;
    frame.verify().map_err(defect)?;
    vouch_broker::record::Record::decode(&frame).map_err(defect)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vouch_broker::NewMessage;

    use super::*;

    fn half(encoding: BodyEncoding, body: Vec<u8>) -> StoredMessage {
        let message = NewMessage {
            message_id: "m".to_owned(),
            tag: None,
            keys: vec![],
            properties: vec![],
            kind: MessageKind::Transaction,
            encoding,
            born_at: Millis(1),
            born_host: "h".to_owned(),
            trace_context: None,
            message_group: None,
            deliver_at: None,
            recovery_ms: None,
            body: body.into(),
        };
        StoredMessage { message, producer: "p".to_owned(), stored_at: Millis(2) }
    }

    fn gzip(body: &[u8]) -> StoredMessage {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(body).unwrap();
        half(BodyEncoding::Gzip, encoder.finish().unwrap())
    }

    #[test]
    fn an_entry_that_is_no_text_is_refused_without_its_secrets() {
        let refusal = |config: serde_json::Value| {
            let document = serde_json::json!({"plugin": "p:1", "topics": ["t"], "config": config}).to_string();
            BindingDocument::parse(&document).unwrap().spec("b").err().unwrap().to_string()
        };
        for (config, shown) in [
            (
                serde_json::json!({"db": {"password": "pa55", "port": 1}}),
                r#"config.db is {"password":"***","port":1};"#,
            ),
            (serde_json::json!({"urls": ["http://u:pa55@h"]}), r#"config.urls is ["http://***@h"];"#),
            (serde_json::json!({"token": ["pa55"]}), "config.token is ***;"),
            (serde_json::json!({"config": {"x": {"secret": "pa55"}}}), r#"config.config is {"x":{"secret":"***"}};"#),
            (serde_json::json!({"port": 1}), "config.port is 1;"),
        ] {
            let told = refusal(config);
            assert!(told.contains(shown) && !told.contains("pa55"), "{told}");
        }
    }

    #[test]
    fn a_component_that_wants_the_body_gets_it_decompressed_up_to_what_it_can_take() {
        let compressed = gzip(&[7; 1000]);
        assert_eq!(body_for(&compressed, true, 1000), Ok((1000, Bytes::from(vec![7; 1000]))));
        assert_eq!(body_for(&compressed, true, 999), Err(DecompressError::TooLarge(999)));
        let (len, body) = as_sent(&compressed, true);
        assert_eq!((len, body), (compressed.message.body.len() as u64, compressed.message.body.clone()));
        let plain = half(BodyEncoding::Identity, vec![7; 1000]);
        assert_eq!(body_for(&plain, true, 999), Ok((1000, plain.message.body.clone())), "it is in memory anyway");
    }

    #[test]
    fn a_component_that_wants_no_body_learns_its_size_and_nothing_is_kept_of_it() {
        assert_eq!(body_for(&gzip(&[7; 1000]), false, 0), Ok((1000, Bytes::new())));
        assert_eq!(body_for(&half(BodyEncoding::Identity, vec![7; 10]), false, 0), Ok((10, Bytes::new())));
        let bomb = gzip(&vec![0; DECOMPRESSED_BODY_MAX_BYTES + 1]);
        assert_eq!(body_for(&bomb, false, 0), Err(DecompressError::TooLarge(DECOMPRESSED_BODY_MAX_BYTES)));
        assert_eq!(as_sent(&bomb, false).1, Bytes::new());
    }

    #[test]
    fn a_body_that_is_not_what_its_encoding_says_is_handed_over_as_it_came() {
        let broken = half(BodyEncoding::Gzip, b"plain".to_vec());
        assert_eq!(body_for(&broken, true, 1000), Err(DecompressError::Format));
        assert_eq!(as_sent(&broken, true), (5, Bytes::from_static(b"plain")));
    }
}
