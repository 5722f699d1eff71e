//! The table of calls: metadata apart, message to its module, refusals into the answer.
//!
//! Every call is counted by its code when it is answered, refused or not. What is not built yet is said as a gRPC
//! error, where clients stop asking, or in the answer, where they would take an error for a broken connection.

use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use vouch_broker::Refusal;
use vouch_protocol::wire::messaging_service_server::MessagingService;
use vouch_protocol::wire::*;

use super::answer::{RefusedCall, answer};
use super::calls::Method;
use super::receive::ReceiveStream;
use super::span::{CallUnderWay, told};
use super::telemetry::TelemetryOutput;
use super::{Messaging, lease};

/// An answer, or an error of the call as a whole.
type Answer<T> = Result<Response<T>, Status>;

/// The code that an answer says, where it is not the same for all that succeed.
trait Answered {
    /// OK, unless the answer itself says otherwise.
    fn code(&self) -> Code {
        Code::Ok
    }

    /// Why it is not OK, where the answer itself says so.
    fn why(&self) -> Option<String> {
        None
    }
}

/// Of these every answer that is no refusal is OK.
macro_rules! ok_if_answered {
    ($($answer:ty),+ $(,)?) => { $(impl Answered for $answer {})+ };
}

ok_if_answered!(
    QueryRouteResponse,
    QueryAssignmentResponse,
    HeartbeatResponse,
    NotifyClientTerminationResponse,
    SendMessageResponse,
    EndTransactionResponse,
    ChangeInvisibleDurationResponse,
    ForwardMessageToDeadLetterQueueResponse,
    RecallMessageResponse,
    SyncLiteSubscriptionResponse,
);

impl Answered for AckMessageResponse {
    fn code(&self) -> Code {
        self.status.as_ref().map_or(Code::Ok, vouch_protocol::wire::Status::code)
    }

    fn why(&self) -> Option<String> {
        let statuses = self.entries.iter().filter_map(|entry| entry.status.as_ref());
        let mut refused = statuses.filter(|status| status.code() != Code::Ok);
        let first = refused.next()?.message.clone();
        match refused.count() {
            0 => Some(first),
            more => Some(format!("{first}; and {more} more entries are refused")),
        }
    }
}

impl Messaging {
    /// The answer of a call, which is counted, and told where each call is.
    fn answered<T: Answered>(
        &self,
        call: &CallUnderWay<'_>,
        result: Result<T, RefusedCall>,
        refused: impl FnOnce(vouch_protocol::wire::Status) -> T,
    ) -> Response<T> {
        let code = result.as_ref().map_or_else(|why| why.code, Answered::code);
        self.shared.calls.count(call.method, code);
        if told() {
            let why = result.as_ref().map_or_else(|refused| Some(refused.text.to_string()), Answered::why);
            call.tell(code, why.as_deref());
        }
        answer(call.caller, result, refused)
    }

    /// Begins a call.
    fn begin<'a>(&self, method: Method, metadata: &'a MetadataMap) -> CallUnderWay<'a> {
        CallUnderWay::begin(method, metadata, self.shared.node.cluster.has_others())
    }

    /// A call that is not built, answered with an error of the call and not with a status.
    fn unimplemented<T>(&self, method: Method, metadata: &MetadataMap) -> Answer<T> {
        self.shared.calls.count(method, Code::NotImplemented);
        let text = format!("{method:?} is not available in this version of Vouch");
        self.begin(method, metadata).tell(Code::NotImplemented, Some(text.as_str()));
        Err(Status::unimplemented(text))
    }
}

#[tonic::async_trait]
impl MessagingService for Messaging {
    async fn query_route(&self, request: Request<QueryRouteRequest>) -> Answer<QueryRouteResponse> {
        let (metadata, _, request) = request.into_parts();
        let call = self.begin(Method::QueryRoute, &metadata);
        let result = call.run(self.query_route(call.caller, request)).await;
        Ok(self.answered(&call, result, |status| QueryRouteResponse { status: Some(status), ..Default::default() }))
    }

    async fn query_assignment(&self, request: Request<QueryAssignmentRequest>) -> Answer<QueryAssignmentResponse> {
        let (metadata, _, request) = request.into_parts();
        let call = self.begin(Method::QueryAssignment, &metadata);
        let result = call.run(self.query_assignment(call.caller, request)).await;
        Ok(self
            .answered(&call, result, |status| QueryAssignmentResponse { status: Some(status), ..Default::default() }))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Answer<HeartbeatResponse> {
        let (metadata, _, request) = request.into_parts();
        let call = self.begin(Method::Heartbeat, &metadata);
        Ok(self.answered(&call, call.span.in_scope(|| self.heartbeat(call.caller, request)), |status| {
            HeartbeatResponse { status: Some(status) }
        }))
    }

    async fn notify_client_termination(
        &self,
        request: Request<NotifyClientTerminationRequest>,
    ) -> Answer<NotifyClientTerminationResponse> {
        let (metadata, _, request) = request.into_parts();
        let call = self.begin(Method::NotifyClientTermination, &metadata);
        let refused = |status| NotifyClientTerminationResponse { status: Some(status) };
        Ok(self.answered(&call, call.span.in_scope(|| self.terminate(call.caller, request)), refused))
    }

    async fn send_message(&self, request: Request<SendMessageRequest>) -> Answer<SendMessageResponse> {
        let (metadata, _, request) = request.into_parts();
        let call = self.begin(Method::SendMessage, &metadata);
        let result = call.run(self.send(call.caller, request)).await;
        Ok(self.answered(&call, result, |status| SendMessageResponse { status: Some(status), entries: Vec::new() }))
    }

    async fn end_transaction(&self, request: Request<EndTransactionRequest>) -> Answer<EndTransactionResponse> {
        let (metadata, _, request) = request.into_parts();
        let call = self.begin(Method::EndTransaction, &metadata);
        let result = call.run(self.end_transaction(call.caller, request)).await;
        Ok(self.answered(&call, result, |status| EndTransactionResponse { status: Some(status) }))
    }

    type ReceiveMessageStream = ReceiveStream;

    async fn receive_message(&self, request: Request<ReceiveMessageRequest>) -> Answer<ReceiveStream> {
        let (metadata, _, request) = request.into_parts();
        Ok(self.receive(&self.begin(Method::ReceiveMessage, &metadata), request))
    }

    async fn ack_message(&self, request: Request<AckMessageRequest>) -> Answer<AckMessageResponse> {
        let (metadata, _, mut request) = request.into_parts();
        let call = self.begin(Method::AckMessage, &metadata);
        let result = call.run(self.ack(call.caller, &mut request)).await.map_err(RefusedCall::named);
        Ok(self.answered(&call, result, |status| lease::mirrored(request.entries, &status)))
    }

    async fn change_invisible_duration(
        &self,
        request: Request<ChangeInvisibleDurationRequest>,
    ) -> Answer<ChangeInvisibleDurationResponse> {
        let (metadata, _, mut request) = request.into_parts();
        let call = self.begin(Method::ChangeInvisibleDuration, &metadata);
        let result = call.run(self.change_invisible(call.caller, &mut request)).await.map_err(RefusedCall::named);
        // Clients keep what comes back before they look at the status.
        let refused =
            |status| ChangeInvisibleDurationResponse { status: Some(status), receipt_handle: request.receipt_handle };
        Ok(self.answered(&call, result, refused))
    }

    async fn forward_message_to_dead_letter_queue(
        &self,
        request: Request<ForwardMessageToDeadLetterQueueRequest>,
    ) -> Answer<ForwardMessageToDeadLetterQueueResponse> {
        let (metadata, _, request) = request.into_parts();
        let call = self.begin(Method::ForwardMessageToDeadLetterQueue, &metadata);
        let result = call.run(self.forward(call.caller, request)).await.map_err(RefusedCall::named);
        Ok(self.answered(&call, result, |status| ForwardMessageToDeadLetterQueueResponse { status: Some(status) }))
    }

    type TelemetryStream = TelemetryOutput;

    async fn telemetry(&self, request: Request<Streaming<TelemetryCommand>>) -> Answer<TelemetryOutput> {
        let (metadata, _, commands) = request.into_parts();
        self.telemetry(&self.begin(Method::Telemetry, &metadata), commands)
    }

    async fn recall_message(&self, request: Request<RecallMessageRequest>) -> Answer<RecallMessageResponse> {
        let call = self.begin(Method::RecallMessage, request.metadata());
        let refusal = Err(RefusedCall::from(Refusal::NotBuilt("recalling a message")));
        Ok(self.answered(&call, refusal, |status| RecallMessageResponse { status: Some(status), ..Default::default() }))
    }

    async fn sync_lite_subscription(
        &self,
        request: Request<SyncLiteSubscriptionRequest>,
    ) -> Answer<SyncLiteSubscriptionResponse> {
        let call = self.begin(Method::SyncLiteSubscription, request.metadata());
        let refusal = Err(RefusedCall::from(Refusal::NotBuilt("a subscription to lite topics")));
        Ok(self.answered(&call, refusal, |status| SyncLiteSubscriptionResponse { status: Some(status) }))
    }

    type PullMessageStream = tokio_stream::Empty<Result<PullMessageResponse, Status>>;

    async fn pull_message(&self, request: Request<PullMessageRequest>) -> Answer<Self::PullMessageStream> {
        self.unimplemented(Method::PullMessage, request.metadata())
    }

    async fn update_offset(&self, request: Request<UpdateOffsetRequest>) -> Answer<UpdateOffsetResponse> {
        self.unimplemented(Method::UpdateOffset, request.metadata())
    }

    async fn get_offset(&self, request: Request<GetOffsetRequest>) -> Answer<GetOffsetResponse> {
        self.unimplemented(Method::GetOffset, request.metadata())
    }

    async fn query_offset(&self, request: Request<QueryOffsetRequest>) -> Answer<QueryOffsetResponse> {
        self.unimplemented(Method::QueryOffset, request.metadata())
    }
}
