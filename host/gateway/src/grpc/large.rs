//! How many messages a receive asks for where messages travel alone: what cannot go with the others is given back, and should
//! not have been taken.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vouch_broker::ResourceName;
use vouch_protocol::limits::RECEIVE_BATCH_MAX;

/// Topics and groups that are remembered. With more, all are forgotten, which costs some receives.
const PLACES_MAX: usize = 1024;

/// A topic and a group.
type Place = (ResourceName, ResourceName);

/// Topics and groups whose last answers had messages that travel alone.
#[derive(Default)]
pub(super) struct LargeMessages(Mutex<HashMap<Place, u32>>);

impl LargeMessages {
    /// Held for a look-up.
    fn places(&self) -> MutexGuard<'_, HashMap<Place, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages that a receive should ask for, of the `wanted` ones.
    pub(super) fn most(&self, topic: &ResourceName, group: &ResourceName, wanted: u32) -> u32 {
        let places = self.places();
        if places.is_empty() {
            return wanted;
        }
        places.get(&(topic.clone(), group.clone())).map_or(wanted, |most| wanted.min(*most))
    }

    /// A message travelled alone, or was given back because it has to: the next receive asks for one.
    pub(super) fn alone(&self, topic: &ResourceName, group: &ResourceName) {
        let mut places = self.places();
        if places.len() >= PLACES_MAX {
            places.clear();
        }
        places.insert((topic.clone(), group.clone()), 1);
    }

    /// Nothing did: the next one asks for twice as many.
    pub(super) fn together(&self, topic: &ResourceName, group: &ResourceName) {
        let mut places = self.places();
        if places.is_empty() {
            return;
        }
        let place = (topic.clone(), group.clone());
        if let Some(most) = places.get_mut(&place) {
            *most *= 2;
            if *most >= RECEIVE_BATCH_MAX {
                places.remove(&place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_large_message_one_is_asked_for_and_then_more_and_more() {
        let (large, topic, group) = (LargeMessages::default(), ResourceName::plain("t"), ResourceName::plain("g"));
        let most = |wanted| large.most(&topic, &group, wanted);
        assert_eq!(most(32), 32);
        large.alone(&topic, &group);
        assert_eq!((most(32), large.most(&topic, &topic, 32)), (1, 32));
        let asked: Vec<u32> = std::iter::repeat_with(|| {
            large.together(&topic, &group);
            most(32)
        })
        .take(5)
        .collect();
        assert_eq!(asked, [2, 4, 8, 16, 32]);
        assert!(large.places().is_empty());
    }

    #[test]
    fn so_many_places_are_remembered_and_no_more() {
        let (large, topic) = (LargeMessages::default(), ResourceName::plain("t"));
        for n in 0..=PLACES_MAX {
            large.alone(&topic, &ResourceName::plain(n.to_string()));
        }
        assert_eq!(large.places().len(), 1);
    }
}
