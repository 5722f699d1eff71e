//! A binding as users write it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use vouch_broker::record::KeepGrant;
use vouch_broker::state::check_secret_name;
use vouch_broker::{NotDone, Refusal, ResourceName, TagFilter};
use vouch_plugin::{
    BindingSpec, DatabasePassword, Grants, Limits, MASK, mask_document, mask_urls, masked_member, named_secret,
};

use crate::secrets::OpenedSecrets;
use vouch_protocol::validate;
use vouch_protocol::wire::{FilterExpression, FilterType};

/// Most groups of one binding, and most topics that they receive: each group on each topic is a receive that waits.
const GROUPS_MAX: usize = 16;
const SUBSCRIPTIONS_MAX: usize = 64;

/// A binding as users write it (`PUT /v1/bindings/{name}`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BindingDocument {
    pub(super) plugin: String,
    #[serde(default)]
    pub(super) topics: Vec<String>,
    #[serde(default)]
    pub(super) groups: Vec<String>,
    /// What the groups receive: topics, each with a filter.
    #[serde(default)]
    subscriptions: BTreeMap<String, String>,
    /// Where the groups begin on topics that they did not receive from before.
    #[serde(default)]
    pub(super) start: BoundStart,
    #[serde(default)]
    grants: Grants,
    #[serde(default)]
    config: BTreeMap<String, serde_json::Value>,
    #[serde(default = "yes")]
    body: bool,
    #[serde(default)]
    pub(super) fallback: Fallback,
    #[serde(default)]
    limits: Limits,
    /// It is not tried before it stands.
    #[serde(default)]
    pub(super) unchecked: bool,
}

/// Where a group begins on a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum BoundStart {
    /// Where the group's settings say: with the first message that is there, unless somebody set them otherwise.
    #[default]
    Beginning,
    /// With the first message that is sent from then on.
    End,
}

/// Components get the body unless their binding says otherwise.
fn yes() -> bool {
    true
}

/// Who is asked when the component gives no answer (ruling 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Fallback {
    #[default]
    None,
    Producer,
}

impl BindingDocument {
    /// Reads a binding. What it says is checked as far as that needs no component: its topics, and that all of it is
    /// known.
    ///
    /// # Errors
    /// [`Refusal::Invalid`], without secrets; [`Refusal::NotBuilt`] for what is to come.
    pub(super) fn parse(spec: &str) -> Result<Self, NotDone> {
        let document: Self = serde_json::from_str(spec).map_err(|error| {
            let error = without_values(&error.to_string());
            NotDone::Refused(Refusal::Invalid(format!("the binding cannot be read: {}", mask_urls(&error))))
        })?;
        if document.topics.is_empty() && document.groups.is_empty() {
            return invalid(
                "the binding names neither a topic nor a group; list in \"topics\" whose transactions it answers for, or in \"groups\" \
                 for whom it consumes",
            );
        }
        for topic in &document.topics {
            ResourceName::parse(topic).check_topic()?;
        }
        document.check_groups()?;
        for secret in document.secrets() {
            check_secret_name(&secret)?;
        }
        Ok(document)
    }

    /// Groups consume something, and nothing is subscribed to for nobody.
    fn check_groups(&self) -> Result<(), NotDone> {
        for group in &self.groups {
            ResourceName::parse(group).check_group()?;
        }
        let distinct: BTreeSet<ResourceName> = self.groups.iter().map(|group| ResourceName::parse(group)).collect();
        if distinct.len() < self.groups.len() {
            return invalid("the binding names a group twice; name it once");
        }
        if self.groups.len() > GROUPS_MAX || self.subscriptions.len() > SUBSCRIPTIONS_MAX {
            return invalid(
                "the binding has more than 16 groups, or more than 64 subscriptions; make several bindings of it",
            );
        }
        self.subscribed()?;
        match (self.groups.is_empty(), self.subscriptions.is_empty()) {
            (false, true) => invalid(
                "the binding consumes for a group and says not what; add \"subscriptions\": {\"TOPIC\": \"*\"}, or a filter in the \
                 place of the asterisk",
            ),
            (true, false) => {
                invalid("the binding has subscriptions and no group that they are for; list one in \"groups\"")
            }
            _ if self.groups.is_empty() && self.start == BoundStart::End => {
                invalid("\"start\" says where a group begins, and the binding has none; leave it out")
            }
            _ => Ok(()),
        }
    }

    /// Topics that its groups receive, each with what they want of it.
    pub(super) fn subscribed(&self) -> Result<Vec<(ResourceName, TagFilter)>, NotDone> {
        let each = self.subscriptions.iter().map(|(topic, filter)| {
            let name = ResourceName::parse(topic);
            name.check_topic()?;
            let expression = FilterExpression { r#type: FilterType::Tag.into(), expression: filter.clone() };
            let filter = validate::tag_filter(Some(&expression)).map_err(|violation| {
                NotDone::Refused(Refusal::Invalid(format!("subscriptions.{topic}: {violation}")))
            })?;
            Ok((name, filter))
        });
        each.collect()
    }

    /// Where it may keep something, and how much.
    pub(super) fn keeps(&self, name: &str) -> Option<KeepGrant> {
        let namespace = self.grants.namespace(name)?;
        Some(KeepGrant { namespace, quota: self.limits.state.0 })
    }

    /// Topics that it may publish to.
    pub(super) fn publishes(&self) -> impl Iterator<Item = ResourceName> + '_ {
        self.grants.publish.iter().map(|topic| ResourceName::parse(topic))
    }

    /// The secrets that it names, each once.
    pub(super) fn secrets(&self) -> BTreeSet<String> {
        let in_config = self.config.values().filter_map(named_secret);
        let passwords = self.grants.sql.values().filter_map(|grant| grant.secret());
        in_config.chain(passwords).map(str::to_owned).collect()
    }

    /// Properties of a message that values of the config name in braces, `{property.NAME}`, as templates of ready-made components do.
    pub(super) fn properties_named(&self) -> BTreeSet<String> {
        let texts = self.config.values().filter_map(serde_json::Value::as_str);
        let named = texts.flat_map(|text| text.split("{property.").skip(1));
        named.filter_map(|rest| Some(rest.split_once('}')?.0.to_owned())).collect()
    }

    /// What the component is bound with; `opened` are the secrets that it names.
    pub(super) fn spec(&self, name: &str, opened: &OpenedSecrets) -> Result<BindingSpec, NotDone> {
        let text = |(key, value): (&String, &serde_json::Value)| match (value, named_secret(value)) {
            (serde_json::Value::String(text), _) => Ok((key.clone(), text.clone())),
            (_, Some(secret)) => Ok((key.clone(), opened.text(secret)?.to_owned())),
            (other, None) => {
                let shown = shown_entry(key, other);
                Err(NotDone::Refused(Refusal::Invalid(format!(
                    "config.{key} is {shown}; it must be a text in quotes, or name a secret: {{\"secret\": \"NAME\"}}"
                ))))
            }
        };
        let passwords = self.grants.sql.iter().filter_map(|(database, grant)| Some((database, grant.secret()?)));
        let password = |(database, secret): (&String, &str)| {
            opened.text(secret).map(|text| (database.clone(), DatabasePassword::new(text)))
        };
        Ok(BindingSpec {
            name: name.to_owned(),
            grants: self.grants.clone(),
            limits: self.limits.clone(),
            config: self.config.iter().map(text).collect::<Result<_, _>>()?,
            body: self.body,
            passwords: passwords.map(password).collect::<Result<_, _>>()?,
            hidden: opened.texts().map(str::to_owned).collect(),
        })
    }
}

/// Refuses the document for this.
fn invalid<T>(why: &str) -> Result<T, NotDone> {
    Err(NotDone::Refused(Refusal::Invalid(why.to_owned())))
}

/// What the groups of a binding receive, by its document.
///
/// # Errors
/// The document cannot be read.
pub(crate) fn subscriptions_of(spec: &str) -> Result<Vec<(ResourceName, TagFilter)>, NotDone> {
    BindingDocument::parse(spec)?.subscribed()
}

/// What a binding that consumes may use, by its document.
///
/// # Errors
/// The document cannot be read.
pub(crate) fn consumer_limits(spec: &str) -> Result<Limits, NotDone> {
    Ok(BindingDocument::parse(spec)?.limits)
}

/// The limits that hold for a binding whose document has these `limits`: those that it sets, and the defaults of the others.
/// What cannot be read, since another version wrote it, is left as it is.
pub fn limits_in_force(limits: &serde_json::Value) -> serde_json::Value {
    let read = serde_json::from_value::<Limits>(limits.clone());
    read.ok().and_then(|limits| serde_json::to_value(limits).ok()).unwrap_or_else(|| limits.clone())
}

/// What the reader says, without the text or the number that it found: that may be a password in the wrong place.
fn without_values(error: &str) -> String {
    let mut told = error.to_owned();
    for (begin, end) in
        [("string \"", "\", expected"), ("integer `", "`, expected"), ("floating point `", "`, expected")]
    {
        if let Some(from) = told.find(begin).map(|at| at + begin.len())
            && let Some(to) = told[from..].rfind(end).map(|at| from + at)
        {
            told.replace_range(from..to, MASK);
        }
    }
    told
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
pub(super) fn refuse_masked(spec: &str) -> Result<(), NotDone> {
    let masked = serde_json::from_str(spec).ok().and_then(|document| masked_member(&document));
    masked.map_or(Ok(()), |member| {
        Err(NotDone::Refused(Refusal::Invalid(format!(
            "{member} has {MASK}, which is shown in place of a secret and is not the secret: write the value itself"
        ))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(document: &serde_json::Value, secrets: &[(&str, &[u8])]) -> Result<BindingSpec, NotDone> {
        let opened = OpenedSecrets::of(secrets.iter().map(|(name, value)| (*name, value.to_vec())));
        BindingDocument::parse(&document.to_string()).and_then(|document| document.spec("b", &opened))
    }

    #[test]
    fn the_component_gets_the_values_of_the_secrets_that_its_binding_names_and_the_databases_their_passwords() {
        let grants = serde_json::json!({"sql": {
            "shop": {"url": "postgres://vouch@127.0.0.1/shop", "fence": "vouch_fence"},
            "more": {"url": "mysql://vouch@db/more", "password": {"secret": "more-db"}},
        }});
        let config = serde_json::json!({"region": "eu", "authorization": {"secret": "api"}});
        let document = serde_json::json!({"plugin": "p:1", "topics": ["t"], "grants": grants, "config": config});
        let parsed = BindingDocument::parse(&document.to_string()).unwrap();
        assert_eq!(parsed.secrets(), ["api", "more-db"].map(str::to_owned).into());
        let secrets: [(&str, &[u8]); 2] = [("api", b"Bearer x"), ("more-db", b"pa55")];
        let bound = spec(&document, &secrets).unwrap();
        assert_eq!(bound.config["authorization"], "Bearer x");
        assert_eq!(bound.passwords, [("more".to_owned(), DatabasePassword::new("pa55"))].into());
        assert_eq!(bound.hidden, ["Bearer x", "pa55"].map(str::to_owned).into_iter().collect());
        let refused = spec(&document, &[("api", b"x"), ("more-db", b"\xff")]).err().unwrap().to_string();
        assert!(refused.contains("secret more-db is no text"), "{refused}");
    }

    #[test]
    fn what_names_no_secret_and_what_is_unknown_in_a_grant_is_refused() {
        let with = |grant: serde_json::Value| {
            let grants = serde_json::json!({"sql": {"shop": grant}});
            spec(&serde_json::json!({"plugin": "p:1", "topics": ["t"], "grants": grants}), &[])
                .err()
                .unwrap()
                .to_string()
        };
        let unknown = with(serde_json::json!({"url": "postgres://vouch@db/shop", "passwort": "x"}));
        assert!(unknown.contains("the binding cannot be read"), "{unknown}");
        for value in [serde_json::json!("S3cr3t"), serde_json::json!(12345), serde_json::json!({"secret": 1})] {
            let written = with(serde_json::json!({"url": "postgres://vouch@db/shop", "password": value}));
            assert!(
                written.contains("names a secret") && !written.contains("S3cr3t") && !written.contains("12345"),
                "{written}"
            );
            let elsewhere = with(serde_json::json!({"url": "postgres://vouch@db/shop", "write": value}));
            assert!(!elsewhere.contains("S3cr3t") && !elsewhere.contains("12345"), "{elsewhere}");
        }
        let no_name = with(serde_json::json!({"url": "postgres://vouch@db/shop", "password": {"secret": "pa55 word"}}));
        assert!(no_name.contains("no name of a secret") && !no_name.contains("pa55"), "{no_name}");
    }

    #[test]
    fn an_entry_that_is_no_text_is_refused_without_its_secrets() {
        let refusal = |config: serde_json::Value| {
            let document = serde_json::json!({"plugin": "p:1", "topics": ["t"], "config": config}).to_string();
            BindingDocument::parse(&document).unwrap().spec("b", &OpenedSecrets::default()).err().unwrap().to_string()
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

    /// What a binding is refused with that consumes, where this stands in it besides.
    fn refused(more: serde_json::Value) -> String {
        let mut document = serde_json::json!({"plugin": "p:1", "groups": ["g"], "subscriptions": {"t": "*"}});
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        BindingDocument::parse(&document.to_string()).err().map(|why| why.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_binding_that_consumes_says_for_whom_and_what_and_each_once() {
        assert_eq!(refused(serde_json::json!({})), "");
        assert_eq!(refused(serde_json::json!({"start": "end", "topics": ["t"]})), "");
        for (more, why) in [
            (serde_json::json!({"groups": []}), "neither a topic nor a group"),
            (serde_json::json!({"groups": [], "topics": ["t"]}), "no group that they are for"),
            (serde_json::json!({"subscriptions": {}}), "says not what"),
            (serde_json::json!({"groups": ["g", "g"]}), "a group twice"),
            (serde_json::json!({"groups": ["n/g", "g", "n/g"]}), "a group twice"),
            (serde_json::json!({"groups": ["no group"]}), "the group name contains"),
            (serde_json::json!({"subscriptions": {"no topic": "*"}}), "the topic name contains"),
            (serde_json::json!({"subscriptions": {"t": "||"}}), "subscriptions.t: "),
            (serde_json::json!({"subscriptions": {"t": 7}}), "cannot be read"),
            (serde_json::json!({"groups": [], "subscriptions": {}, "topics": ["t"], "start": "end"}), "has none"),
            (serde_json::json!({"start": "middle"}), "cannot be read"),
            (serde_json::json!({"limits": {"rat": 1}}), "cannot be read"),
            (serde_json::json!({"subscription": {"t": "*"}}), "cannot be read"),
        ] {
            let said = refused(more.clone());
            assert!(said.contains(why), "{more}: {said}");
        }
    }

    #[test]
    fn groups_and_subscriptions_of_a_binding_are_bounded() {
        let groups = |count: usize| (0..count).map(|n| format!("g{n}")).collect::<Vec<_>>();
        let subscriptions =
            |count: usize| (0..count).map(|n| (format!("t{n}"), "*".into())).collect::<serde_json::Map<_, _>>();
        let most = serde_json::json!({"groups": groups(GROUPS_MAX), "subscriptions": subscriptions(SUBSCRIPTIONS_MAX)});
        assert_eq!(refused(most), "");
        let more_groups = refused(serde_json::json!({"groups": groups(GROUPS_MAX + 1)}));
        assert!(more_groups.contains("more than 16 groups"), "{more_groups}");
        let more = refused(serde_json::json!({"subscriptions": subscriptions(SUBSCRIPTIONS_MAX + 1)}));
        assert!(more.contains("more than 64 subscriptions"), "{more}");
    }

    #[test]
    fn what_a_binding_subscribes_to_keeps_and_publishes_is_read_from_it() {
        let document = serde_json::json!({
            "plugin": "p:1", "groups": ["g"], "subscriptions": {"n/t": "a || b", "t": "*"},
            "grants": {"state": true, "publish": ["audit", "n/audit"]}, "limits": {"state": "2MiB", "concurrency": 3, "rate": 7},
        })
        .to_string();
        let of = |namespace: &str, name: &str| {
            if namespace.is_empty() {
                ResourceName::plain(name)
            } else {
                ResourceName::parse(&format!("{namespace}/{name}"))
            }
        };
        let subscribed = [(of("n", "t"), TagFilter::tags(["a", "b"])), (of("", "t"), TagFilter::All)];
        assert_eq!(subscriptions_of(&document).unwrap(), subscribed);
        let limits = consumer_limits(&document).unwrap();
        assert_eq!((limits.concurrency, limits.rate, limits.effects_rate.0), (3, Some(7), 16 << 20));
        let read = BindingDocument::parse(&document).unwrap();
        assert_eq!(read.publishes().collect::<Vec<_>>(), [of("", "audit"), of("n", "audit")]);
        let keeps = read.keeps("b").unwrap();
        assert_eq!((keeps.namespace.as_str(), keeps.quota), ("b", 2 << 20), "its own name, where none is named");
        let nothing = BindingDocument::parse(r#"{"plugin":"p:1","topics":["t"]}"#).unwrap();
        assert!(nothing.keeps("b").is_none() && nothing.publishes().next().is_none());
        assert!(subscriptions_of("{").is_err() && consumer_limits("{").is_err());
    }
}
