//! What one call of a component may use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::quantity::{ByteSize, duration_text};

/// Most calls at the same time on one node.
pub const MAX_NODE_CONCURRENCY: usize = 1024;

/// The `limits` of a binding; an absent field takes its default. All of them are enforced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Linear memory of one instance, summed over all its memories, and what the host holds for it: of what it built with
    /// `wasi:http`, of the state that it read, of the messages that it published. 1 MiB to the engine's `max_memory`; 64 MiB.
    pub memory: ByteSize,
    /// Wall-clock time of one call, waiting for a server included. 10 ms – 60 s; 1 s.
    #[serde(with = "duration_text")]
    pub deadline: Duration,
    /// Calls of this binding at the same time. 1 to [`MAX_NODE_CONCURRENCY`]; 8. A node that has fewer places takes as many as it has:
    /// another one of the cluster may have more.
    pub concurrency: usize,
    /// Bytes of text in one answer: the reason of a rollback or an unknown, or an error. 64 B – 256 KiB; 16 KiB.
    pub output: ByteSize,
    /// Bytes in the body of one response to an outgoing HTTP request. 1 KiB – 16 MiB; 1 MiB.
    pub http_response: ByteSize,
    /// Outgoing HTTP requests in one call, redirects that the guest follows included. 1 – 256; 16.
    pub http_requests: u32,
    /// Rows that one call of `sql` may answer, all its statements together. 1 – 100 000; 1 000.
    pub sql_rows: u32,
    /// Bytes that one call of `sql` may send or answer, those that a row costs included. 1 KiB – 16 MiB; 1 MiB.
    pub sql_bytes: ByteSize,
    /// Bytes that the binding's namespace of state may hold; kept by the log, which alone knows what is in there. 1 KiB – 512 MiB;
    /// 64 MiB.
    pub state: ByteSize,
    /// Deliveries in a second to a component that consumes; kept by whoever delivers. 1 – 100 000; none: as fast as it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Bytes that the answers of a component that consumes may put into the log in a second: what they publish and keep; kept by
    /// whoever delivers. What is more than 256 KiB in one answer counts four times, since everybody's messages wait for it.
    /// 64 KiB – 1 GiB; 16 MiB.
    pub effects_rate: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: ByteSize::mib(64),
            deadline: Duration::from_secs(1),
            concurrency: 8,
            output: ByteSize::kib(16),
            http_response: ByteSize::mib(1),
            http_requests: 16,
            sql_rows: 1_000,
            sql_bytes: ByteSize::mib(1),
            state: ByteSize::mib(64),
            rate: None,
            effects_rate: ByteSize::mib(16),
        }
    }
}

/// A limit outside its bounds. Set the field to a value within them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limits.{field} is {value}: it must be between {least} and {most}")]
pub struct LimitError {
    /// The field's name.
    pub field: &'static str,
    /// What was asked for.
    pub value: String,
    /// The least that is accepted.
    pub least: String,
    /// The most that is accepted.
    pub most: String,
}

impl Limits {
    /// Bounds of [`Limits::deadline`].
    pub const DEADLINE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));
    /// Least value of [`Limits::memory`]: what a small component in Rust starts with.
    pub const MEMORY_LEAST: ByteSize = ByteSize::mib(1);
    /// Bounds of [`Limits::output`].
    pub const OUTPUT: (ByteSize, ByteSize) = (ByteSize(64), ByteSize::kib(256));
    /// Bounds of [`Limits::http_response`].
    pub const HTTP_RESPONSE: (ByteSize, ByteSize) = (ByteSize::kib(1), ByteSize::mib(16));
    /// Bounds of [`Limits::http_requests`].
    pub const HTTP_REQUESTS: (u32, u32) = (1, 256);
    /// Bounds of [`Limits::sql_rows`].
    pub const SQL_ROWS: (u32, u32) = (1, 100_000);
    /// Bounds of [`Limits::sql_bytes`].
    pub const SQL_BYTES: (ByteSize, ByteSize) = (ByteSize::kib(1), ByteSize::mib(16));
    /// Bounds of [`Limits::state`].
    pub const STATE: (ByteSize, ByteSize) = (ByteSize::kib(1), ByteSize::mib(512));
    /// Bounds of [`Limits::rate`].
    pub const RATE: (u32, u32) = (1, 100_000);
    /// Bounds of [`Limits::effects_rate`].
    pub const EFFECTS_RATE: (ByteSize, ByteSize) = (ByteSize::kib(64), ByteSize::mib(1024));

    /// Checks every field against its bounds.
    ///
    /// # Errors
    /// The first field that is out of bounds.
    pub fn validate(&self, max_memory: ByteSize) -> Result<(), LimitError> {
        within("memory", self.memory, (Self::MEMORY_LEAST, max_memory), ToString::to_string)?;
        within("deadline", self.deadline, Self::DEADLINE, |d| humantime::format_duration(*d).to_string())?;
        within("concurrency", self.concurrency, (1, MAX_NODE_CONCURRENCY), ToString::to_string)?;
        within("output", self.output, Self::OUTPUT, ToString::to_string)?;
        within("http_response", self.http_response, Self::HTTP_RESPONSE, ToString::to_string)?;
        within("http_requests", self.http_requests, Self::HTTP_REQUESTS, ToString::to_string)?;
        within("sql_rows", self.sql_rows, Self::SQL_ROWS, ToString::to_string)?;
        within("sql_bytes", self.sql_bytes, Self::SQL_BYTES, ToString::to_string)?;
        within("state", self.state, Self::STATE, ToString::to_string)?;
        within("effects_rate", self.effects_rate, Self::EFFECTS_RATE, ToString::to_string)?;
        self.rate.map_or(Ok(()), |rate| within("rate", rate, Self::RATE, ToString::to_string))
    }
}

/// Refuses a limit that lies outside of what this version can keep, and names the bound that it breaks.
fn within<T: PartialOrd>(
    field: &'static str,
    value: T,
    (least, most): (T, T),
    show: impl Fn(&T) -> String,
) -> Result<(), LimitError> {
    if value >= least && value <= most {
        return Ok(());
    }
    Err(LimitError { field, value: show(&value), least: show(&least), most: show(&most) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl Fn(&mut Limits)) -> Result<(), LimitError> {
        let mut limits = Limits::default();
        change(&mut limits);
        limits.validate(ByteSize::mib(256))
    }

    #[test]
    fn each_bound_holds_from_both_sides() {
        type Set = fn(&mut Limits, u64);
        let ms: Set = |l, v| l.deadline = Duration::from_millis(v);
        let memory: Set = |l, v| l.memory = ByteSize(v);
        let concurrency: Set = |l, v| l.concurrency = usize::try_from(v).unwrap();
        let output: Set = |l, v| l.output = ByteSize(v);
        let response: Set = |l, v| l.http_response = ByteSize(v);
        let requests: Set = |l, v| l.http_requests = u32::try_from(v).unwrap();
        let state: Set = |l, v| l.state = ByteSize(v);
        let rate: Set = |l, v| l.rate = Some(u32::try_from(v).unwrap());
        let effects_rate: Set = |l, v| l.effects_rate = ByteSize(v);
        for (field, set, least, most) in [
            ("deadline", ms, 10, 60_000),
            ("memory", memory, 1 << 20, 256 << 20),
            ("concurrency", concurrency, 1, 1024),
            ("output", output, 64, 256 << 10),
            ("http_response", response, 1 << 10, 16 << 20),
            ("http_requests", requests, 1, 256),
            ("state", state, 1 << 10, 512 << 20),
            ("rate", rate, 1, 100_000),
            ("effects_rate", effects_rate, 64 << 10, 1 << 30),
        ] {
            for (value, fits) in [(least - 1, false), (least, true), (most, true), (most + 1, false)] {
                let outcome = check(|l| set(l, value));
                assert_eq!(outcome.is_ok(), fits, "{field} = {value}");
                if let Err(error) = outcome {
                    assert_eq!(error.field, field);
                }
            }
        }
    }

    #[test]
    fn limits_are_read_from_a_bindings_json() {
        let limits: Limits =
            serde_json::from_str(r#"{"memory":"32MiB","deadline":"250ms","concurrency":2,"output":1024}"#).unwrap();
        assert_eq!(limits.memory, ByteSize::mib(32));
        assert_eq!(limits.deadline, Duration::from_millis(250));
        assert_eq!(limits.output, ByteSize::kib(1));
        assert_eq!(limits.http_requests, Limits::default().http_requests);
        assert_eq!((limits.state, limits.rate), (ByteSize::mib(64), None));
        let consumer: Limits = serde_json::from_str(r#"{"state":"1GiB","rate":200}"#).unwrap();
        assert_eq!((consumer.state, consumer.rate), (ByteSize::mib(1024), Some(200)));
        for limits in [limits, consumer] {
            let again: Limits = serde_json::from_str(&serde_json::to_string(&limits).unwrap()).unwrap();
            assert_eq!(again, limits);
        }
    }

    #[test]
    fn an_unknown_limit_is_an_error() {
        let error = serde_json::from_str::<Limits>(r#"{"memroy":"32MiB"}"#).unwrap_err();
        assert!(error.to_string().contains("memroy"), "{error}");
        assert!(serde_json::from_str::<Limits>(r#"{"deadline":"soon"}"#).is_err());
    }
}
