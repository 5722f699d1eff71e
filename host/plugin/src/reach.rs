//! What the broker lends to a call. Whoever runs components implements it: this crate knows no broker.

use std::pin::Pin;

use crate::staged::Draft;

/// An answer of the broker that may take a moment.
type Lending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the broker lends to one call: reading state, and what it knows of topics.
///
/// # To ensure correctness
/// - [`Self::read`] tells no version newer than what the value was read at, and never a version with the value of another one: by
///   the versions it is decided whether what was staged still holds.
/// - [`Self::message_id`] depends on nothing but the call's question and the number: a call that runs again publishes the same
///   messages.
/// - It changes nothing: what a call stages may be dropped.
pub trait CallReach: Send + Sync {
    /// What is kept under a key of the binding's namespace, and its version.
    ///
    /// # Errors
    /// Why it cannot be read just now; the component is told `unavailable` with this text.
    fn read<'a>(&'a self, key: &'a str) -> Lending<'a, Result<StateValue, String>>;

    /// Whether the topic exists and takes such a message: its type, its sizes. Asked after the grant and the limits of the call
    /// were checked.
    ///
    /// # Errors
    /// What is wrong with the draft.
    fn check_draft<'a>(&'a self, draft: &'a Draft) -> Lending<'a, Result<(), DraftRefused>>;

    /// The id of the how-manieth message of the call, from 0: the same whenever the call is run again.
    fn message_id(&self, number: u32) -> String;
}

/// What is kept under a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateValue {
    /// The value; `None`: there is none, or it expired.
    pub value: Option<Vec<u8>>,
    /// Names what wrote it; 0 if there is none.
    pub version: u64,
    /// When it expires, in ms since 1970 by the log's clock; `None`: never.
    pub expires_at_ms: Option<u64>,
}

/// Why a draft is no message of its topic. The text is for the author of the component.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DraftRefused {
    /// It breaks a rule, or there is no such topic.
    #[error("{0}")]
    Invalid(String),
    /// Something of it is too large.
    #[error("{0}")]
    TooLarge(String),
}
