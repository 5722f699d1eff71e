//! AckMessage, ChangeInvisibleDuration and ForwardMessageToDeadLetterQueue (§4.7 to §4.9).
//!
//! A handle names topic, group, queue, offset and the lease of its delivery, and is sealed: what a client made up or
//! changed is refused before anything is looked up. That a handle fits is no proof that its lease still holds; that the
//! log decides.

use vouch_broker::{GroupId, Handle, NotDone, Refusal, ResourceName, TopicId};
use vouch_protocol::validate::{self, Forward};
use vouch_protocol::wire::{
    AckMessageEntry, AckMessageRequest, AckMessageResponse, AckMessageResultEntry, ChangeInvisibleDurationRequest,
    ChangeInvisibleDurationResponse, ForwardMessageToDeadLetterQueueRequest, ForwardMessageToDeadLetterQueueResponse,
    Status,
};

use super::Messaging;
use super::answer::{RefusedCall, ok, summary};
use super::caller::CallMetadata;
use super::span::{CallSubject, one_queue, told};

/// The topic and group that a request names.
struct Place {
    /// The topic, as it exists now: one that was made again under its name is another.
    topic: TopicId,
    /// The group, likewise.
    group: GroupId,
}

impl Place {
    /// # Errors
    /// The handle is of another topic or group.
    fn holds(&self, handle: &Handle) -> Result<(), Refusal> {
        if handle.topic == self.topic && handle.group == self.group {
            Ok(())
        } else {
            Err(Refusal::InvalidHandle("it belongs to another topic or group"))
        }
    }
}

impl Messaging {
    /// # Errors
    /// The text is no handle of this cluster.
    fn open(&self, text: &str) -> Result<Handle, Refusal> {
        self.shared.handles.open(text).map_err(|error| Refusal::InvalidHandle(error.as_str()))
    }

    /// What the names of a request stand for now.
    ///
    /// # Errors
    /// The topic or the group does not exist.
    async fn place(&self, topic: &ResourceName, group: &ResourceName) -> Result<Place, RefusedCall> {
        let topic = self.shared.node.settings.topic(topic).await?.id;
        let group = self.shared.node.settings.group_id(group).await?;
        let group = group.ok_or(Refusal::InvalidHandle("its group does not exist"))?;
        Ok(Place { topic, group })
    }

    /// Acknowledges each entry on its own. The answer mirrors the entries.
    ///
    /// # Errors
    /// The request itself is wrong, or the log takes nothing. That single handles are not good is no error: the answer
    /// has a status for each.
    pub(super) async fn ack(
        &self,
        caller: CallMetadata<'_>,
        request: &mut AckMessageRequest,
    ) -> Result<AckMessageResponse, RefusedCall> {
        self.heard(caller.client_id()?);
        self.shared.node.status.check_writable()?;
        let (topic, group) = validate::acks(request, caller.names())?;
        let mut results: Vec<_> = request.entries.iter().map(|entry| self.open(&entry.receipt_handle)).collect();
        if results.iter().any(Result::is_ok) {
            let place = self.place(&topic, &group).await?;
            for result in &mut results {
                *result = result.clone().and_then(|handle| place.holds(&handle).map(|()| handle));
            }
        }
        let handles: Vec<_> = results.iter().flatten().copied().collect();
        let message_ids = || request.entries.iter().map(|entry| entry.message_id.as_str()).collect::<Vec<_>>();
        let queue = one_queue(handles.iter().map(|handle| handle.queue));
        if told() {
            CallSubject {
                topic: Some(&topic),
                group: Some(&group),
                message_ids: &message_ids(),
                queue,
                ..CallSubject::default()
            }
            .record();
        }
        let mut acked = match handles.as_slice() {
            [] => Vec::new(),
            handles => self.shared.node.messages.ack(handles).await.inspect_err(|not_done| {
                let message_ids = &message_ids();
                CallSubject { topic: Some(&topic), group: Some(&group), message_ids, queue, ..CallSubject::default() }
                    .record_defect(caller, not_done);
            })?,
        }
        .into_iter();
        let mut settle = |_| acked.next().unwrap_or_else(|| Err(Refusal::Internal("an ack has no result".to_owned())));
        let entries: Vec<_> = std::mem::take(&mut request.entries)
            .into_iter()
            .zip(results)
            .map(|(entry, result)| match result.and_then(&mut settle) {
                Ok(()) => result_entry(entry, ok()),
                Err(refusal) => result_entry(entry, RefusedCall::from(refusal).named().status(caller.voice())),
            })
            .collect();
        let status = summary(entries.iter().filter_map(|entry| entry.status.as_ref()));
        Ok(AckMessageResponse { status: Some(status), entries })
    }

    /// Lets a lease end at another time. The handle of the answer replaces the old one.
    ///
    /// # Errors
    /// The handle is none, or its lease is over.
    pub(super) async fn change_invisible(
        &self,
        caller: CallMetadata<'_>,
        request: &mut ChangeInvisibleDurationRequest,
    ) -> Result<ChangeInvisibleDurationResponse, RefusedCall> {
        self.heard(caller.client_id()?);
        self.shared.node.status.check_writable()?;
        let change = validate::change(request, caller.names())?;
        CallSubject {
            topic: Some(&change.topic),
            group: Some(&change.group),
            message_ids: &[&request.message_id],
            ..CallSubject::default()
        }
        .record();
        let handle = self.open(&request.receipt_handle)?;
        CallSubject { queue: Some(handle.queue), ..CallSubject::default() }.record();
        self.place(&change.topic, &change.group).await?.holds(&handle)?;
        let invisible_ms = u64::try_from(change.invisible.as_millis()).unwrap_or(u64::MAX);
        let handle = self.shared.node.messages.change_invisible(handle, invisible_ms, change.suspend).await?;
        let receipt_handle = self.shared.handles.seal(&handle);
        Ok(ChangeInvisibleDurationResponse { status: Some(ok()), receipt_handle })
    }

    /// Moves a message to the dead-letter topic of the group.
    ///
    /// Clients repeat this call every second until it is answered with OK. So a lease of this topic and group that is
    /// over (the message was moved, acknowledged or handed out again) is answered with OK, and nothing is moved.
    pub(super) async fn forward(
        &self,
        caller: CallMetadata<'_>,
        request: ForwardMessageToDeadLetterQueueRequest,
    ) -> Result<ForwardMessageToDeadLetterQueueResponse, RefusedCall> {
        let client_id = caller.client_id()?;
        self.heard(client_id);
        self.shared.node.status.check_writable()?;
        let message_id = request.message_id.clone();
        let Forward { topic, group, handle, attempts } = validate::forward(request, caller.names())?;
        CallSubject { topic: Some(&topic), group: Some(&group), message_ids: &[&message_id], ..CallSubject::default() }
            .record();
        let handle = self.open(&handle)?;
        CallSubject { queue: Some(handle.queue), ..CallSubject::default() }.record();
        self.place(&topic, &group).await?.holds(&handle)?;
        let reason = format!("forwarded by {client_id} after {attempts} attempts");
        match self.shared.node.messages.forward_to_dead_letter(handle, &reason).await {
            Ok(()) => {}
            Err(NotDone::Refused(Refusal::InvalidHandle(why))) => {
                tracing::info!(%topic, %group, client_id, why, "nothing to forward: the lease is over");
            }
            Err(refusal) => return Err(refusal.into()),
        }
        Ok(ForwardMessageToDeadLetterQueueResponse { status: Some(ok()) })
    }
}

/// What became of one acknowledgement, under what the client named it by.
fn result_entry(entry: AckMessageEntry, status: Status) -> AckMessageResultEntry {
    let AckMessageEntry { message_id, receipt_handle, .. } = entry;
    AckMessageResultEntry { message_id, receipt_handle, status: Some(status) }
}

/// The answer to a refused request. The Rust client panics on an answer without entries.
pub(super) fn mirrored(entries: Vec<AckMessageEntry>, status: &Status) -> AckMessageResponse {
    let entries = entries.into_iter().map(|entry| result_entry(entry, status.clone())).collect();
    AckMessageResponse { status: Some(status.clone()), entries }
}
