//! Requests and answers: many at once on one connection, answers in any order.
//!
//! One thing must never be in doubt for the caller: whether its request may have reached a handler. A request is *queued* until
//! the first byte of it is about to be written, and *sent* from then on, whatever became of that byte. What ends while it is
//! queued was certainly not seen by anybody; of what was sent only the other can say that (`NotTaken`), or nobody knows.

mod answering;
mod call;
mod caller;
mod failed;
mod outbox;
mod serve;

pub(crate) use answering::{CallsServed, answer};
pub use caller::Caller;
pub use failed::CallFailed;
pub(crate) use outbox::CallOutbox;
pub use serve::Serve;
pub(crate) use serve::ServeAny;
