//! A hand-made client of the gRPC service: fast, without the retries of the official ones, so that a test knows the
//! outcome of every single call.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use vouch_protocol::wire::messaging_service_client::MessagingServiceClient;
use vouch_protocol::wire::{self, Code, receive_message_response::Content};

/// How long a unary call may take before its outcome counts as unknown.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// What the server said about a call, or nothing: the connection broke, or time ran out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// OK, with what came back.
    Done(T),
    /// A definite refusal, with the code and the text.
    Refused(Code, String),
    /// No answer, or one that leaves open whether it happened (50401, 50402, a transport error).
    Unknown(String),
}

/// One client id.
#[derive(Debug, Clone)]
pub struct Client {
    stub: MessagingServiceClient<Channel>,
    id: MetadataValue<Ascii>,
}

/// One delivered message and the position it was delivered from.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The message as it came.
    pub message: wire::Message,
    /// Its system properties, which every delivery has.
    pub system: wire::SystemProperties,
}

impl Delivery {
    /// Topic, queue and offset: the same for every delivery of one queue entry.
    #[must_use]
    pub fn position(&self) -> (String, i32, i64) {
        let topic = self.message.topic.as_ref().map(|topic| topic.name.clone()).unwrap_or_default();
        (topic, self.system.queue_id, self.system.queue_offset())
    }
}

impl Client {
    /// A client of the broker at `address`; it connects, and connects again, when a call needs it.
    ///
    /// # Errors
    /// When the address or the id cannot be used.
    pub fn new(address: &str, id: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(CALL_TIMEOUT);
        let stub = MessagingServiceClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        Ok(Self { stub, id: id.parse()? })
    }

    fn request<T>(&self, body: T, timeout: Duration) -> Request<T> {
        let mut request = Request::new(body);
        request.metadata_mut().insert("x-mq-client-id", self.id.clone());
        request.set_timeout(timeout);
        request
    }

    /// Sends one message; on success the transaction id (empty unless it is a half message).
    pub async fn send(&self, message: wire::Message) -> Outcome<String> {
        self.send_all(vec![message]).await
    }

    /// Sends several of one topic at once; on success the transaction id of the first.
    pub async fn send_all(&self, messages: Vec<wire::Message>) -> Outcome<String> {
        let request = self.request(wire::SendMessageRequest { messages }, CALL_TIMEOUT);
        match self.stub.clone().send_message(request).await {
            Err(status) => Outcome::Unknown(status.to_string()),
            Ok(answer) => {
                let answer = answer.into_inner();
                let id = answer.entries.first().map(|entry| entry.transaction_id.clone()).unwrap_or_default();
                outcome(answer.status, id)
            }
        }
    }

    /// Commits or rolls back.
    pub async fn end(
        &self,
        topic: &str,
        message_id: &str,
        transaction_id: &str,
        resolution: wire::TransactionResolution,
    ) -> Outcome<()> {
        let end = wire::EndTransactionRequest {
            topic: Some(resource(topic)),
            message_id: message_id.to_owned(),
            transaction_id: transaction_id.to_owned(),
            resolution: resolution.into(),
            source: wire::TransactionSource::SourceClient.into(),
            trace_context: String::new(),
        };
        match self.stub.clone().end_transaction(self.request(end, CALL_TIMEOUT)).await {
            Err(status) => Outcome::Unknown(status.to_string()),
            Ok(answer) => outcome(answer.into_inner().status, ()),
        }
    }

    /// Receives up to 32 messages of the topic; none when the poll ends without one.
    ///
    /// # Errors
    /// When the call fails, or answers with anything but OK or `MESSAGE_NOT_FOUND`.
    pub async fn receive(
        &self,
        topic: &str,
        group: &str,
        lease: Duration,
        poll: Duration,
    ) -> anyhow::Result<Vec<Delivery>> {
        let receive = wire::ReceiveMessageRequest {
            group: Some(resource(group)),
            message_queue: Some(wire::MessageQueue { topic: Some(resource(topic)), ..Default::default() }),
            filter_expression: Some(wire::FilterExpression {
                r#type: wire::FilterType::Tag.into(),
                expression: "*".to_owned(),
            }),
            batch_size: 32,
            invisible_duration: Some(duration(lease)),
            auto_renew: false,
            long_polling_timeout: Some(duration(poll)),
            attempt_id: None,
        };
        let request = self.request(receive, poll + CALL_TIMEOUT);
        let mut stream = self.stub.clone().receive_message(request).await?.into_inner();
        let mut deliveries = Vec::new();
        let mut code = None;
        while let Some(element) = stream.message().await? {
            match element.content.context("an element of the stream without content")? {
                Content::Status(status) => code = Some((status.code(), status.message)),
                Content::DeliveryTimestamp(_) => {}
                Content::Message(message) => {
                    let system = message.system_properties.clone().context("a delivery without system properties")?;
                    deliveries.push(Delivery { message, system });
                }
            }
        }
        match code.context("a receive without status")? {
            (Code::Ok, _) => Ok(deliveries),
            (Code::MessageNotFound, _) if deliveries.is_empty() => Ok(deliveries),
            (code, text) => bail!("receive answered {code:?} with {} messages: {text}", deliveries.len()),
        }
    }

    /// Acknowledges deliveries; done only if every one of them is.
    pub async fn ack(&self, topic: &str, group: &str, deliveries: &[Delivery]) -> Outcome<()> {
        let entry = |delivery: &Delivery| wire::AckMessageEntry {
            message_id: delivery.system.message_id.clone(),
            receipt_handle: delivery.system.receipt_handle().to_owned(),
            lite_topic: None,
        };
        let ack = wire::AckMessageRequest {
            group: Some(resource(group)),
            topic: Some(resource(topic)),
            entries: deliveries.iter().map(entry).collect(),
        };
        match self.stub.clone().ack_message(self.request(ack, CALL_TIMEOUT)).await {
            Err(status) => Outcome::Unknown(status.to_string()),
            Ok(answer) => outcome(answer.into_inner().status, ()),
        }
    }
}

fn outcome<T>(status: Option<wire::Status>, value: T) -> Outcome<T> {
    let Some(status) = status else { return Outcome::Unknown("an answer without status".to_owned()) };
    match status.code() {
        Code::Ok => Outcome::Done(value),
        // It may have happened, says ruling 21.
        Code::MasterPersistenceTimeout | Code::SlavePersistenceTimeout => Outcome::Unknown(status.message),
        code => Outcome::Refused(code, status.message),
    }
}

/// A topic or group in the default namespace.
#[must_use]
pub fn resource(name: &str) -> wire::Resource {
    wire::Resource { resource_namespace: String::new(), name: name.to_owned() }
}

fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(length.subsec_nanos()).unwrap_or(0),
    }
}
