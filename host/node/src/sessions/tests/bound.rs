//! Bindings that consume, as members of their groups.

use std::collections::BTreeSet;

use super::*;

fn orders() -> ResourceName {
    ResourceName::plain("orders")
}

fn group(name: &str) -> ResourceName {
    ResourceName::plain(name)
}

/// A binding that wants these tags of the orders for this group.
fn member(binding: &str, of: &str, tag: &str) -> (String, ResourceName, Vec<(ResourceName, TagFilter)>) {
    (binding.to_owned(), group(of), vec![(orders(), TagFilter::tags([tag]))])
}

/// The same of one that pauses.
fn paused(of: &str, tag: &str) -> BTreeSet<(ResourceName, ResourceName, TagFilter)> {
    BTreeSet::from([(group(of), orders(), TagFilter::tags([tag]))])
}

fn wants(sessions: &Sessions, of: &str, tag: &str) -> bool {
    sessions.has_filter((&group(of), &orders(), &TagFilter::tags([tag])))
}

fn has_member(sessions: &Sessions, of: &str) -> bool {
    sessions.has_member_on(&group(of), &orders())
}

/// Whether nothing is left of anybody.
fn is_empty(sessions: &Sessions) -> bool {
    let table = sessions.table();
    table.bound.is_empty()
        && table.paused.is_empty()
        && !["g", "h"].iter().any(|of| table.groups.has_member(&group(of)))
}

#[test]
fn a_binding_is_a_member_of_its_groups_until_it_is_named_no_more() {
    let sessions = Sessions::default();
    sessions.set_bound(vec![member("b", "g", "x"), member("b", "h", "y")], BTreeSet::new());
    assert!(wants(&sessions, "g", "x") && wants(&sessions, "h", "y"));
    assert!(has_member(&sessions, "g") && has_member(&sessions, "h"));
    assert!(!wants(&sessions, "g", "y") && !wants(&sessions, "h", "x"), "each group wants its own");
    assert!(!sessions.has_member_on(&group("g"), &ResourceName::plain("payments")));
    let mut unnoted = sessions.unnoted_filters(&group("g"), &orders(), 9, &mut |_| false);
    assert_eq!(unnoted.pop(), Some(TagFilter::tags(["x"])), "the log is to know it before anything is skipped");
    assert!(unnoted.is_empty());
    // Named again it is there once: a second time nothing has to go.
    for _ in 0..3 {
        sessions.set_bound(vec![member("b", "g", "x"), member("b", "h", "y")], BTreeSet::new());
    }
    assert_eq!(sessions.count(), (0, 0), "it is no session");
    sessions.set_bound(vec![member("b", "h", "y")], BTreeSet::new());
    assert!(!has_member(&sessions, "g") && has_member(&sessions, "h"));
    sessions.set_bound(Vec::new(), BTreeSet::new());
    assert!(is_empty(&sessions));
}

#[test]
fn a_binding_that_pauses_is_no_member_that_lives_and_what_it_wants_is_not_skipped() {
    let sessions = Sessions::default();
    sessions.set_bound(Vec::new(), paused("g", "x"));
    assert!(wants(&sessions, "g", "x") && !has_member(&sessions, "g"));
    assert!(!wants(&sessions, "g", "y") && !wants(&sessions, "h", "x"));
    assert!(sessions.unnoted_filters(&group("g"), &orders(), 9, &mut |_| false).is_empty());
    // It goes on: a member like before.
    sessions.set_bound(vec![member("b", "g", "x")], BTreeSet::new());
    assert!(wants(&sessions, "g", "x") && has_member(&sessions, "g"));
    sessions.set_bound(Vec::new(), paused("g", "x"));
    assert!(wants(&sessions, "g", "x") && !has_member(&sessions, "g"));
    sessions.set_bound(Vec::new(), BTreeSet::new());
    assert!(!wants(&sessions, "g", "x"), "it was deleted while it paused");
    assert!(is_empty(&sessions));
}

#[test]
fn a_binding_that_wants_another_thing_wants_the_old_one_no_more_unless_another_member_does() {
    let sessions = Sessions::default();
    let now = Instant::now();
    sessions.declare("client", consumer("g", "x"), now).unwrap();
    sessions.set_bound(vec![member("b", "g", "x")], BTreeSet::new());
    assert_eq!(sessions.filter_differences(), 0);
    sessions.set_bound(vec![member("b", "g", "y")], BTreeSet::new());
    assert!(wants(&sessions, "g", "x") && wants(&sessions, "g", "y"));
    assert_eq!(sessions.filter_differences(), 1, "members of one group differ");
    sessions.set_bound(vec![member("b", "g", "y")], BTreeSet::new());
    assert_eq!(sessions.filter_differences(), 1, "that is known");
    sessions.close("client", now);
    assert!(!wants(&sessions, "g", "x") && wants(&sessions, "g", "y"), "a client that leaves takes its own along");
    sessions.declare("client", consumer("g", "z"), now).unwrap();
    sessions.set_bound(Vec::new(), BTreeSet::new());
    assert!(wants(&sessions, "g", "z") && !wants(&sessions, "g", "y"), "and so does a binding");
    sessions.close("client", now);
    assert!(is_empty(&sessions));
}

#[test]
fn bindings_of_two_groups_and_one_that_changes_its_group_leave_nothing_behind() {
    let sessions = Sessions::default();
    sessions.set_bound(vec![member("b", "g", "x"), member("c", "h", "x")], BTreeSet::new());
    // They change places: each group has one member all the time.
    sessions.set_bound(vec![member("b", "h", "x"), member("c", "g", "x")], BTreeSet::new());
    assert!(has_member(&sessions, "g") && has_member(&sessions, "h"));
    sessions.set_bound(vec![member("c", "g", "x")], paused("h", "x"));
    assert!(has_member(&sessions, "g") && !has_member(&sessions, "h") && wants(&sessions, "h", "x"));
    sessions.set_bound(Vec::new(), BTreeSet::new());
    assert!(is_empty(&sessions));
}
