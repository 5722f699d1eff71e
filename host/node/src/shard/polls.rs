//! Receives that wait for messages.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use tokio::sync::oneshot;
use vouch_broker::delivery::Picked;
use vouch_broker::{GroupId, Millis, Refusal, ResourceName, TagFilter, TopicId};

/// Most receives that wait at once.
pub(crate) const POLLS_MAX: usize = 100_000;

/// Messages leased to a consumer; their bodies are still to be read.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) topic: TopicId,
    pub(crate) group: GroupId,
    pub(crate) messages: Vec<Picked>,
    pub(crate) generation: u64,
    pub(crate) deadline: Millis,
}

/// One receive.
pub(crate) struct Poll {
    pub(crate) topic: ResourceName,
    pub(crate) group: ResourceName,
    pub(crate) client_id: String,
    pub(crate) filter: TagFilter,
    pub(crate) max: usize,
    pub(crate) invisible_ms: u64,
    pub(crate) auto_renew: bool,
    /// When to answer with nothing.
    pub(crate) until: Instant,
    pub(crate) reply: oneshot::Sender<Result<Option<Batch>, Refusal>>,
}

/// Waiting receives by topic, in the order in which they came.
#[derive(Default)]
pub(crate) struct Polls {
    by_topic: HashMap<TopicId, VecDeque<Poll>>,
    /// When to look at a topic again although nothing happened: a lease ends there.
    wake_at: BTreeSet<(Millis, TopicId)>,
    /// Receives whose group must join the topic first.
    pub(crate) joining: Vec<Poll>,
    /// When the first receive gives up; may be too early, never too late.
    first_timeout: Option<Instant>,
    len: usize,
}

impl Polls {
    pub(crate) fn len(&self) -> usize {
        self.len + self.joining.len()
    }

    pub(crate) fn wait(&mut self, topic: TopicId, poll: Poll) {
        self.note_timeout(poll.until);
        self.by_topic.entry(topic).or_default().push_back(poll);
        self.len += 1;
    }

    /// Waits for a join that is on its way into the log, however little time the receive has: it ends with the log's
    /// next group, and an answer before it would call a full topic empty.
    pub(crate) fn wait_to_join(&mut self, poll: Poll) {
        self.joining.push(poll);
    }

    fn note_timeout(&mut self, until: Instant) {
        self.first_timeout = Some(self.first_timeout.map_or(until, |first| first.min(until)));
    }

    pub(crate) fn any_on(&self, topic: TopicId) -> bool {
        self.by_topic.contains_key(&topic)
    }

    pub(crate) fn take(&mut self, topic: TopicId) -> VecDeque<Poll> {
        let polls = self.by_topic.remove(&topic).unwrap_or_default();
        self.len -= polls.len();
        polls
    }

    pub(crate) fn wake_at(&mut self, at: Millis, topic: TopicId) {
        self.wake_at.insert((at, topic));
    }

    /// Topics whose time has come.
    pub(crate) fn awake(&mut self, now: Millis) -> Vec<TopicId> {
        let mut topics = Vec::new();
        while let Some((_, topic)) = self.wake_at.first().copied().filter(|(at, _)| *at <= now) {
            self.wake_at.pop_first();
            topics.push(topic);
        }
        topics
    }

    pub(crate) fn next_wake(&self) -> Option<Millis> {
        self.wake_at.first().map(|(at, _)| *at)
    }

    pub(crate) fn first_timeout(&self) -> Option<Instant> {
        self.first_timeout
    }

    /// Receives that have waited long enough, or whose caller is gone.
    pub(crate) fn timed_out(&mut self, now: Instant) -> Vec<Poll> {
        if self.first_timeout.is_none_or(|first| first > now) {
            return Vec::new();
        }
        let over = |poll: &Poll| poll.until <= now || poll.reply.is_closed();
        let mut out = Vec::new();
        for polls in self.by_topic.values_mut() {
            let (gone, kept) = std::mem::take(polls).into_iter().partition(|poll| over(poll));
            *polls = kept;
            self.len -= VecDeque::len(&gone);
            out.extend(gone);
        }
        self.by_topic.retain(|_, polls| !polls.is_empty());
        self.first_timeout = self.by_topic.values().flatten().map(|poll| poll.until).min();
        out
    }

    /// All of them: the node stops.
    pub(crate) fn drain(&mut self) -> Vec<Poll> {
        self.len = 0;
        self.first_timeout = None;
        self.by_topic.drain().flat_map(|(_, polls)| polls).chain(self.joining.drain(..)).collect()
    }
}
