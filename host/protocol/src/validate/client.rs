//! Who calls: the client id, Heartbeat and the Settings of a telemetry stream (§3.3, §4.2, §4.12.1).

use std::time::Duration;

use vouch_broker::{Refusal, ResourceName, TagFilter};

use super::{CallNames, Violation, consume, is_blank, refuse};
use crate::convert::duration;
use crate::limits;
use crate::reserved::BINDING_CLIENT_PREFIX;
use crate::wire::{self, ClientType, Code, Language, settings::PubSub};

/// Checks the header `x-mq-client-id`.
pub fn client_id(header: Option<&str>) -> Result<&str, Violation> {
    match header {
        None => refuse(Code::ClientIdRequired, "the header x-mq-client-id is missing; every call must carry it"),
        Some(id) if is_blank(id) => {
            refuse(Code::ClientIdRequired, "the header x-mq-client-id is blank; every call must carry it")
        }
        Some(id) if id.len() > limits::CLIENT_ID_MAX_BYTES => {
            let max = limits::CLIENT_ID_MAX_BYTES;
            refuse(Code::RequestHeaderFieldsTooLarge, format!("the header x-mq-client-id has at most {max} bytes"))
        }
        Some(id) if id.starts_with(BINDING_CLIENT_PREFIX) => {
            let text =
                format!("client ids that begin with {BINDING_CLIENT_PREFIX} are the broker's own; choose another");
            refuse(Code::BadRequest, text)
        }
        Some(id) => Ok(id),
    }
}

/// What a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientRole {
    /// Sends.
    Producer,
    /// Receives in a loop; the server renews its leases.
    PushConsumer,
    /// Receives when the application asks.
    SimpleConsumer,
}

impl ClientRole {
    fn of(number: i32) -> Result<Option<Self>, Violation> {
        match ClientType::try_from(number) {
            Ok(ClientType::Unspecified) => Ok(None),
            Ok(ClientType::Producer) => Ok(Some(Self::Producer)),
            Ok(ClientType::PushConsumer) => Ok(Some(Self::PushConsumer)),
            Ok(ClientType::SimpleConsumer) => Ok(Some(Self::SimpleConsumer)),
            Ok(ClientType::LitePushConsumer | ClientType::LiteSimpleConsumer) => {
                Err(Refusal::NotBuilt("a consumer of lite topics").into())
            }
            Ok(ClientType::PullConsumer) => Err(Refusal::NotBuilt("a pull consumer").into()),
            Err(_) => refuse(Code::UnrecognizedClientType, format!("client type {number} is unknown")),
        }
    }
}

/// What a client declared about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredClient {
    /// Producer or consumer.
    pub role: ClientRole,
    /// Implementation language, as the client's software declares it.
    pub language: Language,
    /// Topics that a producer sends to: it may be asked about half messages in them.
    pub topics: Vec<ResourceName>,
    /// Group of a consumer.
    pub group: Option<ResourceName>,
    /// Subscriptions of a consumer; the filter of each receive rules.
    pub subscriptions: Vec<(ResourceName, TagFilter)>,
    /// The client's own time-out of a call.
    pub request_timeout: Option<Duration>,
}

/// Checks the Settings of a client.
pub fn settings(settings: &wire::Settings, names: CallNames<'_>) -> Result<DeclaredClient, Violation> {
    check_client_properties(settings)?;
    let role = ClientRole::of(settings.client_type.unwrap_or_default())?;
    let agent = settings.user_agent.as_ref();
    let mut declared = DeclaredClient {
        role: ClientRole::Producer,
        language: agent.map_or(Language::Unspecified, wire::Ua::language),
        topics: Vec::new(),
        group: None,
        subscriptions: Vec::new(),
        request_timeout: settings.request_timeout.as_ref().and_then(duration),
    };
    match &settings.pub_sub {
        Some(PubSub::Publishing(publishing)) => {
            if !matches!(role, None | Some(ClientRole::Producer)) {
                return refuse(Code::UnrecognizedClientType, "publishing settings need the client type PRODUCER");
            }
            bounded("topics", publishing.topics.len())?;
            declared.topics =
                publishing.topics.iter().map(|topic| names.topic(Some(topic.clone()))).collect::<Result<_, _>>()?;
        }
        Some(PubSub::Subscription(subscription)) => {
            declared.role = match role {
                Some(ClientRole::Producer) => {
                    return refuse(Code::UnrecognizedClientType, "a PRODUCER needs publishing settings");
                }
                role => role.unwrap_or(ClientRole::SimpleConsumer),
            };
            declared.group = Some(names.group(subscription.group.clone())?);
            bounded("subscriptions", subscription.subscriptions.len())?;
            for entry in &subscription.subscriptions {
                let topic = names.topic(entry.topic.clone())?;
                declared.subscriptions.push((topic, consume::tag_filter(entry.expression.as_ref())?));
            }
        }
        None => {
            let text = "the settings have neither publishing nor subscription; a client is a producer or a consumer";
            return refuse(Code::BadRequest, text);
        }
    }
    Ok(declared)
}

/// Refuses a list that is longer than what a client may bring.
fn bounded(what: &str, count: usize) -> Result<(), Violation> {
    let max = limits::DECLARED_TOPICS_MAX;
    if count <= max {
        return Ok(());
    }
    refuse(Code::BadRequest, format!("the settings declare {count} {what}; at most {max} are allowed"))
}

fn check_client_properties(settings: &wire::Settings) -> Result<(), Violation> {
    let properties = &settings.client_properties;
    let bad = |text: String| refuse(Code::InvalidClientProperties, text);
    if properties.len() > limits::CLIENT_PROPERTIES_MAX {
        let (count, max) = (properties.len(), limits::CLIENT_PROPERTIES_MAX);
        return bad(format!("client_properties has {count} pairs; at most {max} are allowed"));
    }
    for (name, value) in properties {
        let mut chars = name.chars();
        let legal = chars.next().is_some_and(|first| first.is_ascii_alphabetic())
            && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if !legal || name.len() > limits::CLIENT_PROPERTY_NAME_MAX_CHARS || name.starts_with("rocketmq.") {
            return bad(
                "a name in client_properties begins with a letter, has at most 64 letters, digits, '_', '.' or \
                        '-', and does not begin with 'rocketmq.'"
                    .into(),
            );
        }
        if value.chars().count() > limits::CLIENT_PROPERTY_VALUE_MAX_CHARS {
            let max = limits::CLIENT_PROPERTY_VALUE_MAX_CHARS;
            return bad(format!("the value of {name} in client_properties has more than {max} characters"));
        }
    }
    let bytes = map_encoded_len(properties);
    if bytes > limits::CLIENT_PROPERTIES_MAX_BYTES {
        let max = limits::CLIENT_PROPERTIES_MAX_BYTES;
        return bad(format!("client_properties has {bytes} bytes; at most {max} are allowed"));
    }
    Ok(())
}

/// Bytes of the map as it stands in the message.
fn map_encoded_len(properties: &std::collections::BTreeMap<String, String>) -> usize {
    use prost::Message as _;
    wire::Settings { client_properties: properties.clone(), ..Default::default() }.encoded_len()
}

/// Checks a Heartbeat: its role, and the group of a consumer. A session can be built from it (§4.2).
pub fn heartbeat(
    request: wire::HeartbeatRequest,
    names: CallNames<'_>,
) -> Result<(ClientRole, Option<ResourceName>), Violation> {
    let role = match ClientRole::of(request.client_type)? {
        Some(role) => role,
        None if request.group.is_some() => ClientRole::SimpleConsumer,
        None => ClientRole::Producer,
    };
    let group = match role {
        ClientRole::Producer => None,
        ClientRole::PushConsumer | ClientRole::SimpleConsumer => Some(names.group(request.group)?),
    };
    Ok((role, group))
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
