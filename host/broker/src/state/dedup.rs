//! Resends are stored once (ruling 14): same client id, message id and content within ten minutes.

use super::leaps::{Leaps, Now};
use super::part::{Of, RECENT_ENTRY_LEN};
use super::recent::{EntryBytes, Happened, Recent};
use super::snapshot::{SectionSource, Snapshot, Unreadable};
use crate::record::MessageHead;
use crate::record::codec::{DecodeError, Reader, Writer};
use crate::{HalfPosition, Millis, QueueOffset, TopicId};

/// How long a sent message is remembered.
pub const DEDUP_WINDOW_MS: u64 = 10 * 60 * 1000;
/// How many sent messages are remembered at most: about 50 bytes each. Enough for ten minutes of 16 000 sends a second;
/// beyond it the window is shorter.
pub const DEDUP_MAX: usize = 10_000_000;

/// Stands where a half message has no queue.
const NO_QUEUE: u32 = u32::MAX;

/// Where the first copy of a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstCopy {
    InQueue { queue: u32, offset: QueueOffset },
    Half { transaction: HalfPosition },
}

/// A message that was sent lately, packed: there are millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    content: u64,
    at: Millis,
    /// A topic's life: what was sent to another one, or to one that is gone, is another message.
    topic: TopicId,
    /// [`NO_QUEUE`] for a half message.
    queue: u32,
    /// Queue offset, or the transaction of a half message.
    place: u64,
}

impl Sent {
    fn new(head: &MessageHead, at: Millis, stored: FirstCopy) -> Self {
        let (queue, place) = match stored {
            FirstCopy::InQueue { queue, offset } => (queue, offset.0),
            FirstCopy::Half { transaction } => (NO_QUEUE, transaction.0),
        };
        Self { content: head.content, at, topic: head.topic, queue, place }
    }

    fn stored(&self) -> FirstCopy {
        match self.queue {
            NO_QUEUE => FirstCopy::Half { transaction: HalfPosition(self.place) },
            queue => FirstCopy::InQueue { queue, offset: QueueOffset(self.place) },
        }
    }
}

impl Happened for Sent {
    const OF: Of = Of::Sent;

    fn at(&self) -> Millis {
        self.at
    }

    fn to_bytes(self, identity: u64) -> EntryBytes {
        let mut bytes = [0; _];
        bytes[..8].copy_from_slice(&identity.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.content.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.at.0.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.topic.0.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.queue.to_le_bytes());
        bytes[32..].copy_from_slice(&self.place.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &EntryBytes) -> Result<(u64, Self), DecodeError> {
        let mut r = Reader(bytes);
        let identity = r.u64("identity")?;
        let sent = Sent {
            content: r.u64("content")?,
            at: Millis(r.u64("sent at")?),
            topic: TopicId(r.u32("topic")?),
            queue: r.u32("queue")?,
            place: r.u64("place")?,
        };
        Ok((identity, sent))
    }
}

/// What was sent lately.
#[derive(Debug)]
pub(super) struct Dedup {
    sent: Recent<Sent>,
    /// Messages under the id of another one that were no resends of it: they are stored like any other, and counted here.
    pub(super) reused_ids: u64,
    /// Resends that were recognised.
    pub(super) suppressed: u64,
}

impl Default for Dedup {
    fn default() -> Self {
        Self { sent: Recent::new(DEDUP_MAX, DEDUP_WINDOW_MS), reused_ids: 0, suppressed: 0 }
    }
}

impl Dedup {
    /// Where the first copy went, if this is a resend of it: the latest message under this id, and no other, has the same
    /// content and topic, and is a half, or no half, like this one (`half`). Counts what it finds.
    pub(super) fn first_copy(&mut self, head: &MessageHead, half: bool, now: Now<'_>) -> Option<FirstCopy> {
        let sent = self.sent.get(head.identity.0, now)?;
        let same = sent.content == head.content && sent.topic == head.topic && (sent.queue == NO_QUEUE) == half;
        let stored = same.then(|| sent.stored());
        *(if same { &mut self.suppressed } else { &mut self.reused_ids }) += 1;
        stored
    }

    pub(super) fn remember(&mut self, head: &MessageHead, at: Millis, stored: FirstCopy, leaps: &Leaps) {
        self.sent.put(head.identity.0, Sent::new(head, at, stored), leaps);
    }
}

impl Dedup {
    /// The table of what was sent, from which parts are written.
    pub(super) fn sent(&self) -> &Recent<Sent> {
        &self.sent
    }

    /// The same, to note what of it lies in a part from now on.
    pub(super) fn sent_mut(&mut self) -> &mut Recent<Sent> {
        &mut self.sent
    }
}

impl Snapshot for Dedup {
    const SECTION: u16 = 5;
    const VERSION: u8 = 2;

    fn write(&self, w: &mut Writer<'_>, _: u8) {
        let Self { sent, reused_ids, suppressed } = self;
        w.u64(*reused_ids);
        w.u64(*suppressed);
        sent.write(w);
    }

    fn read(r: &mut Reader<'_>, source: &SectionSource<'_>) -> Result<Self, Unreadable> {
        let mut dedup =
            Dedup { reused_ids: r.u64("reused ids")?, suppressed: r.u64("suppressed")?, ..Dedup::default() };
        if source.version == 1 {
            // All of them, in the same bytes.
            let entries = r.fixed(RECENT_ENTRY_LEN, "sent messages")?.as_chunks().0;
            dedup.sent.restore(entries.len(), entries.iter().map(Sent::from_bytes))?;
        } else {
            dedup.sent.read(r, source)?;
        }
        Ok(dedup)
    }
}
