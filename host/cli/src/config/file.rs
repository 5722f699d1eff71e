//! The file with settings: TOML, one key a setting.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use toml::de::{DeInteger, DeTable, DeValue};

use super::forms::InFile;
use super::names;
use super::setting::SettingRow;
use super::table::SETTINGS;
use crate::failure::WrongUsage;

/// What a line of a file looks like.
const EXAMPLE: &str = "data_dir = \"./vouch-data\"";

/// The settings of a file, as texts.
#[derive(Debug, Default)]
pub(super) struct SettingsFile {
    values: Vec<(&'static str, String)>,
}

impl SettingsFile {
    /// Reads a file. Blocks for ever where it is a pipe that nobody writes to.
    ///
    /// # Errors
    /// [`WrongUsage`], beginning with the path: the file cannot be read, is no TOML, has a key that does not exist or a
    /// value of the wrong type, or is a pipe that was read before.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| WrongUsage::error(format!("cannot read the configuration {shown}: {error}")))?;
        let is_pipe = || std::fs::metadata(path).is_ok_and(|file| file.file_type().is_fifo());
        if text.is_empty() && is_pipe() {
            // Settings that were there the first time would be gone without a word.
            return Err(WrongUsage::error(format!(
                "{shown} is a pipe and has nothing more; a configuration to be read again is a file"
            )));
        }
        Self::parse(&text).map_err(|why| WrongUsage::error(format!("{shown}: {why}")))
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let table = DeTable::parse(text).map_err(|error| no_toml(text, &error))?.into_inner();
        let values = table.iter().map(|(key, value)| {
            let key = key.get_ref();
            let known = SETTINGS.iter().find(|known| known.name == key).ok_or_else(|| names::unknown_key(key))?;
            value_text(known, value.get_ref()).map(|text| (known.name, text))
        });
        Ok(Self { values: values.collect::<Result<_, _>>()? })
    }

    /// The text of a setting, if the file has it.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, text)| text.as_str())
    }
}

/// The value as a flag would have it. A number where text is meant is a mistake: `data_dir = 5` would make a folder `5`.
fn value_text(setting: &SettingRow, value: &DeValue<'_>) -> Result<String, String> {
    let about = setting.about();
    match (about.in_file, value) {
        (_, DeValue::String(text)) => Ok(text.clone().into_owned()),
        (InFile::Number, DeValue::Integer(number)) => Ok(decimal(number)),
        (InFile::YesOrNo, DeValue::Boolean(yes)) => Ok(yes.to_string()),
        _ => Err(format!("{} is {}; write {}", setting.name, found(value, about.is_secret), about.expected)),
    }
}

/// A number as a flag would have it. One that is larger than any stays as it was written, and is refused like any other that
/// its setting cannot be.
fn decimal(number: &DeInteger<'_>) -> String {
    i64::from_str_radix(number.as_str(), number.radix())
        .map_or_else(|_| number.to_string(), |number| number.to_string())
}

/// What stands there, in a person's words; of a secret only what kind of thing it is.
fn found(value: &DeValue<'_>, is_secret: bool) -> String {
    match value {
        DeValue::Integer(number) if !is_secret => format!("the whole number {}", decimal(number)),
        DeValue::Integer(_) => "a whole number".to_owned(),
        DeValue::Float(number) if !is_secret => format!("the fraction {}", number.as_str()),
        DeValue::Float(_) => "a fraction".to_owned(),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
        DeValue::String(_) => "text".to_owned(),
    }
}

/// Why a text is no TOML, and in which line. The line itself is not shown: it may hold a token.
fn no_toml(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start);
    let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    format!(
        "line {line} is not TOML: {}; write each setting in a line of its own, for example {EXAMPLE}",
        error.message()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_an_error_that_names_the_nearest_one() {
        let error = SettingsFile::parse("grcp_addr = '127.0.0.1:1'").unwrap_err();
        assert_eq!(error, "`grcp_addr` is not a setting; did you mean `grpc_addr`?");
        let error = SettingsFile::parse("colour = 'red'").unwrap_err();
        assert!(error.contains("vouch serve --help"), "{error}");
    }

    #[test]
    fn a_value_is_text_or_what_its_setting_is() {
        let file = SettingsFile::parse("syncs_in_flight = 4\nauto_create_topics = true\nzero_ahead = '1MiB'").unwrap();
        assert_eq!(file.get("syncs_in_flight"), Some("4"));
        assert_eq!(file.get("auto_create_topics"), Some("true"));
        assert_eq!(file.get("zero_ahead"), Some("1MiB"));
        assert_eq!(file.get("data_dir"), None);
        for text in ["syncs_in_flight = '4'", "insecure = 'true'", "zero_ahead = 1048576", "disk_high_water = 80"] {
            assert!(SettingsFile::parse(text).is_ok(), "{text}");
        }
        for (text, number) in
            [("0x10", "16"), ("1_000", "1000"), ("-1", "-1"), ("99999999999999999999", "99999999999999999999")]
        {
            let file = SettingsFile::parse(&format!("connections = {text}")).unwrap();
            assert_eq!(file.get("connections"), Some(number));
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_told_with_what_was_found_and_what_is_expected() {
        for (text, told) in [
            ("data_dir = 5", "data_dir is the whole number 5; write the path of a folder in quotes, for example"),
            ("data_dir = 1.5", "data_dir is the fraction 1.5; write the path of a folder"),
            ("tls_key = true", "tls_key is true; write the path of a file in quotes"),
            ("grpc_addr = 8081", "grpc_addr is the whole number 8081; write IP:PORT in quotes, for example \"127."),
            ("http_hosts = ['a.example']", "http_hosts is a list; write names in quotes, separated by commas"),
            ("retention_every = 10", "retention_every is the whole number 10; write a length of time in quotes"),
            ("zero_ahead = 1.5", "zero_ahead is the fraction 1.5; write a size in quotes"),
            ("syncs_in_flight = true", "syncs_in_flight is true; write a whole number above 0"),
            ("disk_high_water = 90.0", "disk_high_water is the fraction 90.0; write a whole number from 1 to 99"),
            ("insecure = 1", "insecure is the whole number 1; write true or false"),
            ("on_damage = false", "on_damage is false; write \"refuse\" or \"read-only\""),
            ("log_format = {}", "log_format is a table; write \"text\" or \"json\""),
            ("log_level = 3", "log_level is the whole number 3; write a level in quotes"),
            ("connections = 2026-01-31", "connections is a date; write a whole number above 0"),
            ("[data_dir]\na = 1", "data_dir is a table; write the path"),
            ("http_token = 48151623", "http_token is a whole number; write the token in quotes"),
        ] {
            let error = SettingsFile::parse(text).unwrap_err();
            assert!(error.starts_with(told), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line_and_no_secret_of_it() {
        for (text, line) in [
            ("data_dir = './x'\nnonsense", "line 2 is not TOML: "),
            ("a = 1\na = 2", "line 2 is not TOML: "),
            ("data_dir = './x'\n\nhttp_token = 'sesame\n", "line 3 is not TOML: "),
            ("insecure = yes", "line 1 is not TOML: "),
        ] {
            let error = SettingsFile::parse(text).unwrap_err();
            assert!(error.starts_with(line), "{error}");
            assert!(error.ends_with(EXAMPLE) && !error.contains('\n') && !error.contains("sesame"), "{error}");
        }
    }
}
