//! Room for receives that wait: one machine does not shut out all others, as with sessions.

use core::net::IpAddr;
use std::collections::HashMap;

/// Most receives that wait at once.
const POLLS_MAX: usize = 100_000;

/// How many there are, and of which machine: an address here is a name and nothing that is reached.
pub(super) struct Room {
    most: usize,
    taken: usize,
    shares: HashMap<IpAddr, usize>,
}

impl Default for Room {
    fn default() -> Self {
        Self::of(POLLS_MAX)
    }
}

impl Room {
    /// Room for so many: a parameter, so that a test need not fill a node.
    pub(super) fn of(most: usize) -> Self {
        Self { most, taken: 0, shares: HashMap::new() }
    }

    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// Why one more of this machine finds no room, if it does not.
    pub(super) fn lacks(&self, machine: Option<IpAddr>) -> Option<String> {
        let Self { most, taken, shares } = self;
        if let Some(machine) = machine
            && shares.get(&machine).is_some_and(|share| *share >= most / 2)
        {
            return Some(format!(
                "{} receives of {machine} are waiting already, half of all that may wait; receive again later",
                most / 2
            ));
        }
        (taken >= most).then(|| format!("{most} receives are waiting already; receive again later"))
    }

    /// One more waits.
    pub(super) fn enter(&mut self, machine: Option<IpAddr>) {
        self.taken += 1;
        if let Some(machine) = machine {
            *self.shares.entry(machine).or_default() += 1;
        }
    }

    /// One waits no more.
    pub(super) fn leave(&mut self, machine: Option<IpAddr>) {
        self.taken -= 1;
        if let Some(machine) = machine
            && let Some(share) = self.shares.get_mut(&machine)
        {
            *share -= 1;
            if *share == 0 {
                self.shares.remove(&machine);
            }
        }
    }

    /// Nobody waits any more.
    pub(super) fn clear(&mut self) {
        self.taken = 0;
        self.shares.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receives_of_one_machine_have_half_of_the_room_and_leave_nothing_behind() {
        let [one, other] = [1, 2].map(|last| Some(IpAddr::from([10, 0, 0, last])));
        let mut room = Room::of(10);
        (0..5).for_each(|_| room.enter(one));
        let lack = room.lacks(one).unwrap();
        assert!(lack.contains("5 receives of 10.0.0.1") && lack.contains("half"), "{lack}");
        for machine in [other, other, other, None, None] {
            assert_eq!(room.lacks(machine), None);
            room.enter(machine);
        }
        let lack = room.lacks(other).unwrap();
        assert!(lack.starts_with("10 receives are waiting"), "{lack}");
        assert_eq!(room.lacks(None), Some(lack));
        room.leave(one);
        assert_eq!((room.lacks(one), room.lacks(other), room.taken()), (None, None, 9));
        (0..4).for_each(|_| room.leave(one));
        assert_eq!(room.shares.len(), 1, "nothing is kept of a machine of which nobody waits");
        room.clear();
        assert_eq!((room.taken(), room.shares.len()), (0, 0));
    }
}
