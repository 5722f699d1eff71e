//! A connection whose both ends know each other.

use std::sync::Arc;

use tokio::io::{ReadHalf, WriteHalf};

use crate::answer::HelloAnswer;
use crate::counters::LaneCounters;
use crate::hello::PeerHello;
use crate::identity::PeerIdentity;
use crate::pulse::Pulse;
use crate::reading::FrameReader;
use crate::settings::TransportTiming;
use crate::stream::Stream;
use crate::writing::FrameWriter;

/// The reading half.
pub(crate) type Incoming = FrameReader<ReadHalf<Stream>>;
/// The writing half.
pub(crate) type ToPeer = FrameWriter<WriteHalf<Stream>>;

/// A connection of two lives of two nodes.
///
/// Frames do not repeat who sent them. Both lives are named once, at its beginning; a connection does not outlive either process,
/// and what is read from it was written into it. As a seatbelt every checksum begins with [`seed`], so a frame that strayed from
/// another connection, of an earlier life too, is none here.
pub(crate) struct Connection {
    /// Who is at the other end, in which life.
    pub(crate) peer: PeerIdentity,
    /// What comes from there.
    pub(crate) reader: Incoming,
    /// What goes there.
    pub(crate) writer: ToPeer,
    /// Hears whatever the reader reads.
    pub(crate) pulse: Pulse,
}

/// What all checksums of a connection begin with: the checksum of both hellos, each with a number that was drawn for it.
pub(crate) fn seed(hello: &PeerHello, answer: &HelloAnswer) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&hello.encode()), &answer.encode())
}

impl Connection {
    /// Takes over a stream after the hello, with the seed that both ends have from it.
    pub(crate) fn new(
        stream: Stream,
        seed: u32,
        peer: PeerIdentity,
        pace: LanePace,
        counters: Arc<LaneCounters>,
    ) -> Self {
        let (read, write) = tokio::io::split(stream);
        let pulse = Pulse::default();
        Self {
            peer,
            reader: FrameReader::new(read, seed, pace.silence, pulse.clone(), counters.clone()),
            writer: FrameWriter::new(write, seed, pace.stall, counters),
            pulse,
        }
    }
}

/// How patient a connection is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LanePace {
    /// Until a byte is taken.
    stall: std::time::Duration,
    /// Until a byte comes.
    silence: std::time::Duration,
}

impl LanePace {
    /// Of a lane on which the dialer asks whether the other lives.
    pub(crate) fn of_asked(timing: &TransportTiming) -> Self {
        Self { stall: timing.stall, silence: timing.silence() }
    }

    /// Of a pull.
    pub(crate) fn of_pull(timing: &TransportTiming) -> Self {
        Self { stall: timing.pull_stall, silence: timing.pull_stall }
    }
}
