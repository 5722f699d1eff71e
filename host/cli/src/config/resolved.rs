//! The settings with their values, and where each value comes from.

use std::fmt;

use serde_json::{Map, Value, json};

use super::setting::SettingRow;
use crate::failure::WrongUsage;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SettingSource {
    /// The command line.
    Flag,
    /// The variable.
    Environment,
    /// The file.
    File,
    /// Nobody said.
    Default,
}

impl SettingSource {
    /// One word for it, as `vouch config check` shows it.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        }
    }
}

/// One setting with its value.
#[derive(Clone, Debug)]
pub(super) struct SettingValue {
    pub(super) setting: &'static SettingRow,
    /// As it was written.
    pub(super) text: String,
    pub(super) source: SettingSource,
    /// What holds instead, and why.
    lowered: Option<Lowered>,
}

/// A value that this machine does not allow.
#[derive(Clone, Debug)]
struct Lowered {
    to: String,
    why: String,
}

impl SettingValue {
    /// A value that holds as it was written.
    pub(super) fn new(setting: &'static SettingRow, text: String, source: SettingSource) -> Self {
        Self { setting, text, source, lowered: None }
    }

    /// The value for a person, with what holds instead.
    fn shown(&self) -> String {
        match &self.lowered {
            Some(Lowered { to, why }) => format!("{} (lowered to {to}: {why})", self.plain()),
            None => self.plain(),
        }
    }

    /// The value alone, unless it is a secret.
    fn plain(&self) -> String {
        match self.text.as_str() {
            "" => "-".to_owned(),
            _ if self.setting.about().is_secret => "(set)".to_owned(),
            text => text.to_owned(),
        }
    }
}

/// Where it stands, as the user wrote it.
impl fmt::Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            SettingSource::Flag => f.write_str(&self.setting.flag()),
            SettingSource::Environment => f.write_str(&self.setting.variable()),
            SettingSource::File => write!(f, "{} in the file", self.setting.name),
            SettingSource::Default => write!(f, "the default of {}", self.setting.name),
        }
    }
}

/// Every setting with its value and where that comes from. The table has a function for each that reads it.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(super) values: Vec<SettingValue>,
}

impl Resolved {
    /// The value of a setting that the table has.
    fn find(&self, name: &str) -> &SettingValue {
        let found = self.values.iter().find(|value| value.setting.name == name);
        found.expect("the names that are asked for are those of the table, each of which has a value")
    }

    /// What `take` makes of a value's text; it is told whether somebody set it.
    ///
    /// # Errors
    /// [`WrongUsage`]: the value is wrong; the text names where it stands.
    pub(super) fn read<T>(
        &self,
        name: &'static str,
        take: impl FnOnce(&str, bool) -> Result<T, String>,
    ) -> anyhow::Result<T> {
        let value = self.find(name);
        take(&value.text, value.source != SettingSource::Default)
            .map_err(|why| WrongUsage::error(format!("{value}: {why}")))
    }

    /// Settings that have another value than in `other`.
    pub(crate) fn differing(&self, other: &Self) -> impl Iterator<Item = &'static SettingRow> {
        let pairs = self.values.iter().zip(&other.values);
        pairs.filter(|(now, before)| now.text != before.text).map(|(now, _)| now.setting)
    }

    /// Notes that another value holds than the one that was set.
    pub(crate) fn lower(&mut self, name: &str, to: String, why: String) {
        for value in self.values.iter_mut().filter(|value| value.setting.name == name) {
            value.lowered = Some(Lowered { to: to.clone(), why: why.clone() });
        }
    }

    /// Rows for `vouch config check`: setting, value, where it comes from. Secrets are not shown.
    pub(crate) fn rows(&self) -> impl Iterator<Item = [String; 3]> {
        let row = |value: &SettingValue| [value.setting.name.to_owned(), value.shown(), value.source.kind().to_owned()];
        self.values.iter().map(row)
    }

    /// The same for scripts: an object with a member for each setting, its `value`, its `source`, and `lowered_to` where
    /// this machine allows less.
    pub(crate) fn document(&self) -> Value {
        let member = |value: &SettingValue| {
            let mut document = json!({"value": value.plain(), "source": value.source.kind()});
            if let Some(lowered) = &value.lowered {
                document["lowered_to"] = lowered.to.as_str().into();
            }
            (value.setting.name.to_owned(), document)
        };
        Value::Object(self.values.iter().map(member).collect::<Map<_, _>>())
    }
}
