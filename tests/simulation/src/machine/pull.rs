//! A machine that takes what it lacks from the disk of another one, as the product's `pulling` does: no node runs on it meanwhile.
//! What is decided, `vouch-storage` and `vouch-shard` decide; here are the messages, and the time that they take.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use vouch_cluster::NodeId;
use vouch_commitlog::simulated::{Image, PowerLoss, Rng, SimDisk, look, open_note, open_read_only};
use vouch_commitlog::{LogPosition, Verification};
use vouch_storage::{
    Gathering, Known, MissingFile, PullError, PullOffer, ReplicaFile, ReplicaNote, StartProgress, StoppedLog,
    damaged_segments, go_on,
};

use super::offer::SaidOfItself;
use super::shelves::{PullingDisk, Shelf, Shelves};
use super::{Machine, NAME, SEGMENT, Snapshots, log_config};
use crate::bugs::{Slip, slips};
use crate::ledger::Ledger;
use crate::trace::Trace;

/// A node whose files are unsound as they come from it is not asked again before.
const UNSOUND_FOR_MS: u64 = 3_000;
/// Bytes that are asked for at once.
const STRETCH: u64 = 4 << 10;

/// Why a machine pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lack {
    /// It lacks what its leader does not keep any more.
    Behind,
    /// The same of one that has nothing yet.
    Joins,
    /// Its log is damaged.
    Damaged,
}

/// What a machine is about that pulls.
enum Doing {
    /// Nothing, before it asks another one.
    Rests,
    /// It asks for an offer.
    Asks,
    /// The other one keeps its log, and looks what it has.
    IsLookedFor,
    /// The other one asks its core how far it is.
    Waits(PullOffer, Arc<Mutex<SaidOfItself>>),
    Fetches(PullOffer, VecDeque<MissingFile>),
    /// It reads all that it has.
    Reads(PullOffer),
}

/// What became of a step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pulled {
    GoesOn,
    /// Nothing came of it this time.
    CutShort,
    /// It has all, and that is in the place of what it had.
    All,
    /// It heard that it belongs to the cluster no more.
    Removed,
}

/// A machine that pulls.
pub(crate) struct Pull {
    gathering: Gathering<PullingDisk>,
    /// What it had.
    own: Shelves,
    doing: Doing,
    /// Which node it asks, and in which life of that.
    from: (NodeId, u64),
    pub(crate) next_at: u64,
    unsound: BTreeMap<NodeId, u64>,
    pub(crate) lack: Lack,
}

impl Pull {
    /// Whether it is to choose whom to ask.
    pub(crate) fn rests(&self) -> bool {
        matches!(self.doing, Doing::Rests)
    }

    /// Whether it waits for what the other one finds.
    pub(crate) fn waits(&self) -> bool {
        matches!(self.doing, Doing::IsLookedFor | Doing::Waits(..))
    }

    /// Whom it asks, or asked last.
    pub(crate) fn source(&self) -> NodeId {
        self.from.0
    }

    /// Asks the next one of these nodes.
    pub(crate) fn asks(&mut self, others: &[NodeId], now: u64) {
        let may = |node: &&NodeId| self.unsound.get(node).is_none_or(|since| now > since + UNSOUND_FOR_MS);
        let next = others.iter().filter(may).find(|node| **node > self.from.0);
        let Some(next) = next.or_else(|| others.iter().find(may)) else { return };
        (self.from, self.doing) = ((*next, 0), Doing::Asks);
    }

    /// Nothing is to be had from that node now.
    fn leaves(&mut self, why: &str, source: Option<&mut Machine>, me: NodeId, trace: &mut Trace) -> Pulled {
        trace.line(format!("{me} takes nothing from {} now: {why}", self.from.0));
        if let Some(source) = source {
            source.is_left_by(me);
        }
        let was_under_way = matches!(self.doing, Doing::Fetches(..) | Doing::Reads(_));
        self.doing = Doing::Rests;
        if was_under_way { Pulled::CutShort } else { Pulled::GoesOn }
    }

    /// One step. `source`: the machine that it speaks with, if it reaches a node there.
    pub(crate) fn step(&mut self, me: NodeId, source: Option<&mut Machine>, now: u64, trace: &mut Trace) -> Pulled {
        if let Doing::Reads(offer) = &self.doing {
            let offer = offer.clone();
            // Whom it has it from need not be there any more.
            let source = source.filter(|source| source.lives == self.from.1);
            return self.reads(&offer, source, (me, now), trace);
        }
        let Some(source) = source else {
            return self.leaves("it is not reached", None, me, trace);
        };
        if !matches!(self.doing, Doing::Asks | Doing::Rests) && self.from.1 != source.lives {
            return self.leaves("it began anew", None, me, trace);
        }
        match std::mem::replace(&mut self.doing, Doing::Rests) {
            Doing::Rests | Doing::Reads(_) => Pulled::GoesOn,
            Doing::Asks => {
                if source.says_gone(me) {
                    return Pulled::Removed;
                }
                match source.is_asked_by(me, self.gathering.term(), now) {
                    Err(taker) => self.leaves(&format!("{taker} takes from it"), None, me, trace),
                    Ok(()) => {
                        (self.from.1, self.doing) = (source.lives, Doing::IsLookedFor);
                        Pulled::GoesOn
                    }
                }
            }
            Doing::IsLookedFor => match source.looks() {
                Err(why) => self.leaves(&why, Some(source), me, trace),
                Ok(offer) => {
                    let said = source.asks_its_core(LogPosition(offer.log_end));
                    self.doing = Doing::Waits(offer, said);
                    Pulled::GoesOn
                }
            },
            Doing::Waits(offer, said) => self.hears_offer(offer, &said, source, (me, now), trace),
            Doing::Fetches(offer, missing) => self.fetches((offer, missing), source, (me, now), trace),
        }
    }

    fn hears_offer(
        &mut self,
        mut offer: PullOffer,
        said: &Mutex<SaidOfItself>,
        source: &mut Machine,
        (me, now): (NodeId, u64),
        trace: &mut Trace,
    ) -> Pulled {
        let SaidOfItself { last_index, group } = std::mem::take(&mut *said.lock().unwrap());
        let last_index = if offer.is_word() { Some(0) } else { last_index };
        let (Some(last_index), Some(group)) = (last_index, group) else {
            return self.leaves("what is committed there moved on", Some(source), me, trace);
        };
        offer.by = group.offers(last_index);
        source.lets_take(me, LogPosition(offer.log_start)..LogPosition(offer.log_end), now);
        match self.gathering.take(&offer) {
            Err(why) => self.leaves(&why.to_string(), Some(source), me, trace),
            Ok(missing) => {
                let (by, bytes) = (offer.by, missing.iter().map(|file| file.end() - file.from).sum::<u64>());
                let kept = offer.files.len() - missing.len();
                trace.line(format!(
                    "{me} takes {} to {} from {}: {by:?}; {bytes} bytes of {} files are missing, {kept} are there",
                    offer.log_start,
                    offer.log_end,
                    source.id,
                    missing.len()
                ));
                self.doing = Doing::Fetches(offer, missing.into());
                Pulled::GoesOn
            }
        }
    }

    fn fetches(
        &mut self,
        (offer, mut missing): (PullOffer, VecDeque<MissingFile>),
        source: &mut Machine,
        (me, now): (NodeId, u64),
        trace: &mut Trace,
    ) -> Pulled {
        let Some(file) = missing.front_mut() else {
            self.doing = Doing::Reads(offer);
            return Pulled::GoesOn;
        };
        let wanted = STRETCH.min(file.end() - file.from);
        let came = source.gives(me, file.source(), file.from..file.from + wanted, now, trace);
        let bytes = match came {
            Ok(bytes) => bytes,
            Err(why) => {
                self.doing = Doing::Fetches(offer, missing);
                return self.leaves(&why, Some(source), me, trace);
            }
        };
        self.gathering.append(file, &bytes).unwrap();
        file.from += wanted;
        if file.from == file.end() {
            missing.pop_front();
        }
        self.doing = Doing::Fetches(offer, missing);
        Pulled::GoesOn
    }

    /// Reads all of it, and lets it take the place of what was there.
    fn reads(
        &mut self,
        offer: &PullOffer,
        source: Option<&mut Machine>,
        (me, now): (NodeId, u64),
        trace: &mut Trace,
    ) -> Pulled {
        let disk = self.gathering.disk();
        disk.mark();
        self.own = disk.shelves.clone();
        match self.gathering.finish(offer, &StartProgress::default()) {
            Ok(()) => {
                source.into_iter().for_each(|source| source.is_taken_by(me, now));
                Pulled::All
            }
            Err(why) => {
                if matches!(why, PullError::Unsound(_)) && self.gathering.blames_other() {
                    self.unsound.insert(self.from.0, now);
                }
                self.leaves(&why.to_string(), source, me, trace)
            }
        }
    }

    /// What the machine had, and has now.
    pub(crate) fn ledgers(&mut self) -> (&Ledger, &Ledger) {
        let had = &self.own.here.as_ref().unwrap().ledger;
        (had, &self.gathering.disk().shelves.here.as_ref().unwrap().ledger)
    }
}

/// What a machine has, by its folders.
#[derive(Default)]
pub(crate) struct Beside {
    before: Option<Shelf>,
    gathered: Option<Shelf>,
    /// What the machine had is put aside, and nothing is in its place yet.
    nothing_here: bool,
}

impl Machine {
    fn shelves(&self) -> Shelves {
        let Beside { before, gathered, nothing_here } = &self.beside;
        let kept = self.snapshots.as_ref().map(|snapshots| snapshots.kept.clone()).unwrap_or_default();
        let here = (!nothing_here).then(|| Shelf::of(self.disk.clone(), kept, self.ledger.clone()));
        Shelves { here, before: before.clone(), gathered: gathered.clone() }
    }

    fn has(&mut self, shelves: Shelves) {
        let Shelves { here, before, gathered } = shelves;
        self.beside = Beside { nothing_here: here.is_none(), before, gathered };
        let Some(Shelf { disk: Some(disk), kept, ledger, was_gathered, .. }) = here else {
            // What comes into its place is all there, or nothing does.
            let next = self.beside.gathered.as_ref().or(self.beside.before.as_ref());
            self.ledger = next.map(|next| next.ledger.clone()).unwrap_or_default();
            return;
        };
        if was_gathered {
            // All of it was read.
            (self.rotten, self.note_turned, self.tampered) = (false, false, false);
        }
        (self.disk, self.ledger) = (disk, ledger);
        self.snapshots.iter_mut().for_each(|snapshots| snapshots.kept.clone_from(&kept));
    }

    /// What an earlier start began to put in place is put there, before anything else is looked at.
    pub(super) fn ends_what_was_begun(&mut self) {
        let mut disk = PullingDisk::of(self.shelves());
        if slips(Slip::PullOverAPull) && self.beside.nothing_here {
            self.beside.before = None;
            self.beside.nothing_here = false;
            return self.has_nothing();
        }
        let _ = go_on(&mut disk);
        disk.shelves.drop_second_names();
        self.has(disk.shelves);
    }

    /// It begins to take from others what it lacks: no node runs on it. `damaged`: segments of its log that are not whole.
    ///
    /// # Errors
    /// What its replica noted is lost.
    pub(super) fn begins_to_pull(
        &mut self,
        damaged: &[LogPosition],
        now: u64,
        trace: &mut Trace,
    ) -> Result<(), String> {
        let (note, known) = self.noted()?;
        let kept = self.snapshots.as_ref().and_then(|snapshots| snapshots.kept.last());
        let checkpoint = kept.map(|newest| newest.checkpoint);
        let mut config = log_config();
        known.tell(&mut config);
        config.checkpoint = checkpoint;
        let from = checkpoint.map_or(LogPosition(0), |checkpoint| checkpoint.position);
        let opened = open_read_only(&self.disk, &config, from).ok();
        let mut own = StoppedLog::read(opened.as_ref(), checkpoint, note.term);
        let lack = match own.last_index {
            _ if !damaged.is_empty() => Lack::Damaged,
            None => Lack::Damaged,
            Some(0) => Lack::Joins,
            Some(_) => Lack::Behind,
        };
        trace.line(format!("{} pulls, {lack:?}: {own:?}, damaged {damaged:?}", self.id));
        if slips(Slip::ShortOfferTaken) {
            (own.last_index, own.term) = (Some(0), 0);
        }
        let note = if slips(Slip::NoteLeftBehind) { ReplicaNote { term: 0, vote: None, ..note } } else { note };
        let own_shelves = self.shelves();
        let gathering = Gathering::new(PullingDisk::of(own_shelves.clone()), (NAME, SEGMENT), note, own, damaged);
        let doing = Doing::Rests;
        let (from, next_at, unsound) = ((self.id, 0), now + 1, BTreeMap::new());
        self.pull = Some(Pull { gathering, own: own_shelves, doing, from, next_at, unsound, lack });
        Ok(())
    }

    /// What its replica noted, and what that says of its log.
    fn noted(&self) -> Result<(ReplicaNote, Known), String> {
        let file = open_note(&self.disk, "replica").map_err(|error| error.to_string())?;
        let note = ReplicaFile::noted(&file, NAME).map_err(|error| error.to_string())?;
        let note = note.filter(|note| note.member).ok_or("it was never one of several")?;
        let covered = self.snapshots.as_ref().map_or(LogPosition::START, Snapshots::durable);
        Ok((note.clone(), Known::of_note(Some(&note)).and_durable(covered)))
    }

    fn has_nothing(&mut self) {
        self.snapshots.iter_mut().for_each(Snapshots::lost);
        (self.disk, self.ledger) = (SimDisk::new(Image::new()), Ledger::default());
    }

    /// A mistake: the node begins with an empty log, and with what it noted of itself.
    pub(super) fn begins_with_nothing(&mut self) -> Result<(), String> {
        let (note, _) = self.noted()?;
        self.has_nothing();
        self.rotten = false;
        let file = open_note(&self.disk, "replica").map_err(|error| error.to_string())?;
        ReplicaFile::forgets_its_log(file, NAME, &note).map_err(|error| error.to_string())
    }

    /// A node that does not start, since its log is damaged: it takes what is lost from the others. Whether it can.
    pub(super) fn repairs(&mut self, now: u64, trace: &mut Trace) -> bool {
        let Ok((_, known)) = self.noted() else { return false };
        let found =
            look(&self.disk).and_then(|log| known.look_at(log).verify_from(LogPosition(0), known.durable, &mut |_| ()));
        let damaged = match found {
            Ok(Verification { damage, .. }) => damaged_segments(&damage, SEGMENT),
            // Nothing of it is believed.
            Err(_) => self.segments(),
        };
        self.begins_to_pull(&damaged, now, trace).is_ok()
    }

    /// Where its segments begin.
    pub(super) fn segments(&self) -> Vec<LogPosition> {
        let files = self.disk.files();
        let starts = files.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok());
        starts.map(LogPosition).collect()
    }

    /// Its process that pulls is killed, or the power goes.
    pub(super) fn pull_ends(&mut self, loss: Option<PowerLoss>, rng: &mut Rng) {
        let Some(mut pull) = self.pull.take() else { return };
        let shelves = pull.gathering.disk().shelves.clone();
        self.has(shelves.after(loss, rng));
    }

    /// Its pull is done. It died while that took the place of what it had, with this loss, if `death` is one.
    pub(crate) fn pulled(&mut self, mut pull: Pull, death: Option<Option<PowerLoss>>, rng: &mut Rng) {
        let disk = pull.gathering.disk();
        let shelves = match death {
            Some(loss) => disk.died(pull.own.clone(), loss, rng),
            None => disk.shelves.clone(),
        };
        self.has(shelves);
    }
}
