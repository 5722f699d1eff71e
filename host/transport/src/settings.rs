//! The times and bounds of a transport.

use std::time::Duration;

use crate::frame::FRAME_MAX_BYTES;

/// How long things may take. The defaults suit nodes in one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportTiming {
    /// From the first packet until both know each other; a connection that is not so far by then is closed. 5 s.
    pub handshake: Duration,
    /// A connection that accepts no byte for this long is closed. 5 s.
    pub stall: Duration,
    /// Between two questions whether the other still lives. 1 s.
    pub ping_every: Duration,
    /// A connection on which nothing at all is heard for this long after such a question is closed. 5 s.
    pub ping_answer: Duration,
    /// First pause after a connection failed; each further one is twice as long. 50 ms.
    pub backoff_min: Duration,
    /// Longest pause between two attempts. 1 s.
    pub backoff_max: Duration,
    /// A pull of which no byte moves for this long is over, on either side: the disk of one may be slow. 30 s.
    pub pull_stall: Duration,
}

impl Default for TransportTiming {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            stall: Duration::from_secs(5),
            ping_every: Duration::from_secs(1),
            ping_answer: Duration::from_secs(5),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            pull_stall: Duration::from_secs(30),
        }
    }
}

impl TransportTiming {
    /// How long an acceptor waits for a byte: a dialer that lives asks at least this often.
    pub(crate) fn silence(&self) -> Duration {
        self.ping_every * 2 + self.ping_answer
    }
}

/// How much there may be of everything at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportBounds {
    /// Bytes that wait to be sent on one group link. 64 MiB.
    pub group_queue_bytes: usize,
    /// Datagrams that wait on one group link. 4096.
    pub group_queue_frames: usize,
    /// Bytes of datagrams that one peer sent and that are not handled yet, on all its connections. Those of 64 KiB and less are
    /// not counted: there is one for each connection at most. 64 MiB, and never less than one frame.
    pub group_received_bytes: usize,
    /// Calls under way, on each side and each lane: a receive that waits is one. 262 144.
    pub calls: usize,
    /// Bytes of their requests. 256 MiB.
    pub calls_bytes: usize,
    /// The part of `calls` that those to one peer, or of one peer, may take. 131 072.
    pub peer_calls: usize,
    /// The part of `calls_bytes` of one peer. A request that is longer is never sent. 128 MiB.
    pub peer_calls_bytes: usize,
    /// Bytes of answers of one peer that are read and that nobody took yet. One that is longer is never heard. 128 MiB.
    pub answers_bytes: usize,
    /// Connections that peers have to this node. 1024.
    pub connections: usize,
    /// The part of one peer: one for each shard, two for calls, and its pulls. 256.
    pub peer_connections: usize,
    /// Connections of which nobody knows yet whose they are. One more waits in the system's queue. 32.
    pub strangers: usize,
    /// What this node sends of files, in bytes a second, all pulls together. 64 MiB/s.
    pub files_bytes_per_second: u64,
}

impl Default for TransportBounds {
    fn default() -> Self {
        Self {
            group_queue_bytes: 64 << 20,
            group_queue_frames: 4096,
            group_received_bytes: 64 << 20,
            calls: 1 << 18,
            calls_bytes: 256 << 20,
            peer_calls: 1 << 17,
            peer_calls_bytes: 128 << 20,
            answers_bytes: 128 << 20,
            connections: 1024,
            peer_connections: 256,
            strangers: 32,
            files_bytes_per_second: 64 << 20,
        }
    }
}

impl TransportBounds {
    /// The same, with room for one frame wherever something would otherwise wait for ever.
    pub(crate) fn usable(mut self) -> Self {
        self.group_received_bytes = self.group_received_bytes.max(FRAME_MAX_BYTES);
        self.strangers = self.strangers.max(1);
        self.files_bytes_per_second = self.files_bytes_per_second.max(1);
        self
    }
}
