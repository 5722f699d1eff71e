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

    /// Takes note of what a consumer really asks for. Some declare no subscriptions in their settings, and a filter
    /// that is not known would let other members of the group skip messages that this one wants (ruling 12).
    pub(super) fn note_receive(
        &self,
        client_id: &str,
        group: &ResourceName,
        subscription: (&ResourceName, &TagFilter),
        auto_renew: bool,
    ) -> Result<(), Refused> {
        let sessions = self.shared.node.sessions();
        let (topic, filter) = subscription;
        let mut declaration = match sessions.declaration(client_id) {
            Some(known) if known.group.as_ref() == Some(group) => known,
            _ => {
                let role = if auto_renew { Role::PushConsumer } else { Role::SimpleConsumer };
                Declaration { role, topics: Vec::new(), group: Some(group.clone()), subscriptions: Vec::new() }
            }
        };
        let declared = declaration.subscriptions.iter_mut().find(|(known, _)| known == topic);
        match declared {
            Some((_, known)) if known == filter => {
                self.heard(client_id);
                return Ok(());
            }
            Some((_, known)) => *known = filter.clone(),
            None => {
                // A client that asks for ever more topics is forgotten from its oldest.
                if declaration.subscriptions.len() >= vouch_protocol::limits::DECLARED_TOPICS_MAX {
                    declaration.subscriptions.remove(0);
                }
                declaration.subscriptions.push((topic.clone(), filter.clone()));
            }
        }
        if sessions.declare(client_id, declaration, Instant::now()) { Ok(()) } else { Err(too_many_sessions().into()) }
    }
}
