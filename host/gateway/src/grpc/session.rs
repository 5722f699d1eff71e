//! Heartbeat and NotifyClientTermination (§4.2, §4.3), and what every other call says about its client.
//!
//! A client is introduced by its heartbeat or its settings; any call of a known one keeps it alive. Sessions are not in the log: after a restart clients introduce themselves again.

use std::time::Instant;

use vouch_broker::{NothingStored, ResourceName, TagFilter};
use vouch_node::{Client, NoRoom, SessionRole};
use vouch_protocol::validate::{self, Violation};
use vouch_protocol::wire::{
    Code, HeartbeatRequest, HeartbeatResponse, NotifyClientTerminationRequest, NotifyClientTerminationResponse,
};

use super::Messaging;
use super::answer::{RefusedCall, ok};
use super::caller::CallMetadata;
use super::span::CallSubject;

/// The role as the node names it.
pub(super) fn node_role(role: validate::ClientRole) -> SessionRole {
    match role {
        validate::ClientRole::Producer => SessionRole::Producer,
        validate::ClientRole::PushConsumer => SessionRole::PushConsumer,
        validate::ClientRole::SimpleConsumer => SessionRole::SimpleConsumer,
    }
}

/// The refusal of a client that finds no room.
pub(super) fn refuse(no_room: &NoRoom) -> RefusedCall {
    match no_room {
        NoRoom::Declaration { .. } => Violation::new(Code::BadRequest, no_room.to_string()).into(),
        NoRoom::Sessions(_) | NoRoom::Bytes(_) | NoRoom::Share(_) => NothingStored::TooMany(no_room.to_string()).into(),
    }
}

impl Messaging {
    /// A client as the node's sessions know it.
    pub(super) fn client<'a>(&self, id: &'a str) -> Client<'a> {
        Client { id, address: Some(self.address) }
    }

    /// Any call keeps its client's session alive.
    pub(super) fn heard(&self, client_id: &str) -> bool {
        self.shared.node.sessions.heard(client_id, Instant::now())
    }

    /// A client that is not known, for instance after a restart, gets its session from the heartbeat.
    ///
    /// # Errors
    /// The client does not say what it is, or finds no room among the sessions.
    pub(super) fn heartbeat(
        &self,
        caller: CallMetadata<'_>,
        request: HeartbeatRequest,
    ) -> Result<HeartbeatResponse, RefusedCall> {
        let client_id = caller.client_id()?;
        let (role, group) = validate::heartbeat(request, caller.names())?;
        CallSubject { group: group.as_ref(), ..CallSubject::default() }.record();
        let sessions = &self.shared.node.sessions;
        sessions
            .introduce(self.client(client_id), node_role(role), group, Instant::now())
            .map_err(|why| refuse(&why))?;
        Ok(HeartbeatResponse { status: Some(ok()) })
    }

    /// Always OK for a known or unknown client: the Rust client turns anything else into an error of its shutdown.
    /// The group only says whose the client was.
    pub(super) fn terminate(
        &self,
        caller: CallMetadata<'_>,
        request: NotifyClientTerminationRequest,
    ) -> Result<NotifyClientTerminationResponse, RefusedCall> {
        let group = request.group.and_then(|group| caller.names().group(Some(group)).ok());
        CallSubject { group: group.as_ref(), ..CallSubject::default() }.record();
        self.shared.node.sessions.close(caller.client_id()?, Instant::now());
        Ok(NotifyClientTerminationResponse { status: Some(ok()) })
    }

    /// A client that is not known sends half messages: it can be asked about them. If there is no room for it, others
    /// are asked.
    pub(super) fn introduce_producer(&self, client_id: &str) {
        let sessions = &self.shared.node.sessions;
        if let Err(no_room) = sessions.introduce(self.client(client_id), SessionRole::Producer, None, Instant::now()) {
            tracing::debug!(client_id, %no_room, "a producer of half messages gets no session");
        }
    }

    /// Takes note of what a consumer really asks for: it has this filter for as long as its session lives, and so long the
    /// group skips nothing that it matches (ruling 12).
    pub(super) fn note_receive(
        &self,
        client_id: &str,
        group: &ResourceName,
        subscription: (&ResourceName, &TagFilter),
        auto_renew: bool,
    ) -> Result<(), RefusedCall> {
        let (sessions, client) = (&self.shared.node.sessions, self.client(client_id));
        sessions.note_receive(client, group, subscription, auto_renew, Instant::now()).map_err(|why| refuse(&why))
    }
}
