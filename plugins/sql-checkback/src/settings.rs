//! The binding's `config`.

use plugin_config::{HalfFacts, Template, duration_ms, list, templates};

/// What a transaction whose row is missing has to be at least before its fence is closed, where nobody says otherwise.
const FENCE_AFTER_MS: u64 = 60_000;

/// What the binding says, checked.
#[derive(Debug)]
pub struct Settings {
    /// A name in the grant `sql`.
    pub database: String,
    /// The fence; `None`: there is none.
    pub fence: Option<FenceSettings>,
    /// What is asked besides; `None`: the fence alone decides.
    pub question: Option<Question>,
}

/// How the fence is read and closed.
#[derive(Debug)]
pub struct FenceSettings {
    /// It is used if the grant names a table for it, and nobody said that it must.
    pub if_granted: bool,
    /// Key of the transaction's row.
    pub key: Template,
    /// Age in ms from which a missing row is closed.
    pub after_ms: u64,
    /// What runs in the database transaction that closes.
    pub on_rollback: Option<ParameterizedText>,
}

/// A statement, and how the value that it answers is read.
#[derive(Debug)]
pub struct Question {
    /// What is asked.
    pub statement: ParameterizedText,
    /// Values that commit.
    pub commit: Vec<String>,
    /// Values that roll back.
    pub rollback: Vec<String>,
    /// Age in ms from which no row rolls back, without a fence.
    pub rollback_missing_after_ms: Option<u64>,
}

/// A statement with its parameters.
#[derive(Debug)]
pub struct ParameterizedText {
    /// With the database's own placeholders.
    pub text: String,
    /// One for each.
    pub params: Vec<Template>,
}

impl Settings {
    /// Reads the settings through `config`, which answers for one name.
    ///
    /// # Errors
    /// A sentence that names the setting and what to do about it.
    pub fn read(config: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let config = |name: &str| config(name).filter(|text| !text.trim().is_empty());
        let database = config("database").ok_or("config `database` is missing: name a database of the grant `sql`")?;
        let asked = statement(&config, "statement", "params")?;
        let on_rollback = statement(&config, "on-rollback", "on-rollback-params")?;
        let (commit, rollback) = (list(config("commit")), list(config("rollback")));
        if let Some(both) = commit.iter().find(|value| rollback.contains(value)) {
            return Err(format!("`{both}` stands in both config `commit` and config `rollback`"));
        }
        let time = |name: &str| config(name).map(|text| duration_ms(name, &text)).transpose();
        let missing_after = time("rollback-missing-after")?;
        let said = config("fence");
        let key =
            Template::parse("fence-key", &config("fence-key").unwrap_or_else(|| "{id}".to_owned()), HalfFacts::NAMES)?;
        let after_ms = time("fence-after")?.unwrap_or(FENCE_AFTER_MS);
        if key.names().next().is_none() {
            return Err(format!(
                "config `fence-key` is `{}` for every transaction, and one row would decide all of them: name what tells them apart, as {{id}} does",
                config("fence-key").unwrap_or_default()
            ));
        }
        let has_statement = asked.is_some();
        let if_granted = match said.as_deref() {
            None => Some(has_statement),
            Some("on") => Some(false),
            Some("off") => {
                if let Some(name) =
                    ["on-rollback", "fence-key", "fence-after"].into_iter().find(|name| config(name).is_some())
                {
                    return Err(format!(
                        "config `{name}` is about the fence, and config `fence` is off: leave out one of them"
                    ));
                }
                None
            }
            Some(other) => return Err(format!("config `fence` is `{other}`: write on or off")),
        };
        let fence = if_granted.map(|if_granted| FenceSettings { if_granted, key, after_ms, on_rollback });
        let question =
            asked.map(|statement| Question { statement, commit, rollback, rollback_missing_after_ms: missing_after });
        match (&fence, &question) {
            (None, None) => {
                Err("config `fence` is off and config `statement` is missing: nothing would be asked".to_owned())
            }
            (Some(fence), _) if !fence.if_granted && missing_after.is_some() => {
                Err("config `rollback-missing-after` guesses by age, and the fence knows: leave it out".to_owned())
            }
            (None, Some(question)) if question.commit.is_empty() => {
                Err("config `commit` is missing: say which values commit".to_owned())
            }
            (_, Some(question)) if question.commit.is_empty() && question.rollback.is_empty() && missing_after.is_none() => {
                Err("config `commit` is missing: say which values of the statement commit, or in config `rollback` which do not"
                    .to_owned())
            }
            _ => Ok(Self { database, fence, question }),
        }
    }
}

fn statement(
    config: &impl Fn(&str) -> Option<String>,
    text: &str,
    params: &'static str,
) -> Result<Option<ParameterizedText>, String> {
    let (text, written) = (config(text), config(params));
    let params = templates(params, written.as_deref(), HalfFacts::NAMES)?;
    Ok(text.map(|text| ParameterizedText { text, params }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &[(&str, &str)]) -> Result<Settings, String> {
        let config: Vec<(String, String)> =
            config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings::read(|name| config.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()))
    }

    const DATABASE: (&str, &str) = ("database", "orders");
    const STATEMENT: (&str, &str) = ("statement", "select status from orders where id = $1");

    #[test]
    fn a_database_alone_means_its_fence() {
        let settings = read(&[DATABASE]).unwrap();
        let fence = settings.fence.unwrap();
        assert!(settings.question.is_none() && !fence.if_granted);
        assert_eq!(
            (fence.after_ms, fence.key),
            (60_000, Template::parse("fence-key", "{id}", HalfFacts::NAMES).unwrap())
        );
    }

    #[test]
    fn a_statement_is_asked_beside_the_fence_of_a_grant_that_has_one_unless_that_is_off() {
        let both = read(&[DATABASE, STATEMENT, ("params", "{key}, PAID"), ("commit", "PAID")]).unwrap();
        assert!(both.fence.unwrap().if_granted);
        assert_eq!(both.question.unwrap().statement.params.len(), 2);
        let alone =
            read(&[DATABASE, STATEMENT, ("commit", "PAID"), ("fence", "off"), ("rollback-missing-after", "10m")]);
        let alone = alone.unwrap();
        assert!(alone.fence.is_none());
        assert_eq!(alone.question.unwrap().rollback_missing_after_ms, Some(600_000));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_to_do() {
        for (config, word) in [
            (vec![], "`database` is missing"),
            (vec![DATABASE, ("fence", "off")], "nothing would be asked"),
            (vec![DATABASE, ("fence", "maybe")], "write on or off"),
            (vec![DATABASE, ("fence-after", "soon")], "`fence-after` is `soon`"),
            (vec![DATABASE, ("fence-key", "{id")], "`fence-key` has a {"),
            (vec![DATABASE, STATEMENT, ("fence", "off")], "`commit` is missing"),
            (vec![DATABASE, STATEMENT], "`commit` is missing"),
            (vec![DATABASE, STATEMENT, ("fence", "off"), ("rollback", "OPEN")], "`commit` is missing"),
            (vec![DATABASE, ("fence-key", "orders")], "one row would decide all of them"),
            (
                vec![DATABASE, STATEMENT, ("commit", "PAID"), ("fence", "off"), ("on-rollback", "delete from o")],
                "`on-rollback` is about",
            ),
            (
                vec![DATABASE, STATEMENT, ("commit", "PAID"), ("fence", "off"), ("fence-after", "1m")],
                "`fence-after` is about",
            ),
            (
                vec![DATABASE, STATEMENT, ("commit", "PAID"), ("fence", "off"), ("fence-key", "{key}")],
                "`fence-key` is about",
            ),
            (vec![DATABASE, STATEMENT, ("commit", "a, b"), ("rollback", "b")], "`b` stands in both"),
            (vec![DATABASE, STATEMENT, ("fence", "on"), ("rollback-missing-after", "1m")], "guesses by age"),
            (vec![DATABASE, ("on-rollback", "update o set s = 'x'"), ("on-rollback-params", "{nobody}")], "{nobody}"),
        ] {
            let error = read(&config).unwrap_err();
            assert!(error.contains(word), "{config:?}: {error}");
        }
    }
}
