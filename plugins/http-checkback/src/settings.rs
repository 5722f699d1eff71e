//! The binding's `config`.

use plugin_config::{HalfFacts, UrlTemplate, duration_ms, header_value, json, list};

/// What the binding says, checked.
#[derive(Debug)]
pub struct Settings {
    /// Whom to ask.
    pub url: UrlTemplate,
    /// JSON pointer into the answer; `None`: the status code is the value.
    pub field: Option<String>,
    /// Values that commit.
    pub commit: Vec<String>,
    /// Values that roll back.
    pub rollback: Vec<String>,
    /// Age in ms from which a 404 rolls back.
    pub rollback_missing_after_ms: Option<u64>,
    /// Value of the `authorization` header.
    pub authorization: Option<String>,
}

impl Settings {
    /// Reads the settings through `config`, which answers for one name.
    ///
    /// # Errors
    /// A sentence that names the setting and what to do about it.
    pub fn read(config: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let url = config("url").ok_or("config `url` is missing: say whom to ask")?;
        let field = config("field").filter(|field| !field.is_empty());
        if let Some(field) = &field {
            json::check_pointer("field", field)?;
        }
        let commit = list(config("commit"));
        let rollback = list(config("rollback"));
        if commit.is_empty() {
            return Err("config `commit` is missing: say which values commit".to_owned());
        }
        if let Some(both) = commit.iter().find(|value| rollback.contains(value)) {
            return Err(format!("`{both}` stands in both config `commit` and config `rollback`"));
        }
        let rollback_missing_after_ms =
            config("rollback-missing-after").map(|text| duration_ms("rollback-missing-after", &text)).transpose()?;
        if field.is_none() {
            commit.iter().chain(&rollback).try_for_each(|value| status_code(value))?;
            if rollback_missing_after_ms.is_some() && commit.iter().chain(&rollback).any(|value| value == "404") {
                return Err("404 stands in config `commit` or `rollback`, and config `rollback-missing-after` says \
                            something else about it: leave one of them out"
                    .to_owned());
            }
        }
        let url = UrlTemplate::parse(&url, HalfFacts::NAMES)?;
        let authorization = config("authorization").map(|value| header_value("authorization", value)).transpose()?;
        Ok(Self { url, field, commit, rollback, rollback_missing_after_ms, authorization })
    }
}

/// Without `field`, values are status codes, and those that are never an answer must not be listed as one.
fn status_code(value: &str) -> Result<(), String> {
    let digits = value.len() == 3 && value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse::<u16>() {
        Ok(code) if digits && crate::answer::may_be_an_answer(code) => Ok(()),
        Ok(code @ 100..=599) if digits => {
            Err(format!("status {code} is never an answer: leave it out of config `commit` and `rollback`"))
        }
        _ => Err(format!("`{value}` is no status code (200–499): set config `field` to compare a field of the answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::read(|name| config.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn all_settings_are_read() {
        let settings = read(&[
            ("url", "http://o/{key}"),
            ("field", "/status"),
            ("commit", "paid, shipped"),
            ("rollback", "cancelled,"),
            ("rollback-missing-after", "10m"),
            ("authorization", "Bearer x"),
        ])
        .unwrap();
        assert_eq!(settings.field.as_deref(), Some("/status"));
        assert_eq!(settings.commit, ["paid", "shipped"]);
        assert_eq!(settings.rollback, ["cancelled"]);
        assert_eq!(settings.rollback_missing_after_ms, Some(600_000));
        assert_eq!(settings.authorization.as_deref(), Some("Bearer x"));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let url = ("url", "http://o/{key}");
        for (config, word) in [
            (vec![], "`url`"),
            (vec![url], "`commit`"),
            (vec![url, ("commit", " , ")], "`commit`"),
            (vec![url, ("commit", "200"), ("field", "status")], "`field`"),
            (vec![url, ("commit", "200"), ("rollback", "410,200")], "`200`"),
            (vec![url, ("commit", "paid")], "`paid`"),
            (vec![url, ("commit", "200,503")], "503"),
            (vec![url, ("commit", "200"), ("rollback", "429")], "429"),
            (vec![url, ("commit", "199")], "199"),
            (vec![url, ("commit", "302")], "302"),
            (vec![url, ("commit", "200"), ("rollback", "304")], "304"),
            (vec![url, ("commit", "206")], "206"),
            (vec![url, ("commit", "200"), ("rollback", "407")], "407"),
            (vec![url, ("commit", "0200")], "`0200`"),
            (vec![url, ("commit", "+20")], "`+20`"),
            (vec![url, ("commit", "200"), ("rollback", "404"), ("rollback-missing-after", "1s")], "404"),
            (vec![url, ("commit", "404"), ("rollback-missing-after", "1s")], "404"),
            (vec![url, ("commit", "200"), ("rollback-missing-after", "soon")], "`rollback-missing-after`"),
            (vec![("url", "o"), ("commit", "200")], "`url`"),
            (vec![url, ("commit", "paid"), ("field", "/a~b")], "`field`"),
            (vec![url, ("commit", "200"), ("authorization", " ")], "`authorization` is empty"),
            (vec![url, ("commit", "200"), ("authorization", "Bearer x\n")], "line end"),
        ] {
            let error = read(&config).unwrap_err();
            assert!(error.contains(word), "{config:?}: {error}");
        }
    }
}
