//! Bit rot: something on a machine's disk turns, and its node either goes on as if nothing had been, or ends.

use std::ops::Range;

use vouch_commitlog::simulated::{Rng, log_file};

use super::{Machine, SEGMENT};
use crate::bugs::{Slip, slips};
use crate::node::Node;
use crate::trace::Trace;

const SECTOR: u64 = 512;
/// Bytes of a note's file, and those that a segment begins with.
const NOTE_LEN: u64 = 8192;
const HEADER_LEN: u64 = 4096;

/// Why there is no node.
#[derive(Debug)]
pub(crate) enum NoStart {
    /// It says so itself.
    Refused(String),
    /// It would have started with what it must not start with.
    Wrong(String),
}

/// Where something may turn: in this file, and in these bytes of it.
struct Place {
    told: &'static str,
    file: String,
    from: u64,
    at: u64,
    to: u64,
}

impl Place {
    /// At a position of the log, and nowhere else than in this part of it.
    fn in_log(told: &'static str, position: u64, part: Range<u64>) -> Self {
        let (file, at) = log_file(position, SEGMENT);
        let (sector, start) = (at / SECTOR * SECTOR, position - at);
        let from = sector.max(part.start.saturating_sub(start));
        Self { told, file, from, at, to: (sector + SECTOR).min(part.end - start) }
    }
}

impl Machine {
    /// Starts the node with what is on the disk. One on whose disk something turned may refuse to: then it takes what is damaged from
    /// others, or is lost.
    ///
    /// # Errors
    /// Why it does not start, or should not have.
    pub(crate) fn start(&mut self, now: u64, trace: &mut Trace) -> Result<(), String> {
        if self.catch_up.is_some() {
            self.ends_what_was_begun();
        }
        match self.begin(now) {
            Err(NoStart::Refused(_))
                if self.rotten && slips(Slip::DamagedTakesPart) && self.begins_with_nothing().is_ok() =>
            {
                self.start(now, trace)
            }
            Err(NoStart::Refused(why)) if self.rotten && self.catch_up.is_some() && self.repairs(now, trace) => {
                trace.line(format!("{} refuses to start, and takes what it lacks: {why}", self.id));
                Ok(())
            }
            Err(NoStart::Refused(why)) if self.rotten => {
                trace.line(format!("{} refuses to start: {why}", self.id));
                self.ends(false);
                self.wiped = true;
                Ok(())
            }
            Err(NoStart::Refused(why) | NoStart::Wrong(why)) => Err(format!("node {} does not start: {why}", self.id)),
            Ok(()) => Ok(()),
        }
    }

    /// A bit turns, or what is left of a sector, in what its note says is durable, in the note, or where nothing lies. What is
    /// durable and not noted yet is left alone: damage to that cannot be told from what a power cut tears.
    pub(crate) fn rots(&mut self, rng: &mut Rng) -> Option<&'static str> {
        let node = self.node.as_ref().filter(|node| node.died.is_none() && node.failed.is_none())?;
        let Place { told, file, from, at, to } = place(node, !self.note_turned, rng);
        let (from, to) = if rng.chance(3) { (from, to) } else { (at, at + 1) };
        let was = self.disk.bytes_at(&file, from, (to - from) as usize)?;
        let mut turned = was.clone();
        if to - from == 1 {
            turned[0] ^= 1 << rng.below(8);
        } else if rng.chance(2) {
            turned.fill(0);
        } else {
            turned.iter_mut().for_each(|byte| *byte ^= rng.next() as u8);
        }
        if turned == was || !self.disk.rot(&file, from, turned, rng.chance(2)) {
            return None;
        }
        (self.rotten, self.note_turned) = (true, self.note_turned || file == "replica");
        Some(told)
    }
}

fn place(node: &Node, in_note: bool, rng: &mut Rng) -> Place {
    let (noted, end) = (node.file.note().durable.0, node.appender.appended().0);
    match rng.below(8) {
        0 | 1 if in_note => {
            let at = rng.below(NOTE_LEN);
            let from = at / SECTOR * SECTOR;
            Place { told: "bit rot of a note", file: "replica".to_owned(), from, at, to: from + SECTOR }
        }
        2 => Place::in_log("bit rot behind the end", end + rng.below(SEGMENT), end..u64::MAX),
        3 => {
            let segment = rng.below(noted.div_ceil(SEGMENT)) * SEGMENT;
            let position = segment + rng.below(HEADER_LEN.min(noted - segment));
            Place::in_log("bit rot of a segment's header", position, 0..noted)
        }
        4 | 5 => Place::in_log("bit rot near the end", noted - 1 - rng.below(600.min(noted)), 0..noted),
        _ => Place::in_log("bit rot of the log", rng.below(noted), 0..noted),
    }
}
