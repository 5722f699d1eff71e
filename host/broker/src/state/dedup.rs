//! Resends are stored once (ruling 14): same client id, message id and content within ten minutes.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::snapshot::Snapshot;
use crate::Millis;
use crate::record::codec::{DecodeError, Reader, Writer};
use crate::record::{Identity, MessageHead};

/// How long a sent message is remembered.
pub const DEDUP_WINDOW_MS: u64 = 10 * 60 * 1000;
/// How many sent messages are remembered at most: 32 bytes each. Beyond it the window is shorter than ten minutes.
pub const DEDUP_MAX: usize = 4_000_000;

/// Where the first copy of a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    InQueue { queue: u32, offset: u64 },
    Half { transaction: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    content: u64,
    at: Millis,
    stored: Stored,
}

/// What was sent lately.
#[derive(Debug, Default)]
pub(super) struct Dedup {
    sent: HashMap<Identity, Sent>,
    order: VecDeque<(Identity, Millis)>,
    /// Messages that had the id of another one and different content: stored, counted, never dropped.
    pub(super) reused_ids: u64,
    /// Resends that were recognised.
    pub(super) suppressed: u64,
}

impl Dedup {
    /// Where the first copy went, if this is a resend.
    pub(super) fn first_copy(&mut self, head: &MessageHead, now: Millis) -> Option<Stored> {
        let sent = self.sent.get(&head.identity)?;
        if now.ms_since(sent.at) > DEDUP_WINDOW_MS {
            return None;
        }
        if sent.content != head.content {
            self.reused_ids += 1;
            return None;
        }
        self.suppressed += 1;
        Some(sent.stored)
    }

    pub(super) fn remember(&mut self, head: &MessageHead, now: Millis, stored: Stored) {
        while let Some((identity, at)) = self.order.front() {
            if self.order.len() < DEDUP_MAX && now.ms_since(*at) <= DEDUP_WINDOW_MS {
                break;
            }
            // An id that was used again later has a younger entry, which stays.
            if self.sent.get(identity).is_some_and(|sent| sent.at == *at) {
                self.sent.remove(identity);
            }
            self.order.pop_front();
        }
        self.sent.insert(head.identity, Sent { content: head.content, at: now, stored });
        self.order.push_back((head.identity, now));
    }
}

impl Snapshot for Dedup {
    const SECTION: u16 = 5;

    fn write(&self, w: &mut Writer<'_>) {
        w.u64(self.reused_ids);
        w.u64(self.suppressed);
        w.varint(self.order.len() as u64);
        for (identity, at) in &self.order {
            w.u64(identity.0);
            w.u64(at.0);
            let sent = self.sent.get(identity).filter(|sent| sent.at == *at);
            w.option(sent, |w, sent| {
                w.u64(sent.content);
                match sent.stored {
                    Stored::InQueue { queue, offset } => {
                        w.u8(1);
                        w.u32(queue);
                        w.u64(offset);
                    }
                    Stored::Half { transaction } => {
                        w.u8(2);
                        w.u64(transaction);
                    }
                }
            });
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut dedup =
            Dedup { reused_ids: r.u64("reused ids")?, suppressed: r.u64("suppressed")?, ..Dedup::default() };
        for _ in 0..r.count("sent messages")? {
            let (identity, at) = (Identity(r.u64("identity")?), Millis(r.u64("sent at")?));
            dedup.order.push_back((identity, at));
            let sent = r.option("sent message", |r| {
                let content = r.u64("content")?;
                let stored = match r.u8("stored")? {
                    1 => Stored::InQueue { queue: r.u32("queue")?, offset: r.u64("offset")? },
                    2 => Stored::Half { transaction: r.u64("transaction")? },
                    other => return Err(DecodeError::Value { field: "stored", value: other.into() }),
                };
                Ok(Sent { content, at, stored })
            })?;
            if let Some(sent) = sent {
                dedup.sent.insert(identity, sent);
            }
        }
        Ok(dedup)
    }
}
