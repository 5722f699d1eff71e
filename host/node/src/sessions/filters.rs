//! What the members of a group ask for, and where that differs (ruling 12).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use vouch_broker::{Generation, ResourceName, TagFilter};
use vouch_leader::{FilterOf, Members};

use super::groups::Differing;
use super::room::{NoRoom, subscription_bytes};
use super::session::DeclaredByClient;
use super::table::SessionTable;
use super::{Client, SessionRole, Sessions};

/// A binding as a member of a group: the binding, the group, and what it takes.
pub(crate) type BoundMember = (String, ResourceName, Vec<(ResourceName, TagFilter)>);

/// What a group wants of a topic: group, topic, filter.
pub(crate) type GroupFilter = (ResourceName, ResourceName, TagFilter);

impl SessionTable {
    /// A consumer asks for this. `None` if that is known.
    fn wants(
        &mut self,
        client: Client<'_>,
        group: &ResourceName,
        (topic, filter): (&ResourceName, &TagFilter),
        auto_renew: bool,
        now: Instant,
    ) -> Option<Result<Vec<Differing>, NoRoom>> {
        let known = self.by_client.get(client.id).filter(|known| known.declared.group.as_ref() == Some(group));
        let put = match known {
            Some(known) => {
                let before = known.declared.subscriptions.get(topic);
                if before == Some(filter) {
                    self.heard(client.id, now);
                    return None;
                }
                let less = before.map_or(0, |before| subscription_bytes(topic, before));
                let bytes = known.bytes - less + subscription_bytes(topic, filter);
                self.wants_besides(client, (topic, filter), bytes, now)
            }
            None => {
                let role = if auto_renew { SessionRole::PushConsumer } else { SessionRole::SimpleConsumer };
                let subscriptions = [(topic.clone(), filter.clone())].into();
                let declared =
                    DeclaredByClient { role, group: Some(group.clone()), subscriptions, ..DeclaredByClient::default() };
                self.put(client, declared, now)
            }
        };
        self.heard(client.id, now);
        Some(put)
    }

    /// A member that is known asks for something besides, or for another thing on one topic, and counts for so many bytes
    /// then. Costs what that costs, whatever else it declared.
    fn wants_besides(
        &mut self,
        client: Client<'_>,
        (topic, filter): (&ResourceName, &TagFilter),
        bytes: usize,
        now: Instant,
    ) -> Result<Vec<Differing>, NoRoom> {
        let bytes = self.make_room_for(client, bytes, now)?;
        let Self { by_client, room, groups, leases, changes, .. } = self;
        let Some((id, _)) = by_client.get_key_value(client.id) else { return Ok(Vec::new()) };
        let id = Arc::clone(id);
        let Some(session) = by_client.get_mut(&id) else { return Ok(Vec::new()) };
        room.grow(session.address, session.bytes, bytes);
        session.bytes = bytes;
        changes.changed(&id);
        session.declared_at = now;
        let before = session.declared.subscriptions.insert(topic.clone(), filter.clone());
        let group = session.declared.group.as_ref();
        let differing = group.and_then(|group| groups.change_one(group, topic, before.as_ref(), filter));
        leases.revive(&id, session);
        Ok(differing.into_iter().collect())
    }
}

impl Sessions {
    /// How often filters of members of one group came to differ (ruling 12).
    pub fn filter_differences(&self) -> u64 {
        self.filter_differences.load(Ordering::Relaxed)
    }

    /// Takes note of what a consumer really asks for. Some declare no subscriptions in their settings, and a filter
    /// that is not known would let other members of the group skip messages that this one wants (ruling 12). A client
    /// that is not known gets a session from that.
    ///
    /// # Errors
    /// [`NoRoom`]; the consumer must get nothing then, or others would skip what it wants.
    pub fn note_receive<'a>(
        &self,
        client: impl Into<Client<'a>>,
        group: &ResourceName,
        subscription: (&ResourceName, &TagFilter),
        auto_renew: bool,
        now: Instant,
    ) -> Result<(), NoRoom> {
        let client = client.into();
        let noted = self.table().wants(client, group, subscription, auto_renew, now);
        if let Some(differing) = noted {
            self.report(client.id, self.counted(differing)?, now);
        }
        Ok(())
    }

    /// Counts that members differ, and says so in the node's log, to each group once a minute.
    pub(super) fn report(&self, client_id: &str, differing: Vec<Differing>, now: Instant) {
        for Differing { group, topic, filters } in differing {
            self.filter_differences.fetch_add(1, Ordering::Relaxed);
            if !self.table().told.may_tell(&group, now) {
                continue;
            }
            tracing::warn!(
                %group, %topic, filters, client_id,
                "members of a group have different filters; a message is skipped for the group only if none of them \
                 wants it, and each gets only what it asks for: give all members the same filter"
            );
        }
    }
}

impl Sessions {
    /// These are the bindings that consume, each as a member of its group; those that were there before and are not among them
    /// are none any more. What those want that pause, group by group and topic by topic, is not skipped for their groups; but they
    /// are no members that live.
    pub(crate) fn set_bound(&self, bound: Vec<BoundMember>, paused: BTreeSet<GroupFilter>) {
        let now = Instant::now();
        let declared = |group: &ResourceName, subscriptions: Vec<(ResourceName, TagFilter)>| DeclaredByClient {
            role: SessionRole::PushConsumer,
            group: Some(group.clone()),
            subscriptions: subscriptions.into_iter().collect(),
            ..DeclaredByClient::default()
        };
        let mut after: BTreeMap<_, _> = bound
            .into_iter()
            .map(|(binding, group, subscriptions)| {
                let declared = declared(&group, subscriptions);
                ((binding, group), declared)
            })
            .collect();
        let mut differing = Vec::new();
        {
            let mut table = self.table();
            table.paused = paused;
            std::mem::swap(&mut table.bound, &mut after);
            let (before, nobody) = (after, DeclaredByClient::default());
            let SessionTable { groups, bound, .. } = &mut *table;
            for (of, member) in bound.iter() {
                let was = before.get(of).unwrap_or(&nobody);
                if was != member {
                    differing.extend(groups.change(was, member).into_iter().map(|each| (of.0.clone(), each)));
                }
            }
            for (_, gone) in before.iter().filter(|(of, _)| !bound.contains_key(of)) {
                groups.change(gone, &nobody);
            }
        }
        for (binding, differing) in differing {
            self.report(&binding, vec![differing], now);
        }
    }
}

impl Members for Sessions {
    fn keeps_leases(&self, client_id: &str, at: Instant) -> bool {
        Self::keeps_leases(self, client_id, at)
    }

    fn may_be_lost(&self, generation: Generation, before: bool) -> bool {
        self.are_doubted(generation, before)
    }

    fn unnoted_filters(
        &self,
        group: &ResourceName,
        topic: &ResourceName,
        room: usize,
        is_noted: &mut dyn FnMut(&TagFilter) -> bool,
    ) -> Vec<TagFilter> {
        let table = self.table();
        let filters = table.groups.on(group, topic).into_iter().flat_map(HashMap::keys);
        filters.filter(|filter| !is_noted(filter)).take(room).cloned().collect()
    }

    fn has_member_on(&self, group: &ResourceName, topic: &ResourceName) -> bool {
        self.table().groups.on(group, topic).is_some_and(|filters| !filters.is_empty())
    }

    fn has_filter(&self, (group, topic, filter): FilterOf<'_>) -> bool {
        let table = self.table();
        let wants = table.groups.on(group, topic).is_some_and(|filters| filters.contains_key(filter));
        wants || !table.paused.is_empty() && table.paused.contains(&(group.clone(), topic.clone(), filter.clone()))
    }
}
