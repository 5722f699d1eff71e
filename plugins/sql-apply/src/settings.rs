//! The binding's `config`.

use plugin_config::{Template, json, templates};

use crate::{
    outcome::OnConflict,
    values::{NAMES, pointer},
};

/// The settings of statements and of their parameters, in the order in which they run.
pub const STATEMENTS: [(&str, &str); 8] = [
    ("statement", "params"),
    ("statement-2", "params-2"),
    ("statement-3", "params-3"),
    ("statement-4", "params-4"),
    ("statement-5", "params-5"),
    ("statement-6", "params-6"),
    ("statement-7", "params-7"),
    ("statement-8", "params-8"),
];

/// What the binding says, checked.
#[derive(Debug)]
pub struct Settings {
    /// A name in the grant `sql`.
    pub database: String,
    /// What runs for each message, in this order; at least one.
    pub statements: Vec<ParameterizedText>,
    /// What becomes of a message that a constraint stands against.
    pub on_conflict: OnConflict,
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
        let mut statements = Vec::new();
        let mut missing = None;
        for (statement, params) in STATEMENTS {
            let written = config(params);
            match (config(statement), missing) {
                (Some(text), None) => {
                    statements.push(ParameterizedText { text, params: parameters(params, written.as_deref())? });
                }
                (Some(_), Some(missing)) => {
                    return Err(format!("config `{missing}` is missing in front of `{statement}`: leave none out"));
                }
                (None, _) if written.is_some() => {
                    return Err(format!("config `{params}` means nothing without config `{statement}`"));
                }
                (None, _) => missing = missing.or(Some(statement)),
            }
        }
        if statements.is_empty() {
            return Err("config `statement` is missing: say what is to run for each message".to_owned());
        }
        let on_conflict = config("on-conflict").map_or(Ok(OnConflict::Retry), |name| OnConflict::read(&name))?;
        Ok(Self { database, statements, on_conflict })
    }
}

fn parameters(setting: &'static str, written: Option<&str>) -> Result<Vec<Template>, String> {
    let params = templates(setting, written, NAMES)?;
    for pointer in params.iter().flat_map(Template::names).filter_map(pointer) {
        json::check_pointer(setting, pointer)?;
    }
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: (&str, &str) = ("database", "shop");
    const STATEMENT: (&str, &str) = ("statement", "insert into orders (id, item) values ($1, $2)");
    const SECOND: (&str, &str) = ("statement-2", "update counts set orders = orders + 1");

    fn read(config: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::read(|name| config.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn a_database_and_a_statement_are_enough() {
        let settings = read(&[DATABASE, STATEMENT]).unwrap();
        assert_eq!((settings.database.as_str(), settings.on_conflict), ("shop", OnConflict::Retry));
        assert_eq!((settings.statements.len(), settings.statements[0].params.len()), (1, 0));
    }

    #[test]
    fn statements_run_in_their_order_each_with_its_parameters() {
        let config = [
            DATABASE,
            ("params-3", "{id}"),
            ("statement-3", "third $1"),
            STATEMENT,
            ("params", "{key}, {json./item}"),
            SECOND,
            ("params-2", " "),
            ("on-conflict", "ack"),
        ];
        let settings = read(&config).unwrap();
        let read: Vec<(&str, usize)> =
            settings.statements.iter().map(|each| (each.text.as_str(), each.params.len())).collect();
        assert_eq!(read, [(STATEMENT.1, 2), (SECOND.1, 0), ("third $1", 1)]);
        assert_eq!(settings.on_conflict, OnConflict::Ack);
    }

    #[test]
    fn eight_statements_are_the_most() {
        let all: Vec<(&str, &str)> =
            STATEMENTS.iter().map(|(statement, _)| (*statement, "select 1")).chain([DATABASE]).collect();
        assert_eq!(read(&all).unwrap().statements.len(), 8);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_to_do() {
        for (config, word) in [
            (vec![], "`database` is missing"),
            (vec![DATABASE], "`statement` is missing"),
            (vec![DATABASE, ("statement", " ")], "`statement` is missing"),
            (vec![DATABASE, SECOND], "`statement` is missing in front of `statement-2`"),
            (
                vec![DATABASE, STATEMENT, ("statement-4", "x"), SECOND],
                "`statement-3` is missing in front of `statement-4`",
            ),
            (vec![DATABASE, STATEMENT, ("params-2", "{id}")], "`params-2` means nothing without config `statement-2`"),
            (vec![DATABASE, STATEMENT, ("params", "{transaction}")], "{transaction}"),
            (vec![DATABASE, STATEMENT, ("params", "{json.item}")], "config `params` is `item`: a JSON pointer begins"),
            (vec![DATABASE, STATEMENT, ("params", "a-{json./i~2}")], "written ~0"),
            (vec![DATABASE, STATEMENT, ("params", "{json.}")], "{json.}"),
            (vec![DATABASE, STATEMENT, ("params", "{id")], "`params` has a {"),
            (vec![DATABASE, STATEMENT, SECOND, ("params-2", "{nobody}")], "config `params-2` has {nobody}"),
            (vec![DATABASE, STATEMENT, ("on-conflict", "drop")], "write retry, reject, ack"),
        ] {
            let error = read(&config).unwrap_err();
            assert!(error.contains(word), "{config:?}: {error}");
        }
    }
}
