//! What a component says of its config: the names that it reads, and what their values have to be.
//!
//! A component may carry a custom section [`SECTION`], in itself or in one of its core modules, that holds a list as JSON:
//!
//! ```json
//! [{"name": "url", "type": "request-url", "required": true}, {"name": "commit", "needs": ["url"]}]
//! ```
//!
//! A binding whose config does not fit is refused when it is set. Of a component without the section nothing is known, and
//! nothing is refused. What a later version has come to know besides, types and members of an entry, checks nothing here and
//! is kept as it was written, so that a component of tomorrow runs today, and is checked by the version that knows them
//! without being compiled again.

mod values;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::grants::HttpGrant;

/// The name of the section.
pub(crate) const SECTION: &str = "vouch:config";
/// Most bytes of the section.
pub(crate) const MAX_SECTION: usize = 64 << 10;
/// Most settings of one component.
pub(crate) const MAX_SETTINGS: usize = 128;
/// Bytes of a name at most, as in a binding.
const MAX_NAME: usize = 255;
/// Most settings, values or variables in one list.
const MAX_LIST: usize = 128;
/// Most entries of `when` of one setting: each goes through its value.
pub(crate) const MAX_CASES: usize = 16;

/// What a value has to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SettingType {
    /// Any text.
    #[default]
    Text,
    /// A whole number and `ms`, `s`, `m`, `h` or `d`: `500ms`, `10m`.
    Duration,
    /// `http://` or `https://`, a host, and whatever follows it.
    Url,
    /// A URL that the component sends requests to as it stands: one that can be sent, of an origin that the binding grants.
    RequestUrl,
    /// A JSON pointer (RFC 6901).
    JsonPointer,
    /// Values between commas; blanks around them and empty ones do not count.
    List,
    /// A list of status codes with which a service can answer for a thing.
    StatusList,
    /// The value of a header: something, without line ends and other control characters.
    Header,
    /// A type of a later version: any text.
    #[serde(untagged)]
    Other(String),
}

impl SettingType {
    /// Whether its value is several values.
    fn is_list(&self) -> bool {
        matches!(self, Self::List | Self::StatusList)
    }

    fn is_text(&self) -> bool {
        *self == Self::Text
    }
}

/// One entry of a component's config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Setting {
    /// Its name in the binding's config.
    pub name: String,
    /// What its value has to be.
    #[serde(default, rename = "type")]
    pub kind: SettingType,
    /// The component does nothing without it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub required: bool,
    /// The values that it, or each value of a list, may have; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// Others without which it has no meaning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// What the component fills in where it stands in braces; `property.*` stands for each name that begins so. Without it
    /// braces mean nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<Vec<String>>,
    /// Others that have no value in common with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apart_from: Vec<String>,
    /// What holds besides, depending on others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Case>,
    /// What this version does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// What a value has to be besides while some settings are set and others are not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Settings that are all set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
    /// Settings that are all absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unset: Vec<String>,
    /// What the value has to be then.
    #[serde(default, rename = "type", skip_serializing_if = "SettingType::is_text")]
    pub kind: SettingType,
    /// Values that it must not have then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<String>,
    /// What this version does not know. It may be one more condition, so the case as a whole says nothing then.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Left out of what is written.
fn is_false(flag: &bool) -> bool {
    !flag
}

/// All that a component reads of its config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeclaredConfig(Vec<Setting>);

impl DeclaredConfig {
    /// Reads the section.
    ///
    /// # Errors
    /// A sentence for the author of the component.
    pub(crate) fn parse(section: &[u8]) -> Result<Self, String> {
        let of = |what: &dyn std::fmt::Display| format!("its section {SECTION} {what}");
        if section.len() > MAX_SECTION {
            return Err(of(&format_args!("has {} bytes, over the limit of {MAX_SECTION}", section.len())));
        }
        let settings: Vec<Setting> =
            serde_json::from_slice(section).map_err(|error| of(&format_args!("cannot be read: {error}")))?;
        if settings.len() > MAX_SETTINGS {
            return Err(of(&format_args!("lists {} settings, over the limit of {MAX_SETTINGS}", settings.len())));
        }
        let declared = Self(settings);
        for (at, setting) in declared.0.iter().enumerate() {
            let name = &setting.name;
            if name.is_empty() || declared.0[..at].iter().any(|before| before.name == *name) {
                return Err(of(&format_args!("lists `{name}`, which is no name or is there twice")));
            }
            // Each of them is gone through for each value, by whoever sets a binding.
            let mut names = std::iter::once(name).chain(setting.others().map(|(_, other)| other));
            if names.any(|name| name.len() > MAX_NAME) {
                return Err(of(&format_args!("has a name of more than {MAX_NAME} bytes")));
            }
            let Setting { needs, apart_from, variables, values, .. } = setting;
            let longest = [needs, apart_from, values].into_iter().chain(variables).map(Vec::len).max();
            if longest.is_some_and(|longest| longest > MAX_LIST) {
                return Err(of(&format_args!("has a list of more than {MAX_LIST} entries for `{name}`")));
            }
            let cases = setting.when.len();
            if cases > MAX_CASES {
                return Err(of(&format_args!("has {cases} cases for `{name}`, over the limit of {MAX_CASES}")));
            }
            if let Some((how, unknown)) = setting.others().find(|(_, other)| declared.named(other).is_none()) {
                return Err(of(&format_args!("says that `{name}` {how} `{unknown}`, which it does not list")));
            }
        }
        Ok(declared)
    }

    /// The setting of this name.
    fn named(&self, name: &str) -> Option<&Setting> {
        self.0.iter().find(|setting| setting.name == name)
    }

    /// The settings, in the order in which the component lists them.
    pub fn settings(&self) -> &[Setting] {
        &self.0
    }

    /// What of it this version does not know and so does not check, in a sentence for each: a later version's, or misspelt.
    pub(crate) fn unknown_to_this_version(&self) -> Vec<String> {
        let said = |setting: &Setting| {
            let name = &setting.name;
            let kinds = std::iter::once(&setting.kind).chain(setting.when.iter().map(|case| &case.kind));
            let members = setting.other.keys().chain(setting.when.iter().flat_map(|case| case.other.keys()));
            let kinds = kinds.filter_map(|kind| match kind {
                SettingType::Other(other) => Some(format!("the type `{other}`")),
                _ => None,
            });
            let unknown: BTreeSet<String> = kinds.chain(members.map(|member| format!("`{member}`"))).collect();
            let tell = |what| {
                format!(
                    "its section {SECTION} says {what} of `{name}`, which this version does not know and does not check"
                )
            };
            unknown.into_iter().map(tell).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(said).collect()
    }

    /// Whether a config is one that the component can work with, given what it is granted.
    ///
    /// # Errors
    /// A sentence for whoever sets the binding. It tells no values of secrets.
    pub(crate) fn check(&self, config: &BTreeMap<String, String>, grants: &[HttpGrant]) -> Result<(), String> {
        if let Some(unknown) = config.keys().find(|name| self.named(name).is_none()) {
            return Err(self.unknown(unknown));
        }
        let given = |name: &String| {
            let named = config.get(name).zip(self.named(name));
            named.is_some_and(|(value, setting)| setting.parts(value).next().is_some())
        };
        for setting in &self.0 {
            let Setting { name, required, needs, .. } = setting;
            if *required && !given(name) {
                return Err(format!("config `{name}` is missing: the component can do nothing without it"));
            }
            if given(name)
                && let Some(missing) = needs.iter().find(|needed| !given(needed))
            {
                return Err(format!("config `{name}` means nothing without config `{missing}`: set that one as well"));
            }
            let Some(value) = config.get(name) else { continue };
            setting.check(value, grants)?;
            for case in setting.when.iter().filter(|case| case.holds(given)) {
                setting.check_case(case, value, grants)?;
            }
            for (other, theirs) in setting.apart_from.iter().filter_map(|other| config.get_key_value(other)) {
                setting.check_apart(
                    value,
                    self.named(other).into_iter().flat_map(|other| other.parts(theirs)),
                    other,
                )?;
            }
        }
        Ok(())
    }

    /// A sentence about a name that the component does not read, with the one that was probably meant.
    fn unknown(&self, name: &str) -> String {
        const ALIKE: f64 = 0.7;
        let alike = |setting: &&Setting| strsim::damerau_levenshtein(&setting.name, name);
        let nearest = self.0.iter().min_by_key(alike).filter(|setting| {
            // A swapped pair of letters in a short name is alike enough.
            strsim::jaro(&setting.name, name) >= ALIKE || strsim::damerau_levenshtein(&setting.name, name) == 1
        });
        let meant = nearest.map(|setting| format!("did you mean `{}`? ", setting.name)).unwrap_or_default();
        let names: Vec<&str> = self.0.iter().map(|setting| setting.name.as_str()).collect();
        format!("config `{name}` is nothing that the component reads; {meant}It reads {}", names.join(", "))
    }
}

impl Setting {
    /// The other settings that it speaks of, and how.
    fn others(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let cases = self.when.iter().flat_map(|case| case.set.iter().chain(&case.unset));
        let needs = self.needs.iter().map(|other| ("needs", other));
        let apart = self.apart_from.iter().map(|other| ("has nothing in common with", other));
        needs.chain(apart).chain(cases.map(|other| ("depends on", other)))
    }

    /// The values in its value.
    fn parts<'a>(&self, value: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
        values::parts(value, self.kind.is_list())
    }

    /// A part of its value as it may be shown.
    fn shown(&self, value: &str, part: &str) -> String {
        if crate::is_secret_name(&self.name) {
            return crate::MASK.to_owned();
        }
        let shown = crate::mask_urls(part).into_owned();
        // What is no secret by itself may be a part of one.
        if crate::mask_urls(value).contains(&shown) { shown } else { crate::MASK.to_owned() }
    }

    /// What holds of a value by itself, whatever else is set.
    fn check(&self, value: &str, grants: &[HttpGrant]) -> Result<(), String> {
        let Self { name, values, .. } = self;
        if !values.is_empty() {
            let allowed: BTreeSet<&str> = values.iter().map(String::as_str).collect();
            let (verb, wrong) = match self.kind.is_list() {
                true => ("has", self.parts(value).find(|part| !allowed.contains(part))),
                false => ("is", Some(value).filter(|value| !allowed.contains(value))),
            };
            if let Some(wrong) = wrong {
                let shown = self.shown(value, wrong);
                return Err(format!("config `{name}` {verb} `{shown}`; it must be one of {}", values.join(", ")));
            }
        }
        self.check_kind(&self.kind, value, grants)?;
        match &self.variables {
            Some(known) => values::variables(value, known).map_err(|wrong| match wrong {
                values::Wrong::Brace(what) => format!("config `{name}` has {what}"),
                values::Wrong::Name { found, meant, known } => {
                    let shown = self.shown(value, &found);
                    let meant = meant.map(|meant| format!(" (did you mean {{{meant}}}?)")).unwrap_or_default();
                    format!(
                        "config `{name}` has {{{shown}}}, which the component does not know{meant}; it knows {known}"
                    )
                }
            }),
            None => Ok(()),
        }
    }

    /// Whether a value is of a type. A type of a later version is any text: what this version cannot judge it does not
    /// refuse.
    fn check_kind(&self, kind: &SettingType, value: &str, grants: &[HttpGrant]) -> Result<(), String> {
        let name = &self.name;
        let is_none = |what: &str| Err(format!("config `{name}` is `{}`; {what}", self.shown(value, value)));
        match kind {
            SettingType::Text | SettingType::List | SettingType::Other(_) => Ok(()),
            SettingType::Duration if values::is_duration(value) => Ok(()),
            SettingType::Duration => is_none("write a whole number and ms, s, m, h or d, such as 10m"),
            SettingType::Url if values::is_url(value) => Ok(()),
            SettingType::Url => is_none("write a URL with its host, such as http://127.0.0.1:9000/orders"),
            SettingType::RequestUrl => {
                values::request_url(value, self.variables.is_some(), grants).map_err(|wrong| match wrong {
                    values::WrongUrl::No => format!(
                        "config `{name}` is `{}`; write a URL with its host, such as http://127.0.0.1:9000/orders",
                        self.shown(value, value)
                    ),
                    values::WrongUrl::Because(what) => format!("config `{name}` {what}"),
                })
            }
            SettingType::JsonPointer => match values::json_pointer(value) {
                Ok(()) => Ok(()),
                Err(what) => is_none(what),
            },
            SettingType::StatusList => {
                let wrong = values::parts(value, true).find(|part| !values::is_status(part));
                wrong.map_or(Ok(()), |wrong| {
                    let shown = self.shown(value, wrong);
                    Err(format!("config `{name}` has `{shown}`, which is no {}", values::STATUS_CODES))
                })
            }
            SettingType::Header => values::header(value).map_err(|what| format!("config `{name}` {what}")),
        }
    }

    /// What holds besides in a case. The sentence says how to get out of the case as well.
    fn check_case(&self, case: &Case, value: &str, grants: &[HttpGrant]) -> Result<(), String> {
        let never: BTreeSet<&str> = case.never.iter().map(String::as_str).collect();
        let forbidden = match self.parts(value).find(|part| never.contains(part)) {
            Some(part) => {
                let (name, shown) = (&self.name, self.shown(value, part));
                Err(format!(
                    "config `{name}` has `{shown}`, about which another setting says something else: take it out"
                ))
            }
            None => self.check_kind(&case.kind, value, grants),
        };
        forbidden.map_err(|what| format!("{what}{}", case.ways_out()))
    }

    /// Refuses a value that stands in both of two settings of which each must have its own.
    fn check_apart<'a>(&self, value: &str, theirs: impl Iterator<Item = &'a str>, other: &str) -> Result<(), String> {
        let theirs: BTreeSet<&str> = theirs.collect();
        self.parts(value).find(|part| theirs.contains(part)).map_or(Ok(()), |both| {
            let (name, hidden) = (&self.name, crate::is_secret_name(other));
            let shown = if hidden { crate::MASK.to_owned() } else { self.shown(value, both) };
            Err(format!("`{shown}` stands in both config `{name}` and config `{other}`: leave it out of one of them"))
        })
    }
}

impl Case {
    /// Whether it says anything now. One with a condition that this version does not know says nothing.
    fn holds(&self, given: impl Fn(&String) -> bool) -> bool {
        self.other.is_empty() && self.set.iter().all(&given) && !self.unset.iter().any(&given)
    }

    /// How to have it hold no more.
    fn ways_out(&self) -> String {
        let set = self.unset.iter().map(|name| format!(", or set config `{name}`"));
        set.chain(self.set.iter().map(|name| format!(", or leave out config `{name}`"))).collect()
    }
}

#[cfg(test)]
mod tests;
