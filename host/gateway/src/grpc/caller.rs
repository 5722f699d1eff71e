//! Who makes a call: the request metadata (protocol paper §3.3). Nothing but the client id is validated.

use std::time::Duration;

use tonic::metadata::MetadataMap;
use vouch_protocol::validate::{CallNames, Violation, client_id};
use vouch_protocol::wire::Code;
use vouch_protocol::{code, wire};

/// Longest header that the log repeats; a `traceparent` has 55 bytes, the id of a request 36. Longer ones are none.
const TRACE_MAX_BYTES: usize = 128;

/// How a client is spoken to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voice {
    /// The Rust client 5.0.0 panics on codes added after it.
    rust_5_0_0: bool,
}

impl Voice {
    /// A status with a code that this client knows.
    pub(super) fn status(self, code: Code, text: impl Into<String>) -> wire::Status {
        let code = if self.rust_5_0_0 { code::known_to_rust_5_0_0(code) } else { code };
        wire::Status { code: code as i32, message: text.into() }
    }
}

/// A call's metadata, as far as it matters.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallMetadata<'a> {
    /// As it came.
    metadata: &'a MetadataMap,
    /// How its client is spoken to.
    voice: Voice,
}

impl<'a> CallMetadata<'a> {
    /// Reads nothing yet but which client it is.
    pub(super) fn of(metadata: &'a MetadataMap) -> Self {
        let is = |name, value: &str| metadata.get(name).is_some_and(|found| found.as_bytes() == value.as_bytes());
        let rust_5_0_0 = is("x-mq-language", "RUST") && is("x-mq-client-version", "5.0.0");
        Self { metadata, voice: Voice { rust_5_0_0 } }
    }

    /// A header that is text.
    fn text(&self, name: &str) -> Option<&'a str> {
        self.metadata.get(name).and_then(|value| value.to_str().ok())
    }

    /// Header `x-mq-client-id`.
    ///
    /// # Errors
    /// There is none, or it is blank or too long.
    pub(super) fn client_id(&self) -> Result<&'a str, Violation> {
        client_id(self.text("x-mq-client-id"))
    }

    /// Header `x-mq-request-id`, which official clients send with each call: by it their log and this one belong together.
    pub(super) fn request_id(&self) -> Option<&'a str> {
        self.text("x-mq-request-id").filter(|id| id.len() <= TRACE_MAX_BYTES)
    }

    /// Header `traceparent` (W3C Trace Context), if whoever calls is traced.
    pub(super) fn traceparent(&self) -> Option<&'a str> {
        self.text("traceparent").filter(|trace| trace.len() <= TRACE_MAX_BYTES)
    }

    /// Whether this client uses one of several addresses, and goes on with the next one when that node is lost: the official one for
    /// Java does. Those for Python, Node and Go make one host name of all of them, and the Rust client loses transactions where it
    /// is led away from its access point.
    pub(super) fn takes_several_addresses(&self) -> bool {
        self.text("x-mq-language") == Some("JAVA")
    }

    /// How names are read in this call.
    pub(super) fn names(&self) -> CallNames<'a> {
        CallNames { namespace: self.text("x-mq-namespace") }
    }

    /// Time left, as the client says. Clients send up to decades.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.text("grpc-timeout").and_then(grpc_timeout)
    }

    /// How this client is spoken to.
    pub(super) fn voice(&self) -> Voice {
        self.voice
    }
}

/// Reads `grpc-timeout`: digits and a unit. More digits than the eight of the standard are taken as they come.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = digits.parse::<u64>().unwrap_or(u64::MAX);
    Some(match unit {
        "H" => Duration::from_secs(number.saturating_mul(3600)),
        "M" => Duration::from_secs(number.saturating_mul(60)),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_of_decades_are_read_and_nonsense_is_ignored() {
        assert_eq!(grpc_timeout("31536000M"), Some(Duration::from_secs(31_536_000 * 60)));
        assert_eq!(grpc_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(grpc_timeout("3S"), Some(Duration::from_secs(3)));
        assert_eq!(grpc_timeout("40000m"), Some(Duration::from_secs(40)));
        assert_eq!(grpc_timeout("2999742u"), Some(Duration::from_micros(2_999_742)));
        assert_eq!(grpc_timeout("5n"), Some(Duration::from_nanos(5)));
        assert_eq!(grpc_timeout("99999999999999999999999S"), Some(Duration::from_secs(u64::MAX)));
        assert_eq!(grpc_timeout("99999999999999999999999H"), Some(Duration::from_secs(u64::MAX)));
        for nonsense in ["", "S", "5", "-5S", "+5S", "5 S", "5x", "5é"] {
            assert_eq!(grpc_timeout(nonsense), None, "{nonsense:?}");
        }
    }

    fn metadata(pairs: &[(&'static str, &'static str)]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for (name, value) in pairs {
            metadata.insert(*name, value.parse().unwrap());
        }
        metadata
    }

    #[test]
    fn only_the_rust_client_5_0_0_gets_its_old_codes() {
        let code = |language, version| {
            let metadata = metadata(&[("x-mq-language", language), ("x-mq-client-version", version)]);
            CallMetadata::of(&metadata).voice().status(Code::MessageBodyEmpty, "").code()
        };
        assert_eq!(code("RUST", "5.0.0"), Code::MessageCorrupted);
        assert_eq!(code("RUST", "5.1.0"), Code::MessageBodyEmpty);
        assert_eq!(code("JAVA", "5.0.0"), Code::MessageBodyEmpty);
    }

    #[test]
    fn language_protocol_and_version_are_not_validated() {
        let metadata = metadata(&[
            ("x-mq-client-id", "host@1@0@x"),
            ("x-mq-language", "KLINGON"),
            ("x-mq-protocol", "v9"),
            ("x-mq-date-time", "yesterday"),
            ("authorization", "MQv2-HMAC-SHA1 Credential=, SignedHeaders=x-mq-date-time, Signature=00"),
            ("x-mq-namespace", ""),
        ]);
        let caller = CallMetadata::of(&metadata);
        assert_eq!(caller.client_id(), Ok("host@1@0@x"));
        assert_eq!(caller.names().namespace, Some(""));
        assert_eq!(caller.deadline(), None);
    }
}
