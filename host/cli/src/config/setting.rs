//! One row of the table of settings, and what follows from it.

use super::forms::{Described, FormText};

/// A setting, as its row in the table says.
#[derive(Debug)]
pub(crate) struct SettingRow {
    /// Its name, as the file has it. [`SettingRow::flag`] and [`SettingRow::variable`] follow from it.
    pub(crate) name: &'static str,
    /// What it does, line by line as above its row: `{least}` and `{most}` stand for the bounds of its form.
    pub(super) text: &'static [&'static str],
    /// How its value is written.
    pub(super) form: &'static dyn Described,
    /// What holds where nobody says otherwise.
    pub(super) default: DefaultValue,
    /// Whether SIGHUP changes it. The others hold from the next start on.
    pub(crate) reloads: bool,
}

/// What holds where nobody sets a setting.
#[derive(Debug)]
pub(super) enum DefaultValue {
    /// This value, as somebody would write it. It comes from whoever owns it, so that no number stands twice.
    Value(fn() -> String),
    /// None, and what that means to a person; empty where that goes without saying.
    Nothing(&'static str),
}

impl SettingRow {
    /// How its value is written.
    pub(crate) fn about(&self) -> FormText {
        self.form.about()
    }

    /// The flag, with its dashes: `--grpc-addr`.
    pub(crate) fn flag(&self) -> String {
        format!("--{}", self.flag_name())
    }

    /// The flag without its dashes.
    pub(crate) fn flag_name(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The variable of the environment: `VOUCH_GRPC_ADDR`.
    pub(crate) fn variable(&self) -> String {
        format!("VOUCH_{}", self.name.to_uppercase())
    }

    /// The default as somebody would write it; empty where there is no value.
    pub(crate) fn default_text(&self) -> String {
        match self.default {
            DefaultValue::Value(text) => text(),
            DefaultValue::Nothing(_) => String::new(),
        }
    }

    /// The default as a person reads it. None where it goes without saying: there is no value, or a switch is off.
    pub(crate) fn default_told(&self) -> Option<String> {
        let told = match self.default {
            DefaultValue::Value(text) => text(),
            DefaultValue::Nothing(means) => means.to_owned(),
        };
        Some(told).filter(|told| !matches!(told.as_str(), "" | "false"))
    }

    /// What it does, in one line that ends with a full stop.
    pub(crate) fn text(&self) -> String {
        let [least, most] = self.about().bounds.map(Option::unwrap_or_default);
        let lines: Vec<&str> = self.text.iter().map(|line| line.trim()).collect();
        lines.join(" ").replace("{least}", &least).replace("{most}", &most)
    }

    /// What help says of the flag: what it does, and the default.
    pub(crate) fn help(&self) -> String {
        let text = self.text();
        let text = text.strip_suffix('.').unwrap_or(&text);
        self.default_told().map_or_else(|| text.to_owned(), |told| format!("{text} [default: {told}]"))
    }
}
