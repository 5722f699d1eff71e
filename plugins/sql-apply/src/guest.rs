//! The component: joins the logic with the broker's WIT world and with `sql`.

use plugin_config::MessageFacts;

use crate::{
    outcome::{Answer, Ran, Refused, decide},
    settings::{ParameterizedText, Settings},
    values::{self, Message, value, wants_body},
};

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package vouch:sql-apply;
            world plugin {
                include vouch:plugin/consumer-plugin@0.1.0;
                import vouch:plugin/sql@0.1.0;
            }
        ",
        world: "vouch:sql-apply/plugin",
        generate_all,
    });
}

use bindings::{
    exports::vouch::plugin::consumer::{Delivery, Guest, Outcome},
    vouch::plugin::{
        host::{self, Level},
        sql::{self, Once, SqlError, Statement, Value},
        types::Postponement,
    },
};

/// Read by the host when the component is uploaded.
#[used]
#[unsafe(link_section = "vouch:config")]
static DECLARED: [u8; crate::CONFIG.len()] = *include_bytes!("../config.json");

struct Plugin;

bindings::export!(Plugin with_types_in bindings);

impl Guest for Plugin {
    fn consume(item: Delivery) -> Result<Outcome, String> {
        tell_panics();
        let settings = Settings::read(host::config)?;
        let message = &item.message;
        let mut params = settings.statements.iter().flat_map(|statement| &statement.params);
        if message.body.is_empty() && message.body_size > 0 && params.any(wants_body) {
            return Err("the binding says `\"body\": false`, and a parameter wants the body: take that out".to_owned());
        }
        let facts = MessageFacts {
            delivery_key: &item.delivery_key,
            keys: &message.keys,
            id: &message.id,
            topic: &message.topic,
            tag: message.tag.as_deref(),
            properties: &message.properties,
        };
        let message = Message { facts, body: &message.body };
        let filled = settings.statements.iter().map(|statement| filled(statement, &message));
        // What it lacks it will lack whenever it is delivered.
        let statements: Vec<Statement> = match filled.collect() {
            Ok(statements) => statements,
            Err(lacks) => return Ok(Outcome::Reject(lacks)),
        };
        let said = run(&settings.database, &item.delivery_key, &statements);
        host::log(Level::Debug, &format!("{}: {said:?}", settings.database));
        Ok(match decide(settings.on_conflict, said)? {
            Answer::Ack => Outcome::Ack,
            Answer::Retry(reason) => Outcome::Retry(Postponement { reason, retry_after: None }),
            Answer::Reject(reason) => Outcome::Reject(reason),
        })
    }
}

/// Where no standard error exists (wasm32-unknown-unknown), a panic's text would be lost: send it to the plugin's log.
fn tell_panics() {
    #[cfg(not(target_os = "wasi"))]
    std::panic::set_hook(Box::new(|panic| host::log(Level::Error, &panic.to_string())));
}

fn filled(statement: &ParameterizedText, message: &Message<'_>) -> Result<Statement, String> {
    let params = statement.params.iter().map(|param| value(param, message).map(Value::from));
    Ok(Statement { text: statement.text.clone(), params: params.collect::<Result<_, _>>()? })
}

impl From<values::Value> for Value {
    fn from(value: values::Value) -> Self {
        match value {
            values::Value::Null => Self::Null,
            values::Value::Boolean(is_true) => Self::Boolean(is_true),
            values::Value::Integer(number) => Self::Integer(number),
            values::Value::Real(number) => Self::Real(number),
            values::Value::Text(text) => Self::Text(text),
        }
    }
}

/// Another delivery had the rows, or the file: so often it is tried once more in the same call. What waits longer waits for another
/// delivery.
const TRIES: usize = 5;

/// Runs them all in one database transaction, unless that was done before.
fn run(database: &str, key: &str, statements: &[Statement]) -> Result<Ran, Refused> {
    let mut tries = 1;
    loop {
        return match sql::run_once(database, key, statements) {
            Ok(Once::Done(sets)) => Ok(Ran::Now(sets.iter().map(|set| set.affected).sum())),
            Ok(Once::Already) => Ok(Ran::Before),
            // The database undid all of it, and says: again.
            Err(SqlError::Aborted(_)) if tries < TRIES => {
                tries += 1;
                continue;
            }
            Err(error) => Err(refused(error)),
        };
    }
}

fn refused(error: SqlError) -> Refused {
    let (kind, text) = match error {
        SqlError::BadValue(text) => return Refused::BadValue(text),
        SqlError::Conflict(violation) => return Refused::Conflict(violation.text),
        SqlError::NotGranted(text) => ("not granted", text),
        SqlError::Invalid(text) => ("invalid", text),
        SqlError::Aborted(text) => ("aborted", text),
        SqlError::TooLarge(text) => ("too large", text),
        SqlError::TimedOut(text) => ("timed out", text),
        SqlError::Unavailable(text) => ("unavailable", text),
        // The next delivery finds out: the key is noted or it is not.
        SqlError::InDoubt(text) => ("in doubt", text),
    };
    Refused::Otherwise(format!("{kind}: {text}"))
}
