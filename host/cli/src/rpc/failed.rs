//! What went wrong with a call, as a person sees it.

use tonic::Status as GrpcStatus;
use vouch_protocol::wire;

use super::{ANSWER_WITHIN, host_of};
use crate::escape;
use crate::failure::ProblemAnswer;
use crate::ports;

/// The error, or that the address is the HTTP port of a node: that one closes connections of other protocols without a word,
/// as a gRPC port does whose places are taken.
pub(super) async fn or_wrong_port(address: &str, error: anyhow::Error) -> anyhow::Error {
    let kind = error.downcast_ref::<ProblemAnswer>().map(|problem| problem.document()["type"].clone());
    if kind.is_none_or(|kind| kind != "urn:vouch:cli:closed" && kind != "urn:vouch:cli:transport") {
        return error;
    }
    wrong_port(address).await.unwrap_or(error)
}

/// The error where the address is the HTTP port of a node.
pub(crate) async fn wrong_port(address: &str) -> Option<anyhow::Error> {
    let host = host_of(address).to_owned();
    tokio::task::spawn_blocking(move || ports::taken_for_grpc(&host)).await.ok().flatten()
}

/// Turns a missing or bad status into the error a person sees.
///
/// # Errors
/// Any code but OK, in the node's own words.
pub(crate) fn check(status: Option<&wire::Status>) -> anyhow::Result<()> {
    let Some(status) = status else {
        return Err(ProblemAnswer::local(
            "refused",
            "the broker's answer has no status",
            "is this a Vouch node?".to_owned(),
        ));
    };
    match wire::Code::try_from(status.code) {
        Ok(wire::Code::Ok) => Ok(()),
        code => Err(refused(code.map_or("unknown code", |code| code.as_str_name()), status.code, &status.message)),
    }
}

/// A transport failure as the error a person sees.
pub(crate) fn transport(error: &GrpcStatus) -> anyhow::Error {
    // What the node says itself has no source here.
    let here = std::error::Error::source(error).is_some();
    if here && matches!(error.code(), tonic::Code::Cancelled | tonic::Code::Unknown) {
        return ProblemAnswer::local(
            "closed",
            "the node closed the connection before it answered",
            "its places for gRPC connections may all be taken (its log says so, and `connections` in its settings is how \
             many there are), or it is stopping: end other clients or try again in a moment"
                .to_owned(),
        );
    }
    ProblemAnswer::local(
        "transport",
        &format!("the call failed: {} ({:?})", escape::line(error.message()), error.code()),
        match error.code() {
            tonic::Code::Unavailable if !here => {
                "the node said so itself; `/readyz` on its HTTP port tells how far it is"
            }
            tonic::Code::Unavailable => "check that the node runs and that --grpc names its gRPC address",
            tonic::Code::DeadlineExceeded => "it may have happened all the same; look before you repeat it",
            _ => "",
        }
        .to_owned(),
    )
}

/// A refusal in the node's words, with the name of its code for whoever looks it up.
pub(super) fn refused(name: &str, code: i32, message: &str) -> anyhow::Error {
    let title = if message.is_empty() { "the broker refused".into() } else { escape::line(message) };
    ProblemAnswer::refusal(code, &title, format!("the broker answered {name} ({code})"))
}

/// The port is open, and whoever has it does not speak: hardly a node.
pub(super) fn silent(address: &str) -> anyhow::Error {
    unreachable_node(address, &format!("connected, but no settings came within {ANSWER_WITHIN:?}"))
}

/// Nobody answers there, and what to do about it.
pub(super) fn unreachable_node(address: &str, why: &str) -> anyhow::Error {
    ProblemAnswer::local(
        "unreachable",
        &format!("no answer from a Vouch node at {address}: {why}"),
        "start a node with: vouch serve; or name the one you mean with --grpc ADDR or VOUCH_GRPC_ADDR".to_owned(),
    )
}

/// The innermost cause: `transport error` alone helps nobody.
pub(super) fn source_text(error: &dyn std::error::Error) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_node_says_is_told_from_what_befell_the_connection() {
        let told = |status: GrpcStatus| transport(&status).to_string();
        let starting = told(GrpcStatus::unavailable("the log is being recovered"));
        assert!(starting.contains("recovered") && starting.contains("/readyz"), "{starting}");
        let late = told(GrpcStatus::deadline_exceeded("3s"));
        assert!(late.contains("it may have happened all the same"), "{late}");
        let broken = |code| {
            let mut status = GrpcStatus::new(code, "h2");
            status.set_source(std::sync::Arc::new(std::io::Error::other("reset")));
            status
        };
        assert!(told(broken(tonic::Code::Unavailable)).contains("check that the node runs"));
        assert!(transport(&broken(tonic::Code::Unavailable)).downcast_ref::<ProblemAnswer>().unwrap().may_pass());
        let closed = transport(&broken(tonic::Code::Cancelled));
        assert_eq!(closed.downcast_ref::<ProblemAnswer>().unwrap().document()["type"], "urn:vouch:cli:closed");
        let hostile = told(GrpcStatus::internal("a\n\u{1b}[2J"));
        assert!(hostile.starts_with("the call failed: a\\n\\u{1b}[2J (Internal)"), "{hostile}");
    }

    #[test]
    fn the_innermost_cause_is_told() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        assert_eq!(source_text(&Outer(std::io::Error::other("inner"))), "inner");
        assert!(silent("h:1").to_string().contains("connected, but no settings came within 3s"));
    }

    #[test]
    fn a_refusal_carries_the_brokers_sentence_and_code() {
        let status = wire::Status { code: wire::Code::TopicNotFound as i32, message: "no topic x".to_owned() };
        let text = check(Some(&status)).unwrap_err().to_string();
        assert_eq!(text, "no topic x\n  the broker answered TOPIC_NOT_FOUND (40402)");
        assert!(check(None).is_err());
        let passes = |code| {
            let status = wire::Status { code, message: String::new() };
            check(Some(&status)).unwrap_err().downcast_ref::<ProblemAnswer>().unwrap().may_pass()
        };
        assert!(passes(wire::Code::HaNotAvailable as i32) && passes(wire::Code::MasterPersistenceTimeout as i32));
        assert!(!passes(wire::Code::TopicNotFound as i32) && !passes(wire::Code::Unsupported as i32));
        assert!(check(Some(&wire::Status { code: 20_000, message: String::new() })).is_ok());
    }
}
