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

/// Receives of one group with one filter: a message that the first of them does not get, none of them gets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Line {
    group: ResourceName,
    filter: TagFilter,
}

/// Waiting receives.
#[derive(Default)]
pub(crate) struct Polls {
    /// By number, in the order in which they came.
    waiting: HashMap<u64, (TopicId, Poll)>,
    last_number: u64,
    lines: HashMap<TopicId, HashMap<Line, VecDeque<u64>>>,
    /// When each gives up.
    by_time: BTreeSet<(Instant, u64)>,
    /// When to look at a topic again although nothing happened: a lease ends there.
    wake_at: BTreeSet<(Millis, TopicId)>,
    /// Receives whose group must come into being or join the topic first, by the record that does it.
    joining: HashMap<Vec<u8>, Vec<Poll>>,
}

impl Polls {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.joining.values().map(Vec::len).sum::<usize>()
    }

    /// Waits behind the others of its line; in front of them if it was the first of them just now.
    pub(crate) fn wait(&mut self, topic: TopicId, poll: Poll, in_front: bool) {
        self.last_number += 1;
        let number = self.last_number;
        let line = Line { group: poll.group.clone(), filter: poll.filter.clone() };
        let line = self.lines.entry(topic).or_default().entry(line).or_default();
        if in_front {
            line.push_front(number);
        } else {
            line.push_back(number);
        }
        self.by_time.insert((poll.until, number));
        self.waiting.insert(number, (topic, poll));
    }

    /// Waits for a record that is on its way into the log, however little time the receive has: it ends with the log's
    /// next group, and an answer before it would call a full topic empty. Returns whether it is the first to wait for it.
    pub(crate) fn wait_to_join(&mut self, record: Vec<u8>, poll: Poll) -> bool {
        let waiting = self.joining.entry(record).or_default();
        waiting.push(poll);
        waiting.len() == 1
    }

    /// The receives that waited for this record, which happened or was refused.
    pub(crate) fn joined(&mut self, record: &[u8]) -> Vec<Poll> {
        // For nearly every record nobody waits: do not even hash it.
        if self.joining.is_empty() { Vec::new() } else { self.joining.remove(record).unwrap_or_default() }
    }

    pub(crate) fn any_on(&self, topic: TopicId) -> bool {
        self.lines.contains_key(&topic)
    }

    /// The lines of a topic.
    pub(crate) fn lines(&self, topic: TopicId) -> Vec<Line> {
        self.lines.get(&topic).into_iter().flat_map(HashMap::keys).cloned().collect()
    }

    /// Takes the first receive of a line whose caller still waits.
    pub(crate) fn take_first(&mut self, topic: TopicId, line: &Line) -> Option<Poll> {
        loop {
            let number = *self.lines.get(&topic)?.get(line)?.front()?;
            let poll = self.remove(number)?;
            if !poll.reply.is_closed() {
                return Some(poll);
            }
        }
    }

    fn remove(&mut self, number: u64) -> Option<Poll> {
        let (topic, poll) = self.waiting.remove(&number)?;
        self.by_time.remove(&(poll.until, number));
        let line = Line { group: poll.group.clone(), filter: poll.filter.clone() };
        if let Some(lines) = self.lines.get_mut(&topic) {
            if let Some(numbers) = lines.get_mut(&line) {
                // Near the front: who came first is served, or gives up, first.
                if let Some(at) = numbers.iter().position(|other| *other == number) {
                    numbers.remove(at);
                }
                if numbers.is_empty() {
                    lines.remove(&line);
                }
            }
            if lines.is_empty() {
                self.lines.remove(&topic);
            }
        }
        Some(poll)
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

    /// When the first receive gives up.
    pub(crate) fn first_timeout(&self) -> Option<Instant> {
        self.by_time.first().map(|(until, _)| *until)
    }

    /// Receives that have waited long enough.
    pub(crate) fn timed_out(&mut self, now: Instant) -> Vec<Poll> {
        let mut out = Vec::new();
        while let Some((_, number)) = self.by_time.first().copied().filter(|(until, _)| *until <= now) {
            out.extend(self.remove(number));
        }
        out
    }

    /// All of them: the node stops.
    pub(crate) fn drain(&mut self) -> Vec<Poll> {
        self.lines.clear();
        self.by_time.clear();
        let waiting = self.waiting.drain().map(|(_, (_, poll))| poll);
        waiting.chain(self.joining.drain().flat_map(|(_, polls)| polls)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vouch_broker::TagHash;

    use super::*;

    type Answer = oneshot::Receiver<Result<Option<Batch>, Refusal>>;

    fn poll(group: &str, filter: TagFilter, until: Instant) -> (Poll, Answer) {
        let (reply, answer) = oneshot::channel();
        let (topic, group) = (ResourceName::plain("t"), ResourceName::plain(group));
        let client_id = "client".to_owned();
        (Poll { topic, group, client_id, filter, max: 1, invisible_ms: 1, auto_renew: false, until, reply }, answer)
    }

    const TOPIC: TopicId = TopicId(1);

    #[test]
    fn receives_of_one_group_and_filter_stand_in_one_line_and_are_served_in_their_order() {
        let (mut polls, now) = (Polls::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        let tagged = TagFilter::Tags(vec![TagHash(1)]);
        let mut answers = Vec::new();
        for (group, filter, until) in
            [("g", TagFilter::All, 9), ("g", TagFilter::All, 5), ("g", tagged.clone(), 6), ("h", TagFilter::All, 7)]
        {
            let (poll, answer) = poll(group, filter, at(until));
            polls.wait(TOPIC, poll, false);
            answers.push(answer);
        }
        assert_eq!((polls.len(), polls.lines(TOPIC).len()), (4, 3));
        assert_eq!(polls.first_timeout(), Some(at(5)));
        let line = Line { group: ResourceName::plain("g"), filter: TagFilter::All };
        let first = polls.take_first(TOPIC, &line).unwrap();
        assert_eq!(first.until, at(9));
        polls.wait(TOPIC, first, true);
        assert_eq!(polls.take_first(TOPIC, &line).unwrap().until, at(9), "it keeps its place");
        assert_eq!(polls.timed_out(at(6)).iter().map(|poll| poll.until).collect::<Vec<_>>(), [at(5), at(6)]);
        assert!(polls.take_first(TOPIC, &line).is_none());
        assert_eq!((polls.len(), polls.first_timeout()), (1, Some(at(7))));
        assert_eq!(polls.drain().len(), 1);
        assert!(!polls.any_on(TOPIC));
    }

    #[test]
    fn a_receive_whose_caller_is_gone_is_passed_over() {
        let (mut polls, until) = (Polls::default(), Instant::now());
        let (gone, answer) = poll("g", TagFilter::All, until);
        drop(answer);
        let (there, _answer) = poll("g", TagFilter::All, until + Duration::from_secs(1));
        polls.wait(TOPIC, gone, false);
        polls.wait(TOPIC, there, false);
        let [line] = polls.lines(TOPIC).try_into().unwrap();
        assert_eq!(polls.take_first(TOPIC, &line).unwrap().until, until + Duration::from_secs(1));
        assert!(!polls.any_on(TOPIC));
    }

    #[test]
    fn the_first_to_wait_for_a_record_is_told_so_and_all_come_back_with_it() {
        let mut polls = Polls::default();
        let until = Instant::now();
        assert!(polls.wait_to_join(b"join".to_vec(), poll("g", TagFilter::All, until).0));
        assert!(!polls.wait_to_join(b"join".to_vec(), poll("g", TagFilter::All, until).0));
        assert!(polls.joined(b"other").is_empty());
        assert_eq!(polls.joined(b"join").len(), 2);
        assert!(polls.wait_to_join(b"join".to_vec(), poll("g", TagFilter::All, until).0), "it is proposed anew");
    }
}
