//! The component: joins the logic with the broker's WIT world and with `sql`.

use checkback_config::Facts;

use crate::{
    decision::{Asked, Decision, Found, Said, alone, closes, said},
    settings::{FenceSettings, ParameterizedText, Question, Settings},
};

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package vouch:sql-checkback;
            world plugin {
                include vouch:plugin/checkback-plugin@0.1.0;
                import vouch:plugin/sql@0.1.0;
            }
        ",
        world: "vouch:sql-checkback/plugin",
        generate_all,
    });
}

use bindings::{
    exports::vouch::plugin::checkback::{Guest, Pending, Verdict},
    vouch::plugin::{
        host::{self, Level},
        sql::{self, Fenced, SqlError, Statement, Value},
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
    fn check(pending: Pending) -> Result<Verdict, String> {
        tell_panics();
        let settings = Settings::read(host::config)?;
        let half = &pending.half;
        let facts = Facts {
            keys: &half.keys,
            id: &half.id,
            transaction: &pending.transaction_id,
            properties: &half.properties,
        };
        let age_ms = pending.asked_at.saturating_sub(pending.opened_at);
        let asked = Asked { age_ms, checks_left: pending.checks_left };
        let decision = decide(&settings, &facts, asked)?;
        host::log(Level::Debug, &format!("{}: {decision:?}", settings.database));
        Ok(match decision {
            Decision::Commit => Verdict::Commit,
            Decision::Rollback(reason) => Verdict::Rollback(reason),
            Decision::Unknown(reason) => Verdict::Unknown(Postponement { reason, retry_after: None }),
        })
    }
}

/// Where no standard error exists (wasm32-unknown-unknown), a panic's text would be lost: send it to the plugin's log.
fn tell_panics() {
    #[cfg(not(target_os = "wasi"))]
    std::panic::set_hook(Box::new(|panic| host::log(Level::Error, &panic.to_string())));
}

fn decide(settings: &Settings, facts: &Facts<'_>, asked: Asked) -> Result<Decision, String> {
    let database = &settings.database;
    let found = settings.question.as_ref().map(|question| find(database, question, facts)).transpose()?;
    let said_of = |fenced| match (&settings.question, &found) {
        (Some(question), Some(found)) => Some(said(question, found, asked, fenced)),
        _ => None,
    };
    let fenced = match &settings.fence {
        Some(fence) => by_fence(database, fence, facts, said_of(true).as_ref(), asked)?,
        None => None,
    };
    match fenced {
        Some(decision) => Ok(decision),
        None => said_of(false).map(alone).ok_or_else(|| "the binding's grant names no fence table".to_owned()),
    }
}

/// What the fence decides; `None`: the grant names none, and nobody said that it must.
fn by_fence(
    database: &str,
    fence: &FenceSettings,
    facts: &Facts<'_>,
    said: Option<&Said>,
    asked: Asked,
) -> Result<Option<Decision>, String> {
    let key = fence.key.fill_plain(facts)?;
    let read = match sql::read_fence(database, std::slice::from_ref(&key)) {
        Err(SqlError::NotGranted(_)) if fence.if_granted => return Ok(None),
        read => read.map_err(told)?,
    };
    let fenced = match read.first() {
        // The fence first: where it is closed nothing commits any more, whatever else is in the database.
        Some(Fenced::Missing) if said == Some(&Said::Commit) => return Ok(Some(Decision::Commit)),
        Some(Fenced::Missing) => match closes(fence, said, asked) {
            Err(meanwhile) => return Ok(Some(meanwhile)),
            Ok(()) => {
                let also = fence.on_rollback.as_ref().map(|statement| filled(statement, facts)).transpose()?;
                sql::close_fence(database, &key, also.as_slice()).map_err(told)?
            }
        },
        Some(fenced) => *fenced,
        None => return Err("the fence was read, and said nothing".to_owned()),
    };
    match (fenced, said) {
        (Fenced::Committed, _) => Ok(Some(Decision::Commit)),
        (Fenced::RolledBack, Some(Said::Rollback(reason))) => {
            Ok(Some(Decision::Rollback(format!("the fence is closed: {reason}"))))
        }
        (Fenced::RolledBack, _) => Ok(Some(Decision::Rollback("the fence is closed".to_owned()))),
        (Fenced::Held, _) => Err("an open database transaction holds the row, or the database is busy".to_owned()),
        (Fenced::Missing, _) => Err("the row of the fence was there, and is gone".to_owned()),
    }
}

fn find(database: &str, question: &Question, facts: &Facts<'_>) -> Result<Found, String> {
    let rows = sql::run(database, &filled(&question.statement, facts)?).map_err(told)?.rows;
    let Some(first) = rows.first() else { return Ok(Found::NoRow) };
    if rows.len() > 1 {
        return Err(
            "the statement answers more than one row, and which comes first is chance: let it answer one".to_owned()
        );
    }
    Ok(match first.first() {
        None | Some(Value::Null) => Found::Null,
        Some(Value::Boolean(yes)) => Found::Value(yes.to_string()),
        Some(Value::Integer(number)) => Found::Value(number.to_string()),
        Some(Value::Real(number)) => Found::Value(number.to_string()),
        Some(Value::Text(text)) => Found::Value(text.trim_end().to_owned()),
        Some(Value::Bytes(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Found::Value(text.to_owned()),
            Err(_) => return Err("the value is no text: cast it in the statement".to_owned()),
        },
    })
}

fn filled(statement: &ParameterizedText, facts: &Facts<'_>) -> Result<Statement, String> {
    let params = statement.params.iter().map(|each| each.fill_plain(facts).map(Value::Text));
    Ok(Statement { text: statement.text.clone(), params: params.collect::<Result<_, _>>()? })
}

/// An error of the database is no answer.
fn told(error: SqlError) -> String {
    match error {
        SqlError::NotGranted(text) => format!("not granted: {text}"),
        SqlError::Invalid(text) => format!("invalid: {text}"),
        SqlError::BadValue(text) => format!("bad value: {text}"),
        SqlError::Conflict(violation) => format!("conflict: {}", violation.text),
        SqlError::Aborted(text) => format!("aborted: {text}"),
        SqlError::TooLarge(text) => format!("too large: {text}"),
        SqlError::TimedOut(text) => format!("timed out: {text}"),
        SqlError::Unavailable(text) => format!("unavailable: {text}"),
        SqlError::InDoubt(text) => format!("in doubt: {text}"),
    }
}
