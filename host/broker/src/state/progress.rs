//! What one group has received of one topic: a cursor per queue plus the messages that are not done below it. Its cost
//! follows these exceptions (architecture §6).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::filters::Filters;
use crate::record::codec::{DecodeError, Reader, Writer};
use crate::record::{LeasedRange, read_filters, write_filters};
use crate::{Generation, Millis, QUEUES_MAX, QueueOffset, Refusal, TagFilter, TagHash};

/// Most messages of a topic that a group may have in hand or left behind before it gets no fresh ones: a consumer that
/// never acknowledges, or a member that never comes for its part, must not fill the memory (about 180 bytes each).
/// Redeliveries go on. The number is that of SQS standard queues.
pub const UNFINISHED_MAX: u64 = 120_000;

/// A message below the cursor that is not done: leased, waiting for its redelivery, or left for another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Deliveries that count.
    pub attempts: u32,
    /// The last delivery is not among them: it was suspended.
    pub suspended: bool,
    /// Of its last lease; [`Generation::NONE`] while it is left for another member, so that no handle fits.
    pub generation: Generation,
    /// When it may be handed out (again).
    pub visible_at: Millis,
    /// Its tag, if it waits for a member whose filter matches and not for a time (ruling 12).
    pub left: Option<TagHash>,
    /// When its last lease began.
    pub leased_at: Millis,
    /// The consumer whose life keeps the lease alive.
    pub renewed_for: Option<Arc<str>>,
}

impl Exception {
    /// Seen by the group, wanted by another member than the one that asked.
    fn left(tag: TagHash, attempts: u32) -> Self {
        Self {
            attempts,
            suspended: false,
            generation: Generation::NONE,
            visible_at: Millis(0),
            left: Some(tag),
            leased_at: Millis(0),
            renewed_for: None,
        }
    }
}

#[derive(Debug, Default)]
struct QueueProgress {
    next: QueueOffset,
    exceptions: BTreeMap<QueueOffset, Exception>,
}

/// Progress of a group on a topic.
#[derive(Debug, Default)]
pub struct Progress {
    queues: Vec<QueueProgress>,
    /// Exceptions that wait for a time, by it.
    due: BTreeSet<(Millis, u32, QueueOffset)>,
    /// Exceptions that wait for a member, by their tag: a member that asks does not pass over what waits for others.
    left: BTreeMap<TagHash, BTreeSet<(u32, QueueOffset)>>,
    left_len: u64,
    /// Those of these tags that no filter matches any more: a member that asks does not look through all of them.
    unwanted: BTreeSet<TagHash>,
    filters: Filters,
}

impl Progress {
    /// Begins at these offsets, one a queue.
    pub(super) fn starting_at(offsets: impl IntoIterator<Item = QueueOffset>) -> Self {
        let queues = offsets.into_iter().map(|next| QueueProgress { next, ..QueueProgress::default() }).collect();
        Self { queues, ..Self::default() }
    }

    /// First offset of a queue that the group never saw.
    pub fn next(&self, queue: u32) -> QueueOffset {
        self.queues.get(queue as usize).map_or(QueueOffset::FIRST, |q| q.next)
    }

    /// The exception at this place.
    pub fn exception(&self, queue: u32, offset: QueueOffset) -> Option<&Exception> {
        self.queues.get(queue as usize)?.exceptions.get(&offset)
    }

    /// Exceptions that wait for a time, in the order in which they may be handed out: time, queue, offset.
    pub fn due(&self) -> impl Iterator<Item = (Millis, u32, QueueOffset)> {
        self.due.iter().copied()
    }

    /// Those of them that become visible at or after `from`, in order.
    pub fn due_from(&self, from: Millis) -> impl Iterator<Item = (Millis, u32, QueueOffset)> {
        self.due.range((from, 0, QueueOffset::FIRST)..).copied()
    }

    /// Exceptions that wait for a time, from this place of their order on.
    pub fn due_after(&self, from: (Millis, u32, QueueOffset)) -> impl Iterator<Item = (Millis, u32, QueueOffset)> {
        self.due.range(from..).copied()
    }

    /// Tags of the exceptions that wait for a member whose filter matches.
    pub fn left_tags(&self) -> impl Iterator<Item = TagHash> {
        self.left.keys().copied()
    }

    /// Exceptions with this tag that wait for a member: queue, offset.
    pub fn left(&self, tag: TagHash) -> impl Iterator<Item = (u32, QueueOffset)> {
        self.left.get(&tag).into_iter().flatten().copied()
    }

    /// Tags of exceptions that wait for a member, though no filter of the group matches them any more.
    pub fn unwanted_tags(&self) -> impl Iterator<Item = TagHash> {
        self.unwanted.iter().copied()
    }

    /// Filters that members brought.
    pub fn filters(&self) -> &Filters {
        &self.filters
    }

    pub(super) fn note_filter(&mut self, filter: TagFilter) {
        self.filters.add(filter);
        self.unwanted.retain(|tag| !self.filters.matches(*tag));
    }

    /// Returns whether it was there.
    pub(super) fn drop_filter(&mut self, filter: &TagFilter) -> bool {
        let dropped = self.filters.remove(filter);
        if dropped {
            self.unwanted = self.left.keys().filter(|tag| !self.filters.matches(**tag)).copied().collect();
        }
        dropped
    }

    /// Messages below the cursors that are not done.
    pub fn unfinished(&self) -> u64 {
        self.due.len() as u64 + self.left_len
    }

    /// Those of them that are invisible at `now`.
    pub fn in_flight(&self, now: Millis) -> u64 {
        self.due.range((now.plus_ms(1), 0, QueueOffset::FIRST)..).count() as u64
    }

    fn queue_mut(&mut self, queue: u32) -> &mut QueueProgress {
        let index = queue as usize;
        if self.queues.len() <= index {
            self.queues.resize_with(index + 1, QueueProgress::default);
        }
        &mut self.queues[index]
    }

    fn set(&mut self, queue: u32, offset: QueueOffset, exception: Exception) {
        let (visible_at, left) = (exception.visible_at, exception.left);
        if let Some(old) = self.queue_mut(queue).exceptions.insert(offset, exception) {
            self.unindex(queue, offset, &old);
        }
        match left {
            None => {
                self.due.insert((visible_at, queue, offset));
            }
            Some(tag) => {
                self.left.entry(tag).or_default().insert((queue, offset));
                self.left_len += 1;
                if !self.filters.matches(tag) {
                    self.unwanted.insert(tag);
                }
            }
        }
    }

    /// Takes an exception that was in its queue out of the order in which it waits.
    ///
    /// # Panics
    /// If it is not in there: it would have waited for ever, and nobody would have got its message. No record and no snapshot
    /// can bring this about: [`Self::set`] alone adds exceptions, and to both.
    fn unindex(&mut self, queue: u32, offset: QueueOffset, old: &Exception) {
        let Some(tag) = old.left else {
            let waited = self.due.remove(&(old.visible_at, queue, offset));
            assert!(waited, "offset {offset} of queue {queue} waited for no time");
            return;
        };
        let places = self.left.get_mut(&tag);
        let waited = places.is_some_and(|places| places.remove(&(queue, offset)));
        assert!(waited, "offset {offset} of queue {queue} waited for no member");
        self.left_len -= 1;
        if self.left.get(&tag).is_some_and(BTreeSet::is_empty) {
            self.left.remove(&tag);
            self.unwanted.remove(&tag);
        }
    }

    /// Takes an exception out: its message is done. `true` if the group may have fresh messages again for it.
    pub(super) fn remove(&mut self, queue: u32, offset: QueueOffset) -> bool {
        let Some(old) = self.queues.get_mut(queue as usize).and_then(|q| q.exceptions.remove(&offset)) else {
            return false;
        };
        self.unindex(queue, offset, &old);
        self.unfinished() + 1 == UNFINISHED_MAX
    }

    /// The first message of a queue that is not done: everything below it is.
    pub fn floor(&self, queue: u32) -> QueueOffset {
        let Some(queue) = self.queues.get(queue as usize) else { return QueueOffset::FIRST };
        queue.exceptions.first_key_value().map_or(queue.next, |(offset, _)| *offset)
    }

    /// Gives up what lies below an offset; returns how many messages were not done.
    pub(super) fn skip_to(&mut self, queue: u32, to: QueueOffset) -> u64 {
        let unseen = to.saturating_since(self.next(queue));
        let (mut given_up, below) = (unseen, self.queue_mut(queue));
        below.next = below.next.max(to);
        let kept = below.exceptions.split_off(&to);
        for (offset, exception) in std::mem::replace(&mut below.exceptions, kept) {
            self.unindex(queue, offset, &exception);
            given_up += 1;
        }
        given_up
    }

    /// Moves the cursor over `from..to`; what is not `leased` or `left` is done, unless a filter matches it: then it is
    /// left, whatever the record says. A part below the cursor was decided before and is ignored. So is a range that would
    /// leave a gap, since what lies in it was never handed out: its messages come again instead. Returns whether anything
    /// is left.
    pub(super) fn take_range(
        &mut self,
        range: &LeasedRange,
        lease: &Exception,
        tag: impl Fn(QueueOffset) -> Option<TagHash>,
    ) -> bool {
        let next = self.next(range.queue);
        if range.to <= next || range.from > next {
            return false;
        }
        let mut left = !range.left.is_empty();
        if !self.filters.is_empty() {
            let (mut leased, mut waiting) = (range.leased.iter().peekable(), range.left.iter().peekable());
            for offset in QueueOffset::each(range.from..range.to) {
                let decided = leased.next_if_eq(&&offset).is_some() | waiting.next_if_eq(&&offset).is_some();
                let wanted = |tag: &TagHash| self.filters.matches(*tag);
                if !decided
                    && offset >= next
                    && let Some(tag) = tag(offset).filter(wanted)
                {
                    self.set(range.queue, offset, Exception::left(tag, 0));
                    left = true;
                }
            }
        }
        for offset in range.leased.iter().filter(|offset| **offset >= next) {
            self.set(range.queue, *offset, lease.clone());
        }
        for offset in range.left.iter().filter(|offset| **offset >= next) {
            self.set(range.queue, *offset, Exception::left(tag(*offset).unwrap_or_default(), 0));
        }
        self.queue_mut(range.queue).next = range.to;
        left
    }

    /// Whether the message is not done and nobody's lease on it lives at `now`.
    pub(super) fn is_free(&self, queue: u32, offset: QueueOffset, now: Millis) -> bool {
        self.exception(queue, offset).is_some_and(|exception| exception.visible_at <= now)
    }

    /// Hands out an exception again.
    pub(super) fn lease_again(&mut self, queue: u32, offset: QueueOffset, lease: &Exception) {
        if let Some(old) = self.exception(queue, offset) {
            let attempts = old.attempts.saturating_add(1);
            self.set(queue, offset, Exception { attempts, ..lease.clone() });
        }
    }

    /// Lets an exception wait for another member; its deliveries so far still count.
    pub(super) fn leave(&mut self, queue: u32, offset: QueueOffset, tag: TagHash) {
        if let Some(old) = self.exception(queue, offset) {
            let attempts = old.attempts;
            self.set(queue, offset, Exception::left(tag, attempts));
        }
    }

    /// The lease behind a handle: `Ok(None)` if the message is done, refused if the handle names no living lease.
    pub(super) fn lease(
        &self,
        queue: u32,
        offset: QueueOffset,
        generation: Generation,
        now: Millis,
    ) -> Result<Option<&Exception>, Refusal> {
        if offset >= self.next(queue) {
            return Err(Refusal::InvalidHandle("it names a message that was never delivered to this group"));
        }
        match self.exception(queue, offset) {
            None => Ok(None),
            Some(lease) if lease.generation != generation => {
                Err(Refusal::InvalidHandle("the message was delivered again, or its lease was changed"))
            }
            Some(lease) if lease.visible_at <= now => Err(Refusal::InvalidHandle("its invisible time is over")),
            Some(lease) => Ok(Some(lease)),
        }
    }

    /// Ends a lease at another time under a new generation; an uncounted delivery gives its attempt back, once however
    /// often it is changed.
    pub(super) fn change(
        &mut self,
        queue: u32,
        offset: QueueOffset,
        generation: Generation,
        visible_at: Millis,
        uncounted: bool,
    ) {
        if let Some(old) = self.exception(queue, offset) {
            let with_this = old.attempts.saturating_add(old.suspended.into());
            let attempts = with_this.saturating_sub(uncounted.into());
            let (suspended, renewed_for) = (uncounted, None);
            let changed = Exception { attempts, suspended, generation, visible_at, renewed_for, ..old.clone() };
            self.set(queue, offset, changed);
        }
    }

    /// Deliveries of a message count no more, if it is not done.
    pub(super) fn give_back(&mut self, queue: u32, offset: QueueOffset, attempts: u32) {
        if let Some(old) = self.exception(queue, offset) {
            let fewer = Exception { attempts: old.attempts.saturating_sub(attempts), ..old.clone() };
            self.set(queue, offset, fewer);
        }
    }

    /// Extends a living lease; the handle stays as it is.
    pub(super) fn renew(
        &mut self,
        queue: u32,
        offset: QueueOffset,
        generation: Generation,
        visible_at: Millis,
        now: Millis,
    ) {
        if let Ok(Some(lease)) = self.lease(queue, offset, generation, now) {
            let renewed = Exception { visible_at: visible_at.max(lease.visible_at), ..lease.clone() };
            self.set(queue, offset, renewed);
        }
    }

    pub(super) fn write(&self, w: &mut Writer<'_>) {
        let Self { queues, due: _, left: _, left_len: _, unwanted: _, filters } = self;
        w.varint(queues.len() as u64);
        for QueueProgress { next, exceptions } in queues {
            w.varint(next.0);
            w.varint(exceptions.len() as u64);
            for (offset, exception) in exceptions {
                w.varint(offset.0);
                write_exception(w, exception);
            }
        }
        write_filters(w, filters.iter());
    }

    /// Reads it as this version of the section has it: filters came with the third.
    pub(super) fn read(r: &mut Reader<'_>, version: u8) -> Result<Self, DecodeError> {
        let mut progress = Progress::default();
        let queues = r.count("queues")?;
        if queues > QUEUES_MAX as usize {
            return Err(DecodeError::Value { field: "the number of queues", value: queues as u64 });
        }
        for queue in 0..queues as u32 {
            let next = QueueOffset(r.varint("next offset")?);
            progress.queue_mut(queue).next = next;
            for _ in 0..r.count("exceptions")? {
                let offset = QueueOffset(r.varint("offset")?);
                if offset >= next {
                    return Err(DecodeError::Value { field: "the offset of an exception", value: offset.0 });
                }
                let exception = Exception {
                    attempts: r.varint_u32("attempts")?,
                    suspended: r.flag("suspended")?,
                    left: r.option("left", |r| r.u64("left").map(TagHash))?,
                    generation: Generation(r.u64("generation")?),
                    visible_at: Millis(r.u64("visible at")?),
                    leased_at: Millis(r.u64("leased at")?),
                    renewed_for: r.option("renewed for", |r| r.text("renewed for").map(Arc::from))?,
                };
                progress.set(queue, offset, exception);
            }
        }
        if version >= 3 {
            read_filters(r)?.into_iter().for_each(|filter| progress.filters.add(filter));
            progress.unwanted.retain(|tag| !progress.filters.matches(*tag));
        }
        Ok(progress)
    }
}

fn write_exception(w: &mut Writer<'_>, exception: &Exception) {
    let Exception { attempts, suspended, generation, visible_at, left, leased_at, renewed_for } = exception;
    w.varint((*attempts).into());
    w.u8(u8::from(*suspended));
    w.option(*left, |w, tag| w.u64(tag.0));
    w.u64(generation.0);
    w.u64(visible_at.0);
    w.u64(leased_at.0);
    w.option(renewed_for.as_deref(), |w, client| w.text(client));
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: (u32, QueueOffset) = (0, QueueOffset::FIRST);

    fn with(exception: Exception) -> Progress {
        let mut progress = Progress::starting_at([QueueOffset(1)]);
        progress.set(PLACE.0, PLACE.1, exception);
        progress
    }

    #[test]
    #[should_panic(expected = "offset 0 of queue 0 waited for no time")]
    fn a_message_that_is_not_done_waits_for_its_time() {
        let mut progress = with(Exception { left: None, ..Exception::left(TagHash(1), 1) });
        progress.due.clear();
        progress.remove(PLACE.0, PLACE.1);
    }

    #[test]
    #[should_panic(expected = "offset 0 of queue 0 waited for no member")]
    fn a_message_that_was_left_waits_for_a_member() {
        let mut progress = with(Exception::left(TagHash(1), 1));
        progress.left.clear();
        progress.remove(PLACE.0, PLACE.1);
    }
}
