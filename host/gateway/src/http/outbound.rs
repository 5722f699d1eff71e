//! What the HTTP port has made for its clients and they have not taken yet: bounded for all, and for the clients of one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vouch_broker::NothingStored;
use vouch_node::machine;

use super::problem::Problem;
use crate::outbound::{ConnectionOutbound, Outbound, OutboundRoom};

/// Bytes of answers that are made and not yet taken by their clients, on all connections. An answer that does not fit is
/// replaced by a refusal; those of fewer than [`SMALL_ANSWER_BYTES`] always fit.
pub const HTTP_OUTBOUND_MAX_BYTES: usize = 128 << 20;
/// The same for the clients of one address (of IPv6: one /64): whoever reads nothing leaves half of it to others.
pub const HTTP_OUTBOUND_ADDRESS_MAX_BYTES: usize = HTTP_OUTBOUND_MAX_BYTES / 2;
/// Answers that need no room: one for each connection is little.
pub const SMALL_ANSWER_BYTES: usize = 16 << 10;

/// All that waits to be written on the HTTP port.
#[derive(Debug)]
pub(crate) struct HttpOutbound {
    all: Arc<Outbound>,
    /// Bytes by address; only those that have some.
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// Room for one answer.
#[derive(Debug)]
pub(super) struct AnswerRoom {
    _room: OutboundRoom,
    /// How much of it is taken.
    bytes: usize,
    /// By whose clients.
    address: IpAddr,
    of: Arc<HttpOutbound>,
}

impl HttpOutbound {
    /// With nothing on its way.
    pub(crate) fn new() -> Arc<Self> {
        let all = Outbound::new(HTTP_OUTBOUND_MAX_BYTES, HTTP_OUTBOUND_MAX_BYTES);
        Arc::new(Self { all, by_address: Mutex::default() })
    }

    /// What one more connection is counted with.
    pub(super) fn connection(&self) -> Arc<ConnectionOutbound> {
        self.all.connection()
    }

    /// See [`Outbound::sweep`].
    pub(super) fn sweep(&self, now: Instant) {
        self.all.sweep(now);
    }

    /// Bytes that are made and not taken yet, small answers not counted.
    pub(super) fn bytes(&self) -> u64 {
        self.all.bytes()
    }

    /// Held for a look-up.
    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for an answer of so many bytes to a client of this address; none is needed for a small one.
    ///
    /// # Errors
    /// There is none: the refusal takes the answer's place, and what was asked for may have been done.
    pub(super) fn room_for(self: &Arc<Self>, address: IpAddr, bytes: usize) -> Result<Option<AnswerRoom>, Problem> {
        if bytes < SMALL_ANSWER_BYTES {
            return Ok(None);
        }
        let address = machine(address);
        let mut by_address = self.by_address();
        let held = by_address.get(&address).copied().unwrap_or(0);
        if held.saturating_add(bytes) > HTTP_OUTBOUND_ADDRESS_MAX_BYTES {
            return Err(no_room(bytes, "that clients of your address"));
        }
        let room = self.all.try_reserve(bytes).ok_or_else(|| no_room(bytes, "that other clients"))?;
        by_address.insert(address, held + bytes);
        Ok(Some(AnswerRoom { _room: room, bytes, address, of: self.clone() }))
    }
}

impl Drop for AnswerRoom {
    fn drop(&mut self) {
        let mut by_address = self.of.by_address();
        if let Some(held) = by_address.get_mut(&self.address) {
            *held -= self.bytes;
            if *held == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// The refusal that takes the answer's place.
fn no_room(bytes: usize, whose: &str) -> Problem {
    NothingStored::TooMany(format!(
        "{bytes} bytes of an answer find no room beside those {whose} have not read yet; ask again, or for a smaller page"
    ))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn clients_of_one_address_have_half_of_the_room_and_leave_the_rest_to_others() {
        const HALF: usize = HTTP_OUTBOUND_ADDRESS_MAX_BYTES;
        for (greedy, same, other) in
            [("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"), ("2001:db8::1", "2001:db8::2:3", "2001:db8:0:1::1")]
        {
            let outbound = HttpOutbound::new();
            let room = |of: &str, bytes: usize| outbound.room_for(address(of), bytes);
            let first = room(greedy, HALF - SMALL_ANSWER_BYTES).unwrap();
            let second = room(same, SMALL_ANSWER_BYTES).unwrap();
            assert!(room(greedy, SMALL_ANSWER_BYTES).is_err());
            assert!(room(greedy, SMALL_ANSWER_BYTES - 1).unwrap().is_none(), "a small answer needs none");
            let others = room(other, HALF).unwrap();
            assert_eq!(outbound.bytes(), HTTP_OUTBOUND_MAX_BYTES as u64);
            assert!(room("10.9.9.9", SMALL_ANSWER_BYTES).is_err(), "all together have theirs");
            drop((second, others));
            let again = room(greedy, SMALL_ANSWER_BYTES).unwrap();
            drop((first, again));
            assert_eq!((outbound.bytes(), outbound.by_address().len()), (0, 0));
        }
    }
}
