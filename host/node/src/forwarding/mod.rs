//! Calls of clients that came to a node which does not lead: the leader does what they ask for.
//!
//! - [`leaders`] says where something is done, waits for a leader where there is none, and asks it.
//! - [`call`] is what is asked and answered, as bytes; [`http`] a request to the HTTP API among that; [`context`] what each call
//!   brings along.
//! - [`unheard`] tells the leader what never arrived, which gives it back ([`handed_out`]).
//! - [`serving`] does on the leader what another node asks for, and asks nobody else: so a call makes one hop at most.
//!
//! Requests are forwarded, and never records: the leader picks ids, queue and time.

mod call;
mod came_here;
mod context;
mod give_back;
mod handed_out;
mod http;
mod leaders;
mod lost;
mod serving;
mod unheard;

pub(crate) use call::{ForwardedAnswer, ForwardedAsk, answer_of};
pub use context::CallContext;
pub(crate) use handed_out::HandedOutThere;
pub(crate) use http::HttpApi;
pub use http::{HttpAnswering, HttpCall, HttpCallAnswer, ServeHttp};
pub(crate) use leaders::Leaders;
pub(crate) use serving::ForwardedCalls;
pub(crate) use unheard::UnheardReceive;
