//! The two servers that Vouch is measured against: *null* answers at once and stores nothing, *bare* is null plus one
//! file with group commit.
//!
//! Both speak the same gRPC service with the same generated types, and run on the same runtime with the same server
//! settings as a node, so that what differs is the broker alone.

use tonic::{Request, Response, Status, Streaming};
use vouch_protocol::wire::messaging_service_server::MessagingService;
use vouch_protocol::wire::{self, Code};

use super::group_commit_file::{GroupCommitFile, StoreRequest};

/// What every stream of a call that is not measured is.
type NoStream<T> = tokio_stream::Empty<Result<T, Status>>;

/// Answers sends and ends of transactions; every other call is unimplemented.
pub(crate) struct Peer {
    /// `None`: null. `Some`: bare.
    store: Option<GroupCommitFile>,
}

impl Peer {
    /// A server that stores nothing.
    pub(crate) fn null() -> Self {
        Self { store: None }
    }

    /// A server that stores into this file.
    pub(crate) fn bare(store: GroupCommitFile) -> Self {
        Self { store: Some(store) }
    }

    /// Makes something durable; at *null* that is nothing.
    async fn keep(&self, what: StoreRequest) -> Result<(), Status> {
        match &self.store {
            None => Ok(()),
            Some(store) if store.append(what).await => Ok(()),
            Some(_) => Err(Status::internal("the file could not be written")),
        }
    }
}

/// The status of what was done.
fn ok() -> Option<wire::Status> {
    Some(wire::Status { code: Code::Ok as i32, message: String::new() })
}

/// The receipt of a message: what a client checks of it, and nothing that would have to be stored.
fn entry(message: &wire::Message) -> wire::SendResultEntry {
    let system = message.system_properties.as_ref();
    let message_id = system.map(|system| system.message_id.clone()).unwrap_or_default();
    let half = system.is_some_and(|system| system.message_type == wire::MessageType::Transaction as i32);
    let transaction_id = if half { message_id.clone() } else { String::new() };
    wire::SendResultEntry { status: ok(), message_id, transaction_id, offset: 0, recall_handle: String::new() }
}

/// What every other call is answered with.
fn unmeasured<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this server exists for measurements of sends and transactions only"))
}

#[tonic::async_trait]
impl MessagingService for Peer {
    type ReceiveMessageStream = NoStream<wire::ReceiveMessageResponse>;
    type PullMessageStream = NoStream<wire::PullMessageResponse>;
    type TelemetryStream = NoStream<wire::TelemetryCommand>;

    async fn send_message(
        &self,
        request: Request<wire::SendMessageRequest>,
    ) -> Result<Response<wire::SendMessageResponse>, Status> {
        let messages = request.into_inner().messages;
        let entries = messages.iter().map(entry).collect();
        self.keep(StoreRequest::Messages(messages)).await?;
        Ok(Response::new(wire::SendMessageResponse { status: ok(), entries }))
    }

    async fn end_transaction(
        &self,
        request: Request<wire::EndTransactionRequest>,
    ) -> Result<Response<wire::EndTransactionResponse>, Status> {
        self.keep(StoreRequest::End(request.into_inner().transaction_id)).await?;
        Ok(Response::new(wire::EndTransactionResponse { status: ok() }))
    }

    async fn query_route(
        &self,
        _: Request<wire::QueryRouteRequest>,
    ) -> Result<Response<wire::QueryRouteResponse>, Status> {
        unmeasured()
    }

    async fn heartbeat(&self, _: Request<wire::HeartbeatRequest>) -> Result<Response<wire::HeartbeatResponse>, Status> {
        unmeasured()
    }

    async fn query_assignment(
        &self,
        _: Request<wire::QueryAssignmentRequest>,
    ) -> Result<Response<wire::QueryAssignmentResponse>, Status> {
        unmeasured()
    }

    async fn receive_message(
        &self,
        _: Request<wire::ReceiveMessageRequest>,
    ) -> Result<Response<Self::ReceiveMessageStream>, Status> {
        unmeasured()
    }

    async fn ack_message(
        &self,
        _: Request<wire::AckMessageRequest>,
    ) -> Result<Response<wire::AckMessageResponse>, Status> {
        unmeasured()
    }

    async fn forward_message_to_dead_letter_queue(
        &self,
        _: Request<wire::ForwardMessageToDeadLetterQueueRequest>,
    ) -> Result<Response<wire::ForwardMessageToDeadLetterQueueResponse>, Status> {
        unmeasured()
    }

    async fn pull_message(
        &self,
        _: Request<wire::PullMessageRequest>,
    ) -> Result<Response<Self::PullMessageStream>, Status> {
        unmeasured()
    }

    async fn update_offset(
        &self,
        _: Request<wire::UpdateOffsetRequest>,
    ) -> Result<Response<wire::UpdateOffsetResponse>, Status> {
        unmeasured()
    }

    async fn get_offset(
        &self,
        _: Request<wire::GetOffsetRequest>,
    ) -> Result<Response<wire::GetOffsetResponse>, Status> {
        unmeasured()
    }

    async fn query_offset(
        &self,
        _: Request<wire::QueryOffsetRequest>,
    ) -> Result<Response<wire::QueryOffsetResponse>, Status> {
        unmeasured()
    }

    async fn telemetry(
        &self,
        _: Request<Streaming<wire::TelemetryCommand>>,
    ) -> Result<Response<Self::TelemetryStream>, Status> {
        unmeasured()
    }

    async fn notify_client_termination(
        &self,
        _: Request<wire::NotifyClientTerminationRequest>,
    ) -> Result<Response<wire::NotifyClientTerminationResponse>, Status> {
        unmeasured()
    }

    async fn change_invisible_duration(
        &self,
        _: Request<wire::ChangeInvisibleDurationRequest>,
    ) -> Result<Response<wire::ChangeInvisibleDurationResponse>, Status> {
        unmeasured()
    }

    async fn recall_message(
        &self,
        _: Request<wire::RecallMessageRequest>,
    ) -> Result<Response<wire::RecallMessageResponse>, Status> {
        unmeasured()
    }

    async fn sync_lite_subscription(
        &self,
        _: Request<wire::SyncLiteSubscriptionRequest>,
    ) -> Result<Response<wire::SyncLiteSubscriptionResponse>, Status> {
        unmeasured()
    }
}
