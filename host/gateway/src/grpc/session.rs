//! Heartbeat and NotifyClientTermination (§4.2, §4.3), and what every other call says about its client.

use std::time::Instant;

use vouch_broker::{Refusal, ResourceName, TagFilter};
use vouch_node::{Declaration, Role, SESSIONS_MAX};
use vouch_protocol::validate;
use vouch_protocol::wire::{HeartbeatRequest, HeartbeatResponse, NotifyClientTerminationResponse};

use super::Messaging;
use super::answer::{Refused, ok};
use super::caller::Caller;

/// The role as the node names it.
pub(super) fn node_role(role: validate::Role) -> Role {
    match role {
        validate::Role::Producer => Role::Producer,
        validate::Role::PushConsumer => Role::PushConsumer,
        validate::Role::SimpleConsumer => Role::SimpleConsumer,
    }
}

/// The refusal of one session too many.
pub(super) fn too_many_sessions() -> Refusal {
    Refusal::TooMany(format!("{SESSIONS_MAX} clients are connected, which is the bound; stop some and try again"))
}

impl Messaging {
    /// Any call keeps its client's session alive.
    pub(super) fn heard(&self, client_id: &str) -> bool {
        self.shared.node.sessions().heard(client_id, Instant::now())
    }

    /// A client that is not known, for instance after a restart, gets its session from the heartbeat: the Rust client
    /// never sends its settings again, others only after minutes.
    pub(super) fn heartbeat(
        &self,
        caller: Caller<'_>,
        request: HeartbeatRequest,
    ) -> Result<HeartbeatResponse, Refused> {
        let client_id = caller.client_id()?;
        let (role, group) = validate::heartbeat(request, caller.names())?;
        if !self.heard(client_id) {
            let declaration =
                Declaration { role: node_role(role), topics: Vec::new(), group, subscriptions: Vec::new() };
            if !self.shared.node.sessions().declare(client_id, declaration, Instant::now()) {
                return Err(too_many_sessions().into());
            }
        }
        Ok(HeartbeatResponse { status: Some(ok()) })
    }

    /// Always OK for a known or unknown client: the Rust client turns anything else into an error of its shutdown.
    pub(super) fn terminate(&self, caller: Caller<'_>) -> Result<NotifyClientTerminationResponse, Refused> {
        self.shared.node.sessions().close(caller.client_id()?);
        Ok(NotifyClientTerminationResponse { status: Some(ok()) })
    }

    /// Takes note of what a consumer really asks for: it has this filter for as long as its session lives, and so long the
    /// group skips nothing that it matches (ruling 12).
    pub(super) fn note_receive(
        &self,
        client_id: &str,
        group: &ResourceName,
        subscription: (&ResourceName, &TagFilter),
        auto_renew: bool,
    ) -> Result<(), Refused> {
        let role = if auto_renew { Role::PushConsumer } else { Role::SimpleConsumer };
        let (topic, filter) = subscription;
        let sessions = self.shared.node.sessions();
        let known = sessions.subscribe(client_id, role, (group, topic, filter), Instant::now());
        if known { Ok(()) } else { Err(too_many_sessions().into()) }
    }
}
