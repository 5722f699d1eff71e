//! What is under way between machines.

use std::collections::BTreeMap;

use bytes::Bytes;
use vouch_commitlog::simulated::Rng;
use vouch_consensus::{GroupMessage, NodeId};

/// A message in a frame: with what its entries hold, and with the incarnations of both ends (ruling 31).
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) message: GroupMessage,
    pub(crate) entries: Vec<Bytes>,
    pub(crate) from: u64,
    /// That of the other end, as the sender knows it; 0 if it has not heard of it.
    pub(crate) to: u64,
}

/// How bad the network is.
#[derive(Clone, Default)]
pub(crate) struct Weather {
    /// One in so many frames is lost; 0: none.
    pub(crate) lose: u64,
    /// One in so many arrives twice.
    pub(crate) repeat: u64,
    /// One in so many overtakes those before it.
    pub(crate) overtake: u64,
    /// The longest that a frame takes, in milliseconds.
    pub(crate) delay_ms: u64,
}

#[derive(Default)]
pub(crate) struct Network {
    under_way: BTreeMap<(u64, u64), Frame>,
    /// When the last frame of each pair arrives: the next one arrives later, unless it overtakes.
    last: BTreeMap<(NodeId, NodeId), u64>,
    sent: u64,
    pub(crate) weather: Weather,
    /// Nothing arrives from the first at the second.
    pub(crate) cut_off: Vec<(NodeId, NodeId)>,
    /// When everybody hears everybody again, if that is known.
    pub(crate) heals_at: Option<u64>,
    /// Who led, and hears nobody until another one does.
    pub(crate) alone: Option<NodeId>,
}

impl Network {
    pub(crate) fn in_weather(weather: Weather) -> Self {
        Self { weather, ..Self::default() }
    }

    /// Everybody hears everybody.
    pub(crate) fn heal(&mut self) {
        self.cut_off.clear();
        (self.heals_at, self.alone) = (None, None);
    }

    pub(crate) fn send(&mut self, now: u64, frame: Frame, rng: &mut Rng) {
        let one_in = |rng: &mut Rng, n: u64| n > 0 && rng.chance(n);
        let pair = (frame.message.from, frame.message.to);
        if one_in(rng, self.weather.lose) {
            return;
        }
        let copies = if one_in(rng, self.weather.repeat) { 2 } else { 1 };
        for _ in 0..copies {
            let earliest = now + 1 + rng.below(self.weather.delay_ms.max(1));
            let last = self.last.entry(pair).or_default();
            let at = if one_in(rng, self.weather.overtake) { earliest } else { earliest.max(*last) };
            *last = at.max(*last);
            self.sent += 1;
            self.under_way.insert((at, self.sent), frame.clone());
        }
    }

    /// The next frame that arrives by now.
    pub(crate) fn arrives(&mut self, now: u64) -> Option<Frame> {
        if self.heals_at.take_if(|at| *at <= now).is_some() {
            self.heal();
        }
        loop {
            let first = self.under_way.first_entry().filter(|first| first.key().0 <= now)?;
            let frame = first.remove();
            if !self.cut_off.contains(&(frame.message.from, frame.message.to)) {
                return Some(frame);
            }
        }
    }
}
