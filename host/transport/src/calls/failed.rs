//! Why a call has no answer.

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFailed {
    /// Certainly no handler saw any of the request: it may be sent again, or elsewhere.
    #[error("not sent: {0}")]
    NotSent(String),
    /// Certainly no handler saw any of it: so many are under way, here or there, that there is no room for one more.
    #[error("not sent, busy: {0}")]
    NoRoom(String),
    /// A handler may have seen it, and may have done what it asks for. Only something that may happen twice is sent again.
    #[error("sent, and no answer came: {0}")]
    Unknown(String),
}
