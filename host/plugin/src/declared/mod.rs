//! What a component says of its config: the names that it reads, and what their values have to be.
//!
//! A component may carry a custom section [`SECTION`], in itself or in one of its core modules, that holds a list as JSON:
//!
//! ```json
//! [{"name": "url", "type": "url", "required": true}, {"name": "commit", "needs": ["url"]}]
//! ```
//!
//! A binding whose config does not fit is refused when it is set. Of a component without the section nothing is known, and
//! nothing is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use url::Url;

/// The name of the section.
pub(crate) const SECTION: &str = "vouch:config";
/// Most bytes of the section.
pub(crate) const MAX_SECTION: usize = 64 << 10;
/// Most settings of one component.
pub(crate) const MAX_SETTINGS: usize = 128;

/// What a value has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SettingType {
    /// Any text.
    #[default]
    Text,
    /// A whole number and `ms`, `s`, `m`, `h` or `d`: `500ms`, `10m`.
    Duration,
    /// `http://` or `https://`, a host, and whatever follows it.
    Url,
}

/// One entry of a component's config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// Its name in the binding's config.
    pub name: String,
    /// What its value has to be.
    #[serde(default, rename = "type")]
    pub kind: SettingType,
    /// The component does nothing without it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub required: bool,
    /// The values that it may have; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// Others without which it has no meaning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// All that a component reads of its config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Declared(Vec<Setting>);

impl Declared {
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
            if let Some(unknown) = setting.needs.iter().find(|needed| declared.named(needed).is_none()) {
                return Err(of(&format_args!("says that `{name}` needs `{unknown}`, which it does not list")));
            }
        }
        Ok(declared)
    }

    fn named(&self, name: &str) -> Option<&Setting> {
        self.0.iter().find(|setting| setting.name == name)
    }

    /// The settings, in the order in which the component lists them.
    pub fn settings(&self) -> &[Setting] {
        &self.0
    }

    /// Whether a config is one that the component can work with.
    ///
    /// # Errors
    /// A sentence for whoever sets the binding. It tells no values of secrets.
    pub fn check(&self, config: &BTreeMap<String, String>) -> Result<(), String> {
        let given = |name: &str| config.get(name).is_some_and(|value| !value.trim().is_empty());
        if let Some(unknown) = config.keys().find(|name| self.named(name).is_none()) {
            return Err(self.unknown(unknown));
        }
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
            if let Some(value) = config.get(name) {
                setting.check(value)?;
            }
        }
        Ok(())
    }

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
    fn check(&self, value: &str) -> Result<(), String> {
        let Self { name, kind, values, .. } = self;
        let shown = if crate::is_secret_name(name) { crate::MASK.into() } else { crate::mask_urls(value) };
        if !values.is_empty() && !values.iter().any(|allowed| allowed == value) {
            return Err(format!("config `{name}` is `{shown}`; it must be one of {}", values.join(", ")));
        }
        match kind {
            SettingType::Text => Ok(()),
            SettingType::Duration if is_duration(value) => Ok(()),
            SettingType::Duration => {
                Err(format!("config `{name}` is `{shown}`; write a whole number and ms, s, m, h or d, such as 10m"))
            }
            SettingType::Url if is_url(value) => Ok(()),
            SettingType::Url => Err(format!(
                "config `{name}` is `{shown}`; write a URL with its host, such as http://127.0.0.1:9000/orders"
            )),
        }
    }
}

fn is_duration(text: &str) -> bool {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit.trim_start() {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return false,
    };
    number.parse::<u64>().is_ok_and(|number| number.checked_mul(unit_ms).is_some())
}

/// What is filled in later (`{key}`) stands behind the host.
fn is_url(text: &str) -> bool {
    let host = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    let authority = text.split_once("://").map(|(_, rest)| &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())]);
    authority.is_some_and(|authority| !authority.contains(['{', '}'])) && Url::parse(text).is_ok_and(|url| host(&url))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FENCED: &str = r#"[
        {"name": "url", "type": "url", "required": true},
        {"name": "fence", "values": ["on", "off"]},
        {"name": "fence-after", "type": "duration", "needs": ["fence"]},
        {"name": "token", "type": "duration"}
    ]"#;

    fn checked(config: &[(&str, &str)]) -> Result<(), String> {
        let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Declared::parse(FENCED.as_bytes()).unwrap().check(&config)
    }

    #[test]
    fn a_config_that_fits_is_taken() {
        for url in ["http://h", "https://h:1/{key}?a={id}", "http://[::1]:9/x", "HTTP://127.0.0.1"] {
            assert_eq!(checked(&[("url", url)]), Ok(()), "{url}");
        }
        for after in ["0s", "500ms", "30 s", " 2h ", "1d"] {
            assert_eq!(checked(&[("url", "http://h"), ("fence", "on"), ("fence-after", after)]), Ok(()), "{after}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named_with_what_to_do() {
        let url = ("url", "http://h");
        for (config, words) in [
            (vec![("ulr", "http://h")], "did you mean `url`?"),
            (vec![url, ("fnece-after", "1s")], "did you mean `fence-after`?"),
            (vec![url, ("colour", "red")], "It reads url, fence, fence-after, token"),
            (vec![], "`url` is missing"),
            (vec![("url", " ")], "`url` is missing"),
            (vec![("url", "h:1/x")], "write a URL"),
            (vec![("url", "ftp://h")], "write a URL"),
            (vec![("url", "http://{key}/x")], "write a URL"),
            (vec![url, ("fence", "maybe")], "one of on, off"),
            (vec![url, ("fence-after", "1s")], "without config `fence`"),
            (vec![url, ("fence", "on"), ("fence-after", "soon")], "`soon`; write a whole number"),
            (vec![url, ("fence", "on"), ("fence-after", "1")], "a whole number"),
            (vec![url, ("fence", "on"), ("fence-after", "18446744073709551615h")], "a whole number"),
        ] {
            let error = checked(&config).unwrap_err();
            assert!(error.contains(words), "{config:?}: {error}");
        }
        assert!(!checked(&[url, ("colour", "red")]).unwrap_err().contains("mean"));
        for (config, secret) in [(vec![url, ("token", "s3cret")], "s3cret"), (vec![("url", "ftp://u:pw@h")], "pw")] {
            assert!(!checked(&config).unwrap_err().contains(secret));
        }
    }

    #[test]
    fn a_section_is_bounded_and_says_what_it_lists() {
        let one = |name: usize| format!(r#"{{"name":"{name}"}}"#);
        let list = |count: usize| format!("[{}]", (0..count).map(one).collect::<Vec<_>>().join(","));
        assert_eq!(Declared::parse(list(MAX_SETTINGS).as_bytes()).unwrap().settings().len(), MAX_SETTINGS);
        let padded = |len: usize| format!("[]{}", " ".repeat(len - 2));
        assert!(Declared::parse(padded(MAX_SECTION).as_bytes()).is_ok());
        for (section, words) in [
            (list(MAX_SETTINGS + 1), "129 settings"),
            (padded(MAX_SECTION + 1), "65537 bytes"),
            ("[][]".to_owned(), "cannot be read"),
            (r#"[{"name":"a","colour":"red"}]"#.to_owned(), "colour"),
            (r#"[{"name":"a","type":"number"}]"#.to_owned(), "number"),
            (r#"[{"name":"a"},{"name":"a"}]"#.to_owned(), "`a`"),
            (r#"[{"name":""}]"#.to_owned(), "no name"),
            (r#"[{"name":"a","needs":["b"]}]"#.to_owned(), "`b`"),
        ] {
            let error = Declared::parse(section.as_bytes()).unwrap_err();
            assert!(error.contains(words) && error.contains(SECTION), "{error}");
        }
    }
}
