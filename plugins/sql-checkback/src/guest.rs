//! The component: joins the logic with the broker's WIT world and with `sql`.

use plugin_config::HalfFacts;

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
                include vouch:plugin/checkback-batch-plugin@0.1.0;
                import vouch:plugin/sql@0.1.0;
            }
        ",
        world: "vouch:sql-checkback/plugin",
        generate_all,
    });
}

use bindings::{
    exports::vouch::plugin::checkback::{Guest, Pending, Verdict},
    exports::vouch::plugin::checkback_batch::{Answer, Guest as BatchGuest},
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
        let facts = facts_of(&pending);
        let read = match &settings.fence {
            Some(fence) => read_fences(&settings.database, fence, &[fence.key.fill_plain(&facts)?])?.pop(),
            None => None,
        };
        decide(&settings, &pending, read).map_err(told)
    }
}

impl BatchGuest for Plugin {
    /// One query reads the fence for all. What is left is closed key by key, each in a database transaction of its own: none waits
    /// while it holds another key. One without an answer is left out, and says why in the log; where the database is away, or time is
    /// short, so are those that are not asked about yet.
    fn check_many(halves: Vec<Pending>) -> Result<Vec<Answer>, String> {
        tell_panics();
        let settings = Settings::read(host::config)?;
        let mut answers = Vec::new();
        let mut why = None;
        let mut left_out = |pending: &Pending, reason: String| {
            host::log(Level::Warn, &format!("{}: no answer: {reason}", pending.transaction_id));
            why.get_or_insert(reason);
        };
        let mut asked = with_fences(&settings, &halves, &mut left_out)?;
        // First what was read: that is true whatever becomes of the rest. What is to be closed begins at another one each time, so that
        // keys that are held, and cost the time of all, do not always come first.
        asked.sort_by_key(|(_, read)| !matches!(read, Some(Fenced::Committed | Fenced::RolledBack)));
        let decided =
            asked.iter().filter(|(_, read)| matches!(read, Some(Fenced::Committed | Fenced::RolledBack))).count();
        let open = &mut asked[decided..];
        if !open.is_empty() {
            open.rotate_left(usize::try_from(host::now() % open.len() as u64).unwrap_or(0));
        }
        for (pending, read) in asked {
            match decide(&settings, pending, read) {
                Ok(verdict) => answers.push(Answer { transaction_id: pending.transaction_id.clone(), verdict }),
                Err(unsaid) => {
                    let ends = matches!(unsaid, Unsaid::Database(SqlError::TimedOut(_) | SqlError::Unavailable(_)));
                    left_out(pending, told(unsaid));
                    if ends {
                        break;
                    }
                }
            }
        }
        match why {
            Some(why) if answers.is_empty() => Err(why),
            _ => Ok(answers),
        }
    }
}

/// Each with what the fence says of it, by one query; `None` where there is none. One whose key cannot be made is left out.
fn with_fences<'a>(
    settings: &Settings,
    halves: &'a [Pending],
    left_out: &mut impl FnMut(&Pending, String),
) -> Result<Vec<(&'a Pending, Option<Fenced>)>, String> {
    let Some(fence) = &settings.fence else { return Ok(halves.iter().map(|each| (each, None)).collect()) };
    let mut keyed = Vec::new();
    for pending in halves {
        match fence.key.fill_plain(&facts_of(pending)) {
            Ok(key) => keyed.push((pending, key)),
            Err(reason) => left_out(pending, reason),
        }
    }
    let (asked, keys): (Vec<_>, Vec<_>) = keyed.into_iter().unzip();
    let read = read_fences(&settings.database, fence, &keys)?;
    // None at all where the grant names no fence.
    let read = read.into_iter().map(Some).chain(std::iter::repeat(None));
    Ok(asked.into_iter().zip(read).collect())
}

fn facts_of(pending: &Pending) -> HalfFacts<'_> {
    let half = &pending.half;
    HalfFacts { keys: &half.keys, id: &half.id, transaction: &pending.transaction_id, properties: &half.properties }
}

/// Where no standard error exists (wasm32-unknown-unknown), a panic's text would be lost: send it to the plugin's log.
fn tell_panics() {
    #[cfg(not(target_os = "wasi"))]
    std::panic::set_hook(Box::new(|panic| host::log(Level::Error, &panic.to_string())));
}

/// Why there is no verdict.
enum Unsaid {
    /// The database said no.
    Database(SqlError),
    /// Something else.
    Because(String),
}

impl From<SqlError> for Unsaid {
    fn from(error: SqlError) -> Self {
        Self::Database(error)
    }
}

impl From<String> for Unsaid {
    fn from(reason: String) -> Self {
        Self::Because(reason)
    }
}

/// What the fence says of these keys; empty: the grant names none, and nobody said that it must.
fn read_fences(database: &str, fence: &FenceSettings, keys: &[String]) -> Result<Vec<Fenced>, String> {
    let read = match sql::read_fence(database, keys) {
        // What is to run when it is closed would never run.
        Err(SqlError::NotGranted(_)) if fence.if_granted && fence.on_rollback.is_none() => return Ok(Vec::new()),
        read => read.map_err(|error| told(error.into()))?,
    };
    if read.len() == keys.len() { Ok(read) } else { Err("the fence was read, and said nothing".to_owned()) }
}

fn decide(settings: &Settings, pending: &Pending, read: Option<Fenced>) -> Result<Verdict, Unsaid> {
    let asked = Asked { age_ms: pending.asked_at.saturating_sub(pending.opened_at), checks_left: pending.checks_left };
    let decision = match (&settings.fence, read) {
        (Some(fence), Some(read)) => by_fence(settings, fence, pending, read, asked)?,
        _ => alone(
            said_of(settings, pending, asked, false)?.ok_or("the binding's grant names no fence table".to_owned())?,
        ),
    };
    host::log(Level::Debug, &format!("{}: {decision:?}", settings.database));
    Ok(match decision {
        Decision::Commit => Verdict::Commit,
        Decision::Rollback(reason) => Verdict::Rollback(reason),
        Decision::Unknown(reason) => Verdict::Unknown(Postponement { reason, retry_after: None }),
    })
}

/// What the statement says, if there is one.
fn said_of(settings: &Settings, pending: &Pending, asked: Asked, fenced: bool) -> Result<Option<Said>, Unsaid> {
    let Some(question) = &settings.question else { return Ok(None) };
    let found = find(&settings.database, question, &facts_of(pending))?;
    Ok(Some(said(question, &found, asked, fenced)))
}

/// The fence first: where it is closed nothing commits any more, whatever else is in the database. Where it says nothing the
/// statement is asked.
fn by_fence(
    settings: &Settings,
    fence: &FenceSettings,
    pending: &Pending,
    read: Fenced,
    asked: Asked,
) -> Result<Decision, Unsaid> {
    let (fenced, said) = match read {
        Fenced::Missing => {
            let said = said_of(settings, pending, asked, true)?;
            if said == Some(Said::Commit) {
                return Ok(Decision::Commit);
            }
            if let Err(meanwhile) = closes(fence, said.as_ref(), asked) {
                return Ok(meanwhile);
            }
            let facts = facts_of(pending);
            let also = fence.on_rollback.as_ref().map(|statement| filled(statement, &facts)).transpose()?;
            let key = fence.key.fill_plain(&facts)?;
            (sql::close_fence(&settings.database, &key, also.as_slice())?, said)
        }
        read => (read, None),
    };
    match (fenced, said) {
        (Fenced::Committed, _) => Ok(Decision::Commit),
        (Fenced::RolledBack, Some(Said::Rollback(reason))) => {
            Ok(Decision::Rollback(format!("the fence is closed: {reason}")))
        }
        (Fenced::RolledBack, _) => Ok(Decision::Rollback("the fence is closed".to_owned())),
        (Fenced::Held, _) => {
            Err("an open database transaction holds the row, or the database is busy, or producers contradict what the fence says \
                 and the node lets nothing be closed (the binding's standing says so)"
                .to_owned()
                .into())
        }
        (Fenced::Missing, _) => Err("the row of the fence was there, and is gone".to_owned().into()),
    }
}

fn find(database: &str, question: &Question, facts: &HalfFacts<'_>) -> Result<Found, Unsaid> {
    let rows = sql::run(database, &filled(&question.statement, facts)?)?.rows;
    let Some(first) = rows.first() else { return Ok(Found::NoRow) };
    if rows.len() > 1 {
        return Err("the statement answers more than one row, and which comes first is chance: let it answer one"
            .to_owned()
            .into());
    }
    Ok(match first.first() {
        None | Some(Value::Null) => Found::Null,
        Some(Value::Boolean(yes)) => Found::Value(yes.to_string()),
        Some(Value::Integer(number)) => Found::Value(number.to_string()),
        Some(Value::Real(number)) => Found::Value(number.to_string()),
        Some(Value::Text(text)) => Found::Value(text.trim_end().to_owned()),
        Some(Value::Bytes(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Found::Value(text.to_owned()),
            Err(_) => return Err("the value is no text: cast it in the statement".to_owned().into()),
        },
    })
}

fn filled(statement: &ParameterizedText, facts: &HalfFacts<'_>) -> Result<Statement, String> {
    let params = statement.params.iter().map(|each| each.fill_plain(facts).map(Value::Text));
    Ok(Statement { text: statement.text.clone(), params: params.collect::<Result<_, _>>()? })
}

/// An error of the database is no answer.
fn told(unsaid: Unsaid) -> String {
    let error = match unsaid {
        Unsaid::Because(reason) => return reason,
        Unsaid::Database(error) => error,
    };
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
