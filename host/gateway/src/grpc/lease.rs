//! AckMessage, ChangeInvisibleDuration and ForwardMessageToDeadLetterQueue (§4.7 to §4.9).

use vouch_broker::{Handle, Refusal, ResourceName};
use vouch_protocol::validate;
use vouch_protocol::wire::{
    AckMessageEntry, AckMessageRequest, AckMessageResponse, AckMessageResultEntry, ChangeInvisibleDurationRequest,
    ChangeInvisibleDurationResponse, ForwardMessageToDeadLetterQueueRequest, ForwardMessageToDeadLetterQueueResponse,
    Status,
};

use super::Messaging;
use super::answer::{Refused, ok, summary};
use super::caller::Caller;

impl Messaging {
    fn open(&self, text: &str) -> Result<Handle, Refusal> {
        self.shared.handles.open(text).map_err(|error| Refusal::InvalidHandle(error.as_str()))
    }

    /// Acknowledges each entry on its own. The answer mirrors the entries.
    pub(super) async fn ack(
        &self,
        caller: Caller<'_>,
        request: &mut AckMessageRequest,
    ) -> Result<AckMessageResponse, Refused> {
        self.heard(caller.client_id()?);
        let (topic, group) = validate::acks(request, caller.names())?;
        let opened: Vec<_> = request.entries.iter().map(|entry| self.open(&entry.receipt_handle)).collect();
        let handles: Vec<_> = opened.iter().filter_map(|handle| handle.as_ref().ok().copied()).collect();
        let mut acked = match handles.is_empty() {
            true => Vec::new(),
            false => self.shared.node.ack(&topic, &group, handles).await?,
        }
        .into_iter();
        let never = || Err(Refusal::Internal("an acknowledgement without a result".to_owned()));
        let results = opened.into_iter().map(|opened| opened.and_then(|_| acked.next().unwrap_or_else(never)));
        let entries: Vec<_> = std::mem::take(&mut request.entries)
            .into_iter()
            .zip(results)
            .map(|(entry, result)| {
                let status = result.map_or_else(|refusal| Refused::from(refusal).status(caller.voice()), |()| ok());
                result_entry(entry, status)
            })
            .collect();
        let status = summary(entries.iter().filter_map(|entry| entry.status.as_ref()));
        Ok(AckMessageResponse { status: Some(status), entries })
    }

    /// Lets a lease end at another time. The handle of the answer replaces the old one.
    pub(super) async fn change_invisible(
        &self,
        caller: Caller<'_>,
        request: &mut ChangeInvisibleDurationRequest,
    ) -> Result<ChangeInvisibleDurationResponse, Refused> {
        self.heard(caller.client_id()?);
        let change = validate::change(request, caller.names())?;
        let handle = self.open(&request.receipt_handle)?;
        let invisible_ms = u64::try_from(change.invisible.as_millis()).unwrap_or(u64::MAX);
        let node = &self.shared.node;
        let handle = node.change_invisible(&change.topic, &change.group, handle, invisible_ms, change.suspend).await?;
        let receipt_handle = self.shared.handles.seal(&handle);
        Ok(ChangeInvisibleDurationResponse { status: Some(ok()), receipt_handle })
    }

    /// Moves a message to the dead-letter topic of the group.
    ///
    /// Clients repeat this call every second until it is answered with OK. So a lease of this topic and group that is
    /// over (the message was moved, acknowledged or handed out again) is answered with OK, and nothing is moved.
    pub(super) async fn forward(
        &self,
        caller: Caller<'_>,
        request: ForwardMessageToDeadLetterQueueRequest,
    ) -> Result<ForwardMessageToDeadLetterQueueResponse, Refused> {
        let client_id = caller.client_id()?;
        self.heard(client_id);
        let forward = validate::forward(request, caller.names())?;
        let handle = self.open(&forward.handle)?;
        let reason = format!("forwarded by {client_id} after {} attempts", forward.attempts);
        let (topic, group) = (&forward.topic, &forward.group);
        match self.shared.node.forward_to_dead_letter(topic, group, handle, reason).await {
            Ok(()) => {}
            Err(Refusal::InvalidHandle(why)) if self.is_of(&handle, topic, group).await? => {
                tracing::info!(%topic, %group, client_id, why, "nothing to forward: the lease is over");
            }
            Err(refusal) => return Err(refusal.into()),
        }
        Ok(ForwardMessageToDeadLetterQueueResponse { status: Some(ok()) })
    }

    async fn is_of(&self, handle: &Handle, topic: &ResourceName, group: &ResourceName) -> Result<bool, Refusal> {
        let node = &self.shared.node;
        let topic = node.topic(topic).await?;
        Ok(topic.id == handle.topic && node.group(group).await.is_some_and(|group| group.id == handle.group))
    }
}

fn result_entry(entry: AckMessageEntry, status: Status) -> AckMessageResultEntry {
    let AckMessageEntry { message_id, receipt_handle, .. } = entry;
    AckMessageResultEntry { message_id, receipt_handle, status: Some(status) }
}

/// The answer to a refused request. The Rust client panics on an answer without entries.
pub(super) fn mirrored(entries: Vec<AckMessageEntry>, status: &Status) -> AckMessageResponse {
    let entries = entries.into_iter().map(|entry| result_entry(entry, status.clone())).collect();
    AckMessageResponse { status: Some(status.clone()), entries }
}
