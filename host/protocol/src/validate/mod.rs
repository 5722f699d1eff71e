//! Requests as clients send them, checked and turned into the broker's own types.
//!
//! Checks run in the order of the reference server, so that a request with several faults gets the same code.

mod client;
mod consume;
mod name;
mod send;
mod transaction;

use std::borrow::Cow;

use vouch_broker::{NameError, Refusal};

pub use client::{ClientRole, DeclaredClient, client_id, heartbeat, settings};
pub use consume::{
    Change, Forward, ValidReceive, acks, change, forward, invisible_duration, poll_wait, receive, tag_filter,
};
pub use name::{CallNames, resource};
pub use send::{Arrival, ValidSend, published, send};
pub use transaction::{Decision, decision};

use crate::code;
use crate::wire::Code;

/// A request that breaks a rule of the protocol: the code for the client's program, the sentence for its author.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Violation {
    /// Code for `Status`.
    pub code: Code,
    /// What is wrong and what to change.
    pub text: Cow<'static, str>,
}

impl Violation {
    /// A violation with a fixed or a made-up sentence.
    pub fn new(code: Code, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<Refusal> for Violation {
    fn from(refusal: Refusal) -> Self {
        Self { code: code::refused(&refusal).code, text: refusal.to_string().into() }
    }
}

impl From<NameError> for Violation {
    fn from(error: NameError) -> Self {
        Refusal::Name(error).into()
    }
}

fn refuse<T>(code: Code, text: impl Into<Cow<'static, str>>) -> Result<T, Violation> {
    Err(Violation::new(code, text))
}

/// Whether text contains a character of Unicode category Cc.
fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// Not empty, but nothing to see either.
fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}
