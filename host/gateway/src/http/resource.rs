//! Topics and groups: named settings that are listed, shown, replaced, changed and deleted in the same way.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use vouch_broker::{GroupConfig, NameError, NotDone, NothingStored, Refusal, ResourceName, TopicConfig};
use vouch_node::{Expect, GroupInfo, Node, TopicInfo, Written};

use super::App;
use super::answer::{self, etag, written};
use super::groups;
use super::precondition::Preconditions;
use super::problem::Problem;
use super::request::{Params, PathNames, document, object, take_name};
use super::transactions::{BY_MAX_BYTES, REASON_MAX_BYTES};

/// A change that nobody's tag protects is tried again when somebody else was faster, this often.
const CHANGE_TRIES: usize = 8;

/// Settings under a name.
pub(crate) struct FoundResource<C> {
    /// As lists show it.
    name: ResourceName,
    /// The settings, all of them.
    config: C,
    /// Changes with each write: the entity tag.
    revision: u64,
}

/// A kind of settings.
pub(crate) trait Resource {
    /// `topic` or `group`.
    const WHAT: &'static str;
    /// Members that answers tell beside the settings, and that a request may repeat.
    const TOLD: &'static [&'static str];
    /// The settings.
    type Config: Serialize + DeserializeOwned + Clone + Send + Sync;

    /// The refusal of what does not exist, with the command that makes it.
    fn missing(name: ResourceName) -> Refusal;
    /// Whether there can be one of this name.
    fn check(name: &ResourceName) -> Result<(), NameError>;
    /// One, by its name.
    fn find(
        node: &Node,
        name: &ResourceName,
    ) -> impl Future<Output = Result<Option<FoundResource<Self::Config>>, NotDone>> + Send;
    /// What [`Self::TOLD`] says of this one.
    fn told(node: &Node, name: &ResourceName) -> impl Future<Output = Result<Map<String, Value>, NotDone>> + Send;
    /// So many, in the order of their names, after this one.
    fn page(
        node: &Node,
        after: Option<ResourceName>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<FoundResource<Self::Config>>, NotDone>> + Send;
    /// Writes the settings, if what is there is what is expected. The log checks that again when it applies the write.
    fn put(
        node: &Node,
        name: &str,
        config: Self::Config,
        expect: Expect,
    ) -> impl Future<Output = Result<Written, NotDone>> + Send;
}

/// `/v1/topics`.
pub(crate) struct TopicResources;

impl From<TopicInfo> for FoundResource<TopicConfig> {
    fn from(info: TopicInfo) -> Self {
        Self { name: info.name, config: info.config, revision: info.revision }
    }
}

impl Resource for TopicResources {
    const WHAT: &'static str = "topic";
    const TOLD: &'static [&'static str] = &[];
    type Config = TopicConfig;

    fn missing(name: ResourceName) -> Refusal {
        Refusal::TopicNotFound(name)
    }

    fn check(name: &ResourceName) -> Result<(), NameError> {
        name.check_topic()
    }

    async fn find(node: &Node, name: &ResourceName) -> Result<Option<FoundResource<TopicConfig>>, NotDone> {
        match node.settings.topic(name).await {
            Ok(info) => Ok(Some(info.into())),
            Err(NotDone::Refused(Refusal::TopicNotFound(_))) => Ok(None),
            Err(not_done) => Err(not_done),
        }
    }

    async fn told(_: &Node, _: &ResourceName) -> Result<Map<String, Value>, NotDone> {
        Ok(Map::new())
    }

    async fn page(
        node: &Node,
        after: Option<ResourceName>,
        limit: usize,
    ) -> Result<Vec<FoundResource<TopicConfig>>, NotDone> {
        let topics = node.settings.topics(after, limit).await?;
        Ok(topics.into_iter().map(|(info, _)| info.into()).collect())
    }

    async fn put(node: &Node, name: &str, config: TopicConfig, expect: Expect) -> Result<Written, NotDone> {
        node.settings.put_topic(name, config, expect).await
    }
}

/// `/v1/groups`.
pub(crate) struct GroupResources;

impl From<GroupInfo> for FoundResource<GroupConfig> {
    fn from(info: GroupInfo) -> Self {
        Self { name: info.name, config: info.config, revision: info.revision }
    }
}

impl Resource for GroupResources {
    const WHAT: &'static str = "group";
    const TOLD: &'static [&'static str] = &["binding"];
    type Config = GroupConfig;

    fn missing(name: ResourceName) -> Refusal {
        Refusal::GroupNotFound(name)
    }

    fn check(name: &ResourceName) -> Result<(), NameError> {
        name.check_group()
    }

    async fn find(node: &Node, name: &ResourceName) -> Result<Option<FoundResource<GroupConfig>>, NotDone> {
        Ok(node.settings.group(name).await?.map(Into::into))
    }

    async fn told(node: &Node, name: &ResourceName) -> Result<Map<String, Value>, NotDone> {
        groups::told(node, name).await
    }

    async fn page(
        node: &Node,
        after: Option<ResourceName>,
        limit: usize,
    ) -> Result<Vec<FoundResource<GroupConfig>>, NotDone> {
        Ok(node.settings.groups(after, limit).await?.into_iter().map(Into::into).collect())
    }

    async fn put(node: &Node, name: &str, config: GroupConfig, expect: Expect) -> Result<Written, NotDone> {
        node.settings.put_group(name, config, expect).await
    }
}

/// A name in a path, as lists show it.
fn named<R: Resource>(text: &str) -> Result<ResourceName, Refusal> {
    let name = ResourceName::parse(text);
    R::check(&name)?;
    Ok(name)
}

/// The settings as JSON, all of them, those at their defaults too.
fn settings(config: &impl Serialize) -> Result<Map<String, Value>, NothingStored> {
    match serde_json::to_value(config) {
        Ok(Value::Object(settings)) => Ok(settings),
        other => Err(NothingStored::Internal(format!("settings became {other:?} and not a JSON object"))),
    }
}

/// The settings with their name.
fn shown(name: &ResourceName, config: &impl Serialize) -> Result<Map<String, Value>, NothingStored> {
    let mut document = settings(config)?;
    document.insert("name".to_owned(), name.to_string().into());
    Ok(document)
}

/// `GET /v1/topics`, `GET /v1/groups`.
pub(crate) async fn list<R: Resource>(State(app): State<Arc<App>>, params: Params) -> Result<Response, Problem> {
    let page = params.page()?;
    let after = page.after.as_deref().map(ResourceName::parse);
    let found = R::page(&app.node, after, page.limit).await?;
    let next = match found.last() {
        Some(last) if found.len() == page.limit => {
            let more = R::page(&app.node, Some(last.name.clone()), 1).await?;
            (!more.is_empty()).then(|| last.name.to_string())
        }
        _ => None,
    };
    let items = found.iter().map(|found| shown(&found.name, &found.config)).collect::<Result<Vec<_>, _>>()?;
    Ok(answer::list(items, next))
}

/// `GET /v1/topics/{topic}`, `GET /v1/groups/{group}`.
pub(crate) async fn show<R: Resource>(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
) -> Result<Response, Problem> {
    let name = named::<R>(&name)?;
    let found = R::find(&app.node, &name).await?.ok_or_else(|| R::missing(name))?;
    let mut document = shown(&found.name, &found.config)?;
    document.extend(R::told(&app.node, &found.name).await?);
    Ok((etag(found.revision), Json(document)).into_response())
}

/// `PUT`: replaces the settings; absent ones take their defaults.
///
/// # Errors
/// The document is wrong, the settings contradict each other or what is there, or a precondition does not hold; nothing
/// is changed then.
pub(crate) async fn replace<R: Resource>(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut body = object(&body)?;
    take_name(&mut body, &name)?;
    R::TOLD.iter().for_each(|told| drop(body.remove(*told)));
    let config: R::Config = document(body)?;
    let demands = Preconditions::of(&headers)?;
    let expect = if demands.is_empty() {
        Expect::Anything
    } else {
        let current = R::find(&app.node, &named::<R>(&name)?).await?;
        demands.expect(&what::<R>(&name), current.map(|found| found.revision))?
    };
    let done = R::put(&app.node, &name, config.clone(), expect).await?;
    put_answer::<R>(&name, &config, done)
}

/// As sentences name it.
fn what<R: Resource>(name: &str) -> String {
    format!("{} {name}", R::WHAT)
}

/// What is there now, 201 if it was not there before.
fn put_answer<R: Resource>(name: &str, config: &R::Config, done: Written) -> Result<Response, Problem> {
    let shown = shown(&ResourceName::parse(name), config)?;
    Ok((written(done.created), etag(done.revision), Json(shown)).into_response())
}

/// `PATCH`: changes the settings that are named (RFC 7396); `null` sets one back to its default.
///
/// # Errors
/// As [`replace`]; or others changed it again and again meanwhile.
pub(crate) async fn change<R: Resource>(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut changes = object(&body)?;
    take_name(&mut changes, &name)?;
    R::TOLD.iter().for_each(|told| drop(changes.remove(*told)));
    let demands = Preconditions::of(&headers)?;
    let tries = if demands.is_empty() { CHANGE_TRIES } else { 1 };
    let resource = named::<R>(&name)?;
    for _ in 0..tries {
        let current = R::find(&app.node, &resource).await?;
        let current = current.ok_or_else(|| R::missing(resource.clone()))?;
        demands.expect(&what::<R>(&name), Some(current.revision))?;
        let mut merged = settings(&current.config)?;
        merge(&mut merged, changes.clone());
        let config: R::Config = document(merged)?;
        let expect = Expect::Revision(current.revision);
        match R::put(&app.node, &name, config.clone(), expect).await {
            Err(NotDone::Refused(Refusal::PreconditionFailed(_))) => {}
            done => return put_answer::<R>(&name, &config, done?),
        }
    }
    let what = what::<R>(&name);
    Err(Refusal::PreconditionFailed(format!("{what} was changed by somebody else meanwhile; try again")).into())
}

/// RFC 7396 on objects: members replace, `null` removes, objects merge.
fn merge(document: &mut Map<String, Value>, changes: Map<String, Value>) {
    for (name, change) in changes {
        match (document.get_mut(&name), change) {
            (_, Value::Null) => drop(document.remove(&name)),
            (Some(Value::Object(inner)), Value::Object(change)) => merge(inner, change),
            (_, Value::Object(change)) => {
                let mut inner = Map::new();
                merge(&mut inner, change);
                document.insert(name, inner.into());
            }
            (_, change) => drop(document.insert(name, change)),
        }
    }
}

/// `DELETE /v1/topics/{topic}`; `?force=true` also with what is in it, and `by` and `reason` go on record.
///
/// # Errors
/// It holds open transactions or messages that a group has not finished, or a binding names it, and nobody forces it.
pub(crate) async fn remove_topic(
    State(app): State<Arc<App>>,
    PathNames(name): PathNames<String>,
    params: Params,
) -> Result<Response, Problem> {
    let force = params.switch("force")?;
    let on_record = |name, max| {
        let read = params.read(name, |text| match text {
            _ if !force => Err("it goes on record with what is forced: give it with force=true".to_owned()),
            long if long.len() > max => Err(format!("it may have at most {max} bytes")),
            text => Ok(text.to_owned()),
        });
        read.map(Option::unwrap_or_default)
    };
    let (by, reason) = (on_record("by", BY_MAX_BYTES)?, on_record("reason", REASON_MAX_BYTES)?);
    let warnings = match force {
        true => app.node.settings.delete_topic_by_force(&name, by, reason).await?,
        false => app.node.settings.delete_topic(&name, false).await.map(|()| Vec::new())?,
    };
    Ok(match warnings.as_slice() {
        [] => StatusCode::NO_CONTENT.into_response(),
        _ => Json(json!({"warnings": warnings})).into_response(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_merges_as_rfc_7396_says() {
        let merged = |document: Value, changes: Value| {
            let (Value::Object(mut document), Value::Object(changes)) = (document, changes) else { panic!("objects") };
            merge(&mut document, changes);
            Value::Object(document)
        };
        let before = json!({"a": 1, "b": {"c": 2, "d": 3}, "e": [1, 2]});
        assert_eq!(merged(before.clone(), json!({})), before);
        assert_eq!(
            merged(before, json!({"a": null, "b": {"c": 4}, "e": [5], "f": {"g": null, "h": 6}})),
            json!({"b": {"c": 4, "d": 3}, "e": [5], "f": {"h": 6}})
        );
    }
}
