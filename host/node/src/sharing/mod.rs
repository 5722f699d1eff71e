//! Sessions of clients, wherever they are connected: the node that leads knows all of them, and reaches their clients.
//!
//! - [`reporter`] tells the leader of the sessions of this node, and begins and ends what a leader keeps of others.
//! - [`there`] is the way to a client that has its stream to another node.
//! - [`answering`] is what nodes ask each other about clients ([`asks`]), done.

mod answering;
mod asks;
mod reporter;
mod there;

pub(crate) use answering::SessionCalls;
pub(crate) use reporter::{SessionReporter, run};
