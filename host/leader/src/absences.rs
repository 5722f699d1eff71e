//! Which filters of groups no session has, and for how long (ruling 12). Belongs to this node and starts empty: before a
//! restart, or while no node ran, nobody was away. Nor is anybody while all of a group that receive from the topic are: they
//! may be stopped together for longer than this, and the first that is back would pass over what the others want.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use vouch_broker::record::FiltersGone;
use vouch_broker::state::Progress;
use vouch_broker::{GroupId, ResourceName, State, TagFilter, TopicId};

use crate::FilterOf;

/// A filter goes when no session had it for so long, while some member of its group on its topic lived.
pub(crate) const ABSENT_FOR: Duration = Duration::from_secs(150);
/// Filters, and topics of groups, that one look is about. The next one goes on behind it.
const LOOKS_AT_ONCE: usize = 4096;

/// Absence of one filter.
#[derive(Clone, Copy, Default)]
struct Away {
    /// How long it was away while a member of its group on its topic lived, up to the last look.
    lasted: Duration,
    /// When that was, if a member lived then.
    since: Option<Instant>,
}

impl Away {
    /// Counts the time since the last look if a member lived at both.
    fn look(&mut self, member_lives: bool, now: Instant) {
        if member_lives && let Some(since) = self.since {
            self.lasted += now.saturating_duration_since(since);
        }
        self.since = member_lives.then_some(now);
    }
}

/// Filters that no session had when they were last looked at.
#[derive(Default)]
pub(crate) struct Absences {
    away: HashMap<(GroupId, TopicId), BTreeMap<TagFilter, Away>>,
    after: Option<(GroupId, TopicId)>,
}

impl Absences {
    /// A receive brought a filter: its member is there.
    pub(crate) fn end(&mut self, subject: (GroupId, TopicId), filter: &TagFilter) {
        // For nearly every receive there is nothing: do not even hash it.
        if !self.away.is_empty()
            && let Some(filters) = self.away.get_mut(&subject)
        {
            filters.remove(filter);
            if filters.is_empty() {
                self.away.remove(&subject);
            }
        }
    }

    /// Looks at some filters, and returns those that go.
    pub(crate) fn look(
        &mut self,
        state: &State,
        has_member: impl Fn(&ResourceName, &ResourceName) -> bool,
        is_there: impl Fn(FilterOf<'_>) -> bool,
        now: Instant,
    ) -> Vec<FiltersGone> {
        let (mut gone, mut room) = (Vec::new(), LOOKS_AT_ONCE);
        for (group, id, progress) in state.groups().progress_after(self.after) {
            if room == 0 {
                return gone;
            }
            room = room.saturating_sub(1 + progress.filters().len());
            self.after = Some((group.id, id));
            let Some(topic) = state.topics().get(id) else { continue };
            let is_there = |filter: &TagFilter| is_there((&group.name, &topic.name, filter));
            let filters = self.over((group.id, id), progress, has_member(&group.name, &topic.name), is_there, now);
            if !filters.is_empty() {
                gone.push(FiltersGone { group: group.id, topic: id, filters });
            }
        }
        self.after = None;
        let lives = |(group, topic): &(GroupId, TopicId)| {
            state.groups().get(*group).is_some_and(|group| group.progress(*topic).is_some())
        };
        self.away.retain(|subject, _| lives(subject));
        gone
    }

    /// Filters of a group on a topic that nobody had for long enough. They are forgotten here: if the record that lets them
    /// go is not written, they are away anew.
    fn over(
        &mut self,
        subject: (GroupId, TopicId),
        progress: &Progress,
        member_lives: bool,
        is_there: impl Fn(&TagFilter) -> bool,
        now: Instant,
    ) -> Vec<TagFilter> {
        let mut before = self.away.remove(&subject).unwrap_or_default();
        let (mut away, mut over) = (BTreeMap::new(), Vec::new());
        for filter in progress.filters().iter().filter(|filter| !is_there(filter)) {
            let mut absence = before.remove(filter).unwrap_or_default();
            absence.look(member_lives, now);
            if absence.lasted >= ABSENT_FOR {
                over.push(filter.clone());
            } else if member_lives || absence.lasted > Duration::ZERO {
                away.insert(filter.clone(), absence);
            }
        }
        if !away.is_empty() {
            self.away.insert(subject, away);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use vouch_broker::record::{FilterNoted, Frame, GroupPut, Join, Record, TopicPut};
    use vouch_broker::{GroupConfig, ResourceName, TopicConfig};

    use super::*;
    use crate::testing::next_at;

    const SUBJECT: (GroupId, TopicId) = (GroupId(1), TopicId(1));

    fn apply(state: &mut State, records: &[u8]) {
        let mut rest = records;
        while !rest.is_empty() {
            let (frame, next) = Frame::split(rest).unwrap();
            state.apply(next_at(state), &Record::decode(&frame).unwrap(), &mut Vec::new()).unwrap();
            rest = next;
        }
    }

    /// A state in which so many groups of one topic have these filters.
    fn state(groups: u32, filters: &[TagFilter]) -> State {
        let (mut state, mut records) = (State::default(), Vec::new());
        let name = ResourceName::plain("t");
        TopicPut { name, config: TopicConfig::default(), expected_revision: None }.encode(&mut records);
        for n in 1..=groups {
            let (group, topic) = (GroupId(n), TopicId(1));
            let name = ResourceName::plain(format!("g{n}"));
            GroupPut { name, config: GroupConfig::default(), expected_revision: None }.encode(&mut records);
            Join { group, topic, at_end: false }.encode(&mut records);
            for filter in filters {
                FilterNoted { group, topic, filter: filter.clone() }.encode(&mut records);
            }
        }
        apply(&mut state, &records);
        state
    }

    fn gone(filter: &TagFilter) -> Vec<FiltersGone> {
        vec![FiltersGone { group: SUBJECT.0, topic: SUBJECT.1, filters: vec![filter.clone()] }]
    }

    #[test]
    fn a_filter_goes_when_it_was_away_for_150_seconds_in_a_row_and_not_before() {
        let [a, b] = ["a", "b"].map(|tag| TagFilter::tags([tag]));
        let (state, now) = (state(1, &[a.clone(), b.clone()]), Instant::now());
        let mut absences = Absences::default();
        let only_b = |(_, _, filter): FilterOf<'_>| *filter == b;
        assert_eq!(absences.look(&state, |_, _| true, only_b, now), []);
        assert_eq!(absences.look(&state, |_, _| true, only_b, now + ABSENT_FOR - Duration::from_millis(1)), []);
        assert_eq!(absences.look(&state, |_, _| true, only_b, now + ABSENT_FOR), gone(&a));
        assert_eq!(absences.look(&state, |_, _| true, only_b, now + ABSENT_FOR), [], "it is said once");
        // A look that finds a member begins the time anew, and so does a receive between two looks.
        let later = now + ABSENT_FOR;
        assert_eq!(absences.look(&state, |_, _| true, |_| true, later + ABSENT_FOR / 2), []);
        assert_eq!(absences.look(&state, |_, _| true, only_b, later + ABSENT_FOR), []);
        absences.end(SUBJECT, &a);
        assert_eq!(absences.look(&state, |_, _| true, only_b, later + 2 * ABSENT_FOR), []);
        assert_eq!(absences.look(&state, |_, _| true, only_b, later + 3 * ABSENT_FOR), gone(&a));
    }

    #[test]
    fn a_filter_is_not_away_while_all_members_of_its_group_are() {
        let [a, b] = ["a", "b"].map(|tag| TagFilter::tags([tag]));
        let (state, begun) = (state(1, &[a.clone(), b.clone()]), Instant::now());
        let (mut absences, minute) = (Absences::default(), Duration::from_secs(60));
        let at = |minutes: u32| begun + minute * minutes;
        // Both are stopped for hours.
        for minutes in 0..=300 {
            assert_eq!(absences.look(&state, |_, _| false, |_| false, at(minutes)), []);
        }
        assert!(absences.away.is_empty(), "nothing is remembered for them");
        // One is back, and stops once more: that does not count for the other.
        let only_b = |(_, _, filter): FilterOf<'_>| *filter == b;
        let mut gone_at = None;
        for minutes in 301..=320 {
            let lives = !(302..=310).contains(&minutes);
            let went = absences.look(&state, |_, _| lives, |place| lives && only_b(place), at(minutes));
            if !went.is_empty() {
                assert_eq!(went, gone(&a));
                gone_at = gone_at.or(Some(minutes));
            }
        }
        // Minutes that count begin with 311: two are not 150 seconds, three are.
        assert_eq!(gone_at, Some(314));
    }

    #[test]
    fn after_a_restart_nobody_has_been_away() {
        let a = TagFilter::tags(["a"]);
        let (state, now) = (state(1, std::slice::from_ref(&a)), Instant::now());
        assert_eq!(Absences::default().look(&state, |_, _| true, |_| false, now + 9 * ABSENT_FOR), []);
    }

    #[test]
    fn many_filters_are_looked_at_in_steps_and_none_is_left_out() {
        let filters: Vec<TagFilter> = (0..7).map(|n: u8| TagFilter::tags([n.to_string().as_str()])).collect();
        let (state, now) = (state(1_000, &filters), Instant::now());
        let (mut absences, mut steps, mut went) = (Absences::default(), 0, 0);
        for at in [now, now + ABSENT_FOR] {
            loop {
                let gone = absences.look(&state, |_, _| true, |_| false, at);
                assert!(gone.len() <= LOOKS_AT_ONCE / 8);
                went += gone.iter().map(|gone| gone.filters.len()).sum::<usize>();
                steps += 1;
                if absences.after.is_none() {
                    break;
                }
            }
        }
        assert_eq!((steps, went), (4, 7_000));
        assert!(absences.away.is_empty());
    }
}
