//! Every bound of the wire, in one place (protocol paper §7.1 and §7.2).
//!
//! Names of topics and groups have their bounds where the names live, in `vouch-broker`.

use std::time::Duration;

/// Largest body in bytes, as transmitted. Told to producers as `max_body_size`.
pub const BODY_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Largest body after decompression, wherever one is shown or handed to a component.
pub const DECOMPRESSED_BODY_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Most user properties of a message.
pub const PROPERTIES_MAX: usize = 128;
/// UTF-8 bytes of all property names and values, the tag and the keys together.
pub const PROPERTIES_MAX_BYTES: usize = 16 * 1024;
/// Longest message group in bytes of UTF-8.
pub const MESSAGE_GROUP_MAX_BYTES: usize = 63;
/// Longest lite topic name in bytes.
pub const LITE_TOPIC_MAX_BYTES: usize = 64;
/// Longest message id in bytes; official clients send 34.
pub const MESSAGE_ID_MAX_BYTES: usize = 255;
/// Longest born host in bytes.
pub const BORN_HOST_MAX_BYTES: usize = 255;
/// Longest trace context in bytes.
pub const TRACE_CONTEXT_MAX_BYTES: usize = 4 * 1024;
/// Longest client id in bytes (header `x-mq-client-id`).
pub const CLIENT_ID_MAX_BYTES: usize = 255;
/// How far ahead a delivery time may lie.
pub const DELIVERY_AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);
/// Longest time before the first transaction check that a message may ask for.
pub const RECOVERY_MAX: Duration = Duration::from_secs(3600);
/// Most messages in one SendMessage request.
pub const SEND_BATCH_MAX: usize = 1024;
/// Messages of one SendMessage request together, in bytes on the wire, if they are more than one. They are stored in one
/// entry of the log, which takes 16 MiB.
pub const SEND_BATCH_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Largest SendMessage request. Well above the bounds before, so that an oversized body is refused with a code and a
/// sentence and not by the transport.
pub const SEND_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Largest request of any other call.
pub const CALL_MAX_BYTES: usize = 1024 * 1024;
/// Most messages in the lists of one request, at any depth: above what any list may have, so that too long a one is
/// refused with a code and a sentence.
pub const REQUEST_MESSAGES_MAX: u32 = 4096;
/// Most strings in the lists and entries in the maps of one request, at any depth: above the properties of a full batch.
pub const REQUEST_TEXTS_MAX: u32 = 192 * 1024;

/// Largest element of a receive's answer that is made on purpose: the Node and Rust clients take 4 MiB and fail the whole
/// answer beyond. A body that would make it larger when decompressed is delivered as it was stored.
pub const ELEMENT_MAX_BYTES: usize = 4 * 1024 * 1024 - 64 * 1024;
/// A larger element travels alone: a client that cannot take it loses no other message with it.
pub const ELEMENT_ALONE_BYTES: usize = 1024 * 1024;
/// Most messages in one answer to ReceiveMessage; a larger wish is cut.
pub const RECEIVE_BATCH_MAX: u32 = 32;
/// Lease of a receive that names no length (§4.6.4).
pub const INVISIBLE_DEFAULT: Duration = Duration::from_secs(60);
/// Shortest lease that a receive may ask for, where the node's settings say nothing else: that of the reference. A shorter
/// one is mostly a mistake: work that takes a little longer is done twice.
pub const RECEIVE_INVISIBLE_MIN: Duration = Duration::from_secs(10);
/// The settings may lower it to this, for tests and quick jobs.
pub const RECEIVE_INVISIBLE_LEAST: Duration = Duration::from_secs(1);
/// Longest lease that a receive or a change may ask for.
pub const INVISIBLE_MAX: Duration = Duration::from_secs(12 * 3600);
/// Longest wait of a poll; a larger wish is cut.
pub const LONG_POLL_MAX: Duration = Duration::from_secs(20);
/// An answer leaves this long before the caller's deadline, since one that comes too late costs a whole lease (§4.6.5).
pub const LONG_POLL_MARGIN: Duration = Duration::from_millis(500);
/// Longest filter expression in bytes.
pub const FILTER_EXPRESSION_MAX_BYTES: usize = 16 * 1024;
/// Most entries in one AckMessage request.
pub const ACK_BATCH_MAX: usize = 1024;

/// Most topics or subscriptions that one client's Settings may declare.
pub const DECLARED_TOPICS_MAX: usize = 1024;
/// Most pairs in `client_properties` of Settings.
pub const CLIENT_PROPERTIES_MAX: usize = 32;
/// Longest name in `client_properties`, in characters.
pub const CLIENT_PROPERTY_NAME_MAX_CHARS: usize = 64;
/// Longest value in `client_properties`, in characters.
pub const CLIENT_PROPERTY_VALUE_MAX_CHARS: usize = 256;
/// Serialized size of all `client_properties`.
pub const CLIENT_PROPERTIES_MAX_BYTES: usize = 4 * 1024;

/// Tries of a producer, the first included, as told in its Settings.
pub const PRODUCER_ATTEMPTS: i32 = 3;
/// First pause of a throttled producer, as told in its Settings.
pub const PRODUCER_BACKOFF_INITIAL: Duration = Duration::from_millis(10);
/// Longest pause of a throttled producer, as told in its Settings.
pub const PRODUCER_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Factor between two pauses of a throttled producer.
pub const PRODUCER_BACKOFF_MULTIPLIER: f32 = 2.0;

/// What a caller is told to wait when too many of something exist and nothing better is known.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
