//! Guests: a model of components that are bound, without components. They are asked about messages and transactions on the node
//! that leads, run for as long as a seed says, read what is kept, and stage what is to happen with their answers (ruling 8).

mod call;
mod names;
mod others;
mod runner;

use vouch_cluster::NodeId;
use vouch_commitlog::simulated::Rng;
use vouch_shard::core::Request;

use crate::checks::GuestsTold;
use crate::trace::Trace;
pub(crate) use call::number;
pub(crate) use names::{
    COUNTER, DIGEST, GROUP, GuestView, IN, MOST_CHECKS, NAMESPACE, OF_CALL, OUT, ROOM, SHARER, WITHDRAWN,
};
use others::Others;
pub(crate) use others::binding;
use runner::{GuestRunner, Hands};

/// The guests of all nodes, and those who work beside them.
pub(crate) struct Guests {
    rng: Rng,
    runners: Vec<GuestRunner>,
    others: Others,
    /// What they heard.
    pub(crate) told: GuestsTold,
    /// They see to it that all of it comes to its end.
    pub(crate) stops: bool,
}

impl Guests {
    pub(crate) fn new(rng: Rng) -> Self {
        let (runners, others, told) = (Vec::new(), Others::new(), GuestsTold::default());
        Self { rng, runners, others, told, stops: false }
    }

    /// What they hear on a node, and what they ask of it.
    pub(crate) fn act(&mut self, node: NodeId, view: &GuestView<'_>, trace: &mut Trace) -> Vec<Request> {
        let at = node.0 as usize - 1;
        if self.runners.len() <= at {
            self.runners.resize_with(at + 1, GuestRunner::default);
        }
        let known = self.told.answered.len();
        let mut hands = Hands { rng: &mut self.rng, told: &mut self.told, asked: Vec::new(), ends: self.stops };
        self.runners[at].act(view, &mut hands);
        if view.leads.is_some() {
            self.others.act(view, &mut hands);
        }
        let asked = hands.asked;
        for (mark, taken) in &self.told.answered[known..] {
            trace.line(format!("guest on {node}: {mark:x} {}", if *taken { "happened" } else { "did not happen" }));
        }
        asked
    }

    /// Nobody runs there any more.
    pub(crate) fn are_gone(&mut self, node: NodeId) {
        self.runners.get_mut(node.0 as usize - 1).into_iter().for_each(|runner| *runner = GuestRunner::default());
    }

    /// What is not at its end, for whoever looks why it is not.
    pub(crate) fn how_it_stands(&self, view: &GuestView<'_>) -> String {
        let runs: Vec<usize> = self.runners.iter().map(GuestRunner::running).collect();
        let open = view.state.open_transactions();
        let first = open.iter(None).next();
        format!(
            "guests run {runs:?}, room: {}, unfinished: {}, open: {} ({first:?})",
            view.has_room(),
            view.unfinished(),
            open.len()
        )
    }

    /// Nobody runs, and nothing is left to be asked about, by the state of a node that has all of the log.
    pub(crate) fn is_idle(&self, view: &GuestView<'_>) -> bool {
        self.runners.iter().all(|runner| runner.running() == 0)
            && view.has_room()
            && !view.unfinished()
            && view.state.open_transactions().is_empty()
    }
}
