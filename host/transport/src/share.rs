//! Room for things that come from elsewhere: so many, and so many bytes of them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for a number of things with a number of bytes; it may be a part of a greater one.
#[derive(Debug)]
pub(crate) struct Share {
    /// Things there is room for.
    count: Arc<Semaphore>,
    /// Bytes there is room for.
    bytes: Arc<Semaphore>,
    /// What this is a part of.
    of: Option<Arc<Share>>,
}

/// What was taken. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct ShareTaken {
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Share {
    /// Room that is no part of any other.
    pub(crate) fn new(count: usize, bytes: usize) -> Arc<Self> {
        Self::within(None, count, bytes)
    }

    /// A part of another one: what is taken of it is taken of both.
    pub(crate) fn part(of: &Arc<Self>, count: usize, bytes: usize) -> Arc<Self> {
        Self::within(Some(of.clone()), count, bytes)
    }

    fn within(of: Option<Arc<Self>>, count: usize, bytes: usize) -> Arc<Self> {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { count: semaphore(count), bytes: semaphore(bytes), of })
    }

    /// Takes room for one thing, if there is any. Where there is too little in this or in what it is a part of, nothing is
    /// taken of either.
    pub(crate) fn take(&self, bytes: usize) -> Option<ShareTaken> {
        let mut permits = Vec::with_capacity(4);
        let mut from = Some(self);
        while let Some(share) = from {
            permits.push(share.count.clone().try_acquire_owned().ok()?);
            permits.push(share.bytes.clone().try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()?);
            from = share.of.as_deref();
        }
        Some(ShareTaken { _permits: permits })
    }

    /// Waits for room for so many bytes; who came first gets it first. Of what is no part of another one.
    pub(crate) async fn wait(&self, bytes: usize) -> Option<ShareTaken> {
        let permit = self.bytes.clone().acquire_many_owned(u32::try_from(bytes).ok()?).await.ok()?;
        Some(ShareTaken { _permits: vec![permit] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_up_to_the_bound_and_again_when_it_is_given_back() {
        let share = Share::new(2, 10);
        let first = share.take(10).unwrap();
        assert!(share.take(1).is_none(), "no byte is left");
        let second = share.take(0).unwrap();
        assert!(share.take(0).is_none(), "two are the most");
        drop(first);
        assert!(share.take(11).is_none());
        let third = share.take(10).unwrap();
        drop((second, third));
        assert!(share.take(10).is_some());
    }

    #[test]
    fn a_part_leaves_room_for_others_and_takes_from_the_whole() {
        let whole = Share::new(3, 100);
        let (one, other) = (Share::part(&whole, 2, 60), Share::part(&whole, 2, 60));
        let held = one.take(60).unwrap();
        assert!(one.take(1).is_none() && other.take(41).is_none());
        let rest = other.take(40).unwrap();
        drop(held);
        assert!(one.take(60).is_some(), "what failed kept nothing");
        drop(rest);
    }
}
