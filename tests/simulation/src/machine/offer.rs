//! What a machine does that is asked for its files, as the product's `offering` does: it offers what it has, and keeps the log for who
//! takes it.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vouch_cluster::NodeId;
use vouch_commitlog::simulated::look;
use vouch_commitlog::{LogPosition, SEGMENT_HEADER_LEN, Verification};
use vouch_shard::core::Request;
use vouch_shard::{GroupStanding, HeldLog};
use vouch_storage::{Known, OfferedFile, PullOffer};

use super::shelves::{on_disk, snapshot_path};
use super::{CLUSTER, Machine, SEGMENT};
use crate::bugs::{Slip, slips};
use crate::trace::Trace;

/// A node that takes something asks for more within this time, or it is not waited for any more.
pub(crate) const ASKS_WITHIN: Duration = Duration::from_millis(2_000);
/// One that has all starts, and is heard by then.
const STARTS_WITHIN: Duration = Duration::from_millis(6_000);

/// What the core of a node says that is asked for its files.
#[derive(Default)]
pub(super) struct SaidOfItself {
    pub(super) last_index: Option<u64>,
    pub(super) group: Option<GroupStanding>,
}

impl Machine {
    pub(super) fn says_gone(&self, node: NodeId) -> bool {
        self.node.as_ref().is_some_and(|own| own.core.state().nodes().is_gone(node))
    }

    fn hold(&mut self, by: NodeId, taken: Range<LogPosition>, within: Duration, now: u64) {
        if slips(Slip::PulledReleased) {
            return;
        }
        let until = self.moment(now).at + within;
        self.asks.push(Request::Hold(HeldLog { by, taken, until }));
        self.wakes();
    }

    fn wakes(&mut self) {
        self.node.iter_mut().for_each(|node| node.wake = 0);
    }

    /// Another one is to get an offer: all stays while that is looked for.
    pub(super) fn is_asked_by(&mut self, node: NodeId, term: u64, now: u64) -> Result<(), NodeId> {
        let (at, id) = (self.moment(now).at, self.id);
        let own = self.node.as_ref().unwrap();
        if own.core.group_standing().is_some_and(|group| group.term < term) {
            self.asks.push(Request::was_in(term, node, id));
        }
        own.takers.may_begin(node, at)?;
        self.hold(node, LogPosition::START..LogPosition::BEYOND, ASKS_WITHIN, now);
        Ok(())
    }

    /// What it has, as `PullOffer::of_folder` looks for it.
    pub(super) fn looks(&self) -> Result<PullOffer, String> {
        let node = self.node.as_ref().ok_or("it does not run")?;
        let newest = self.snapshots.as_ref().and_then(|snapshots| snapshots.kept.last());
        let (from, covered, needed) = newest.map_or((LogPosition(0), LogPosition(0), LogPosition::START), |newest| {
            (newest.checkpoint.position, newest.checkpoint.end, newest.log_from)
        });
        let known = Known::of_note(Some(node.file.note())).and_durable(covered).while_it_is_written();
        let log = look(&self.disk).map_err(|error| error.to_string())?;
        let found = known.look_at(log).verify_from(from, known.durable, &mut |_| ());
        let Verification { durable, damage, .. } = found.map_err(|error| error.to_string())?;
        if !damage.is_empty() {
            return Ok(PullOffer::word((CLUSTER, SEGMENT)));
        }
        let log_end = durable.min(known.copied_to(true));
        if log_end.0 <= SEGMENT_HEADER_LEN {
            return Err("it has nothing that is committed".to_owned());
        }
        let mut starts: Vec<_> = self.segments().into_iter().filter(|start| *start <= log_end).collect();
        starts.sort_unstable();
        let log_start = starts.first().copied().unwrap_or(LogPosition::START);
        if log_start > needed {
            return Err(format!("its log begins at {log_start}, and its snapshot needs it from {needed} on"));
        }
        let snapshot = newest.map(|newest| {
            let (path, length) = (snapshot_path(covered), newest.encode().len() as u64);
            OfferedFile { source: path.clone(), path, data: length, length }
        });
        let segments = starts.into_iter().map(|start| OfferedFile::of_segment(start, log_end, SEGMENT));
        let files = snapshot.into_iter().chain(segments).collect();
        let covered = newest.map(|newest| newest.checkpoint.end);
        Ok(PullOffer::new((CLUSTER, SEGMENT), log_start..log_end, covered, files))
    }

    /// Its core is asked where what is offered ends, then how far it is.
    pub(super) fn asks_its_core(&mut self, log_end: LogPosition) -> Arc<Mutex<SaidOfItself>> {
        let said = Arc::<Mutex<SaidOfItself>>::default();
        let (index, group) = (said.clone(), said.clone());
        let tell = Box::new(move |last| index.lock().unwrap().last_index = last);
        self.asks.push(Request::IndexBefore(log_end, tell));
        self.asks.push(Request::Group(Box::new(move |standing| group.lock().unwrap().group = Some(standing))));
        self.wakes();
        said
    }

    pub(super) fn lets_take(&mut self, node: NodeId, log: Range<LogPosition>, now: u64) {
        let at = self.moment(now).at;
        self.node.iter().for_each(|own| own.takers.begin(node, log.clone(), at));
        self.hold(node, log, ASKS_WITHIN, now);
    }

    /// A stretch of a file that was offered to this node. What the log has of it is kept meanwhile.
    pub(super) fn gives(
        &mut self,
        node: NodeId,
        name: &str,
        range: Range<u64>,
        now: u64,
        trace: &mut Trace,
    ) -> Result<Vec<u8>, String> {
        let at = self.moment(now).at;
        let held = self.node.as_ref().and_then(|own| own.takers.goes_on(node, at));
        let held = held.ok_or("what was offered is not kept any more")?;
        self.hold(node, held, ASKS_WITHIN, now);
        let length = (range.end - range.start) as usize;
        if let Some(covered) = name.strip_prefix("snapshots/") {
            let kept = self.snapshots.iter().flat_map(|snapshots| &snapshots.kept);
            let mut file =
                kept.filter(|kept| snapshot_path(kept.checkpoint.end).ends_with(covered)).map(|kept| kept.encode());
            let bytes = file
                .next_back()
                .and_then(|file| file.get(range.start as usize..range.end as usize).map(<[u8]>::to_vec));
            // A newer one may have taken its place.
            return bytes.ok_or(format!("{name} is gone"));
        }
        let bytes = self.disk.bytes_at(on_disk(Path::new(name)), range.start, length);
        if bytes.is_none() {
            trace.wrong(format!("node {} let go of {name} while node {node} took it", self.id));
        }
        bytes.ok_or(format!("{name} is gone"))
    }

    pub(super) fn is_taken_by(&mut self, node: NodeId, now: u64) {
        let end = self.node.as_ref().and_then(|own| own.takers.end(node));
        if let Some(end) = end {
            self.hold(node, end..end, STARTS_WITHIN, now);
        }
    }

    pub(super) fn is_left_by(&mut self, node: NodeId) {
        if self.node.as_ref().is_some_and(|own| own.takers.end(node).is_some()) {
            self.hold(node, LogPosition::BEYOND..LogPosition::BEYOND, Duration::ZERO, 0);
        }
    }
}
