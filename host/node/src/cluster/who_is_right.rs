//! Who is right where replicas had something else at one position of the log. Pure.
//!
//! # To ensure correctness
//! - A replica gives up only where a majority of the voters had one thing, and it another: of both sets, while the members change. Two
//!   majorities have one in common, so they cannot have had two things: of those who are outvoted at one position nobody is needed for a
//!   majority.
//! - What two had is not the same or different as a whole. Two that ended parts elsewhere have other parts, and may be right both: so the
//!   state is counted by itself, and a part among those alone whose part begins at the same position.

use std::collections::{BTreeMap, BTreeSet};

use vouch_broker::record::SealedAt;
use vouch_cluster::{GroupMembers, NodeId};
use vouch_storage::SealedUnlike;

/// What is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WhoIsRight {
    /// These had one thing, and this replica another, and of what.
    Others {
        /// A majority of the voters.
        majority: BTreeSet<NodeId>,
        /// What is not the same.
        what: &'static str,
    },
    /// A majority had what this replica had.
    This {
        /// Those who had something else.
        differ: BTreeSet<NodeId>,
    },
    /// Too few of them say what they had, or no majority of them had one thing.
    Unknown,
}

/// Who is right at the position that this replica is in doubt of, by what the others say that they had there.
pub(super) fn who_is_right(
    me: NodeId,
    doubt: &SealedUnlike,
    others: &BTreeMap<NodeId, SealedAt>,
    members: &GroupMembers,
) -> WhoIsRight {
    let SealedUnlike { own, other, what } = doubt;
    let told = others.iter().filter(|(node, sealed)| **node != me && sealed.position == own.position);
    let all: Vec<(NodeId, &SealedAt)> = told.map(|(node, sealed)| (*node, sealed)).chain([(me, own)]).collect();
    let comparable = |sealed: &SealedAt| sealed.since == own.since;
    let states = all.iter().map(|(node, sealed)| (*node, sealed.state));
    let parts = all.iter().filter(|(_, sealed)| comparable(sealed)).map(|(node, sealed)| (*node, sealed.part));
    let (state, part) = (majority(states, members), majority(parts, members));
    let outvoted_by = match (&state, &part) {
        (Some((state, by)), _) if *state != own.state => Some(by),
        (_, Some((part, by))) if *part != own.part => Some(by),
        _ => None,
    };
    if let Some(by) = outvoted_by {
        let unlike = all.iter().filter(|(node, _)| by.contains(node)).find_map(|(_, sealed)| own.differs(sealed));
        return WhoIsRight::Others { majority: by.clone(), what: unlike.unwrap_or(what) };
    }
    let unlike = |sealed: &SealedAt| comparable(sealed) && sealed.part != own.part;
    let is_told_so = other.position == own.position && unlike(other);
    let parts_are_unlike = is_told_so || all.iter().any(|(_, sealed)| unlike(sealed));
    if state.is_some() && (part.is_some() || !parts_are_unlike) {
        let differ = all.iter().filter(|(_, sealed)| own.differs(sealed).is_some()).map(|(node, _)| *node);
        return WhoIsRight::This { differ: differ.collect() };
    }
    WhoIsRight::Unknown
}

/// What a majority of the voters had, and who they are. There are no two such.
fn majority<T: Ord>(had: impl Iterator<Item = (NodeId, T)>, members: &GroupMembers) -> Option<(T, BTreeSet<NodeId>)> {
    let mut who = BTreeMap::<T, BTreeSet<NodeId>>::new();
    for (node, value) in had {
        who.entry(value).or_default().insert(node);
    }
    who.into_iter().find(|(_, nodes)| members.decide(nodes))
}

#[cfg(test)]
mod tests {
    use vouch_broker::RecordPosition;

    use super::*;

    const STATE: &str = "what is known of topics, groups and transactions";
    const INDEX: &str = "the index of messages";

    fn had(state: u64) -> SealedAt {
        SealedAt { position: RecordPosition(50), since: 10, part: Some(1), state }
    }

    fn ids(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    fn voters(nodes: &[u64]) -> GroupMembers {
        GroupMembers::voters(nodes.iter().copied().map(NodeId))
    }

    /// As node 1 finds, which had the first of these; the others in their order, from node 2 on, if they say it. Somebody had `other`.
    fn finds(other: SealedAt, all: &[Option<SealedAt>], members: &GroupMembers) -> WhoIsRight {
        let others = all.iter().enumerate().skip(1);
        let others = others.filter_map(|(at, sealed)| Some((NodeId(at as u64 + 1), (*sealed)?))).collect();
        let doubt = SealedUnlike { own: all[0].unwrap(), other, what: STATE };
        who_is_right(NodeId(1), &doubt, &others, members)
    }

    fn others(nodes: &[u64], what: &'static str) -> WhoIsRight {
        WhoIsRight::Others { majority: ids(nodes), what }
    }

    fn this(differ: &[u64]) -> WhoIsRight {
        WhoIsRight::This { differ: ids(differ) }
    }

    #[test]
    fn who_is_outvoted_by_a_majority_with_one_value_is_wrong_and_nobody_else() {
        let three = voters(&[1, 2, 3]);
        let find = |states: [Option<u64>; 3]| finds(had(9), &states.map(|state| state.map(had)), &three);
        assert_eq!(find([Some(7), Some(9), Some(9)]), others(&[2, 3], STATE));
        assert_eq!(find([Some(7), Some(9), Some(7)]), this(&[2]));
        assert_eq!(find([Some(7), None, Some(7)]), this(&[]), "whoever told it is silent now");
        assert_eq!(find([Some(7), Some(9), None]), WhoIsRight::Unknown, "the third is silent");
        assert_eq!(find([Some(7), Some(9), Some(8)]), WhoIsRight::Unknown, "three values");
        assert_eq!(find([Some(7), None, None]), WhoIsRight::Unknown);
    }

    #[test]
    fn of_two_neither_is_outvoted_and_one_that_is_alone_is_right() {
        let find = |states: [Option<u64>; 2], nodes: &[u64]| {
            finds(had(9), &states.map(|state| state.map(had)), &voters(nodes))
        };
        assert_eq!(find([Some(7), Some(9)], &[1, 2]), WhoIsRight::Unknown);
        assert_eq!(find([Some(7), None], &[1, 2]), WhoIsRight::Unknown);
        assert_eq!(find([Some(7), Some(9)], &[1]), this(&[2]), "the other was removed");
        assert_eq!(find([Some(7), Some(9)], &[2]), others(&[2], STATE), "it was itself, or does not vote");
    }

    #[test]
    fn of_five_two_that_differ_alike_are_outvoted_and_two_that_agree_outvote_nobody() {
        let five = voters(&[1, 2, 3, 4, 5]);
        let find = |states: [u64; 5]| finds(had(9), &states.map(|state| Some(had(state))), &five);
        assert_eq!(find([7, 9, 9, 9, 7]), others(&[2, 3, 4], STATE));
        assert_eq!(find([7, 7, 7, 9, 9]), this(&[4, 5]));
        assert_eq!(find([7, 9, 9, 8, 8]), WhoIsRight::Unknown);
    }

    #[test]
    fn while_the_members_change_both_sets_must_say_it() {
        let mut members = voters(&[1, 2, 3]);
        members.outgoing = ids(&[1, 4, 5]);
        let find = |states: [Option<u64>; 5]| finds(had(9), &states.map(|state| state.map(had)), &members);
        let (mine, other) = (Some(7), Some(9));
        assert_eq!(find([mine, other, other, other, other]), others(&[2, 3, 4, 5], STATE));
        assert_eq!(find([mine, other, other, mine, mine]), WhoIsRight::Unknown, "one set each");
        assert_eq!(find([mine, other, other, None, None]), WhoIsRight::Unknown);
        assert_eq!(find([mine, mine, other, mine, other]), this(&[3, 5]));
    }

    #[test]
    fn parts_are_counted_among_those_that_begin_where_its_own_does() {
        let three = voters(&[1, 2, 3]);
        let find = |other: SealedAt, all: [SealedAt; 3]| finds(other, &all.map(Some), &three);
        let (part, elsewhere) = (|part| SealedAt { part, ..had(7) }, SealedAt { since: 20, part: Some(5), ..had(7) });
        assert_eq!(find(part(Some(2)), [had(7), part(Some(2)), part(Some(2))]), others(&[2, 3], INDEX));
        assert_eq!(find(part(None), [had(7), part(None), part(None)]), others(&[2, 3], INDEX));
        assert_eq!(find(part(Some(2)), [had(7), part(Some(2)), had(7)]), this(&[2]));
        // What node 3 has can be held against neither.
        assert_eq!(find(part(Some(2)), [had(7), part(Some(2)), elsewhere]), WhoIsRight::Unknown);
        // Node 2 is not told from this one by its part; nor does it agree by that with node 3.
        assert_eq!(find(had(9), [elsewhere, had(7), had(9)]), this(&[3]));
        assert_eq!(find(had(9), [SealedAt { state: 7, ..elsewhere }, had(9), part(Some(2))]), this(&[2]));
        assert_eq!(find(had(9), [had(7), SealedAt { state: 9, ..elsewhere }, had(9)]), others(&[2, 3], STATE));
        // The state is settled, and the index is not.
        assert_eq!(
            find(part(Some(2)), [had(7), elsewhere, elsewhere]),
            WhoIsRight::Unknown,
            "whoever told it is silent"
        );
    }

    #[test]
    fn what_was_had_elsewhere_counts_nothing() {
        let three = voters(&[1, 2, 3]);
        let before = SealedAt { position: RecordPosition(40), ..had(9) };
        assert_eq!(finds(before, &[Some(had(7)), Some(before), Some(before)], &three), WhoIsRight::Unknown);
        let unlike = SealedAt { part: Some(2), ..before };
        assert_eq!(finds(unlike, &[Some(had(7)), Some(had(7)), None], &three), this(&[]), "it was moved on");
    }
}
