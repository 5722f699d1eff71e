//! What a machine has of its shard, and what it gathers beside that: the disk on which the product's pull works here.
//!
//! Each shelf is a folder of the product's: `0`, `0.before` and `0.pulled`. Files have the names that an offer gives them. A machine
//! may die between any two things that happen to them.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use vouch_broker::testing::read_snapshot;
use vouch_broker::{RecordPosition, State};
use vouch_commitlog::simulated::{Image, PowerLoss, Rng, SimDisk, open_note, open_read_only};
use vouch_commitlog::{Checkpoint, LogPosition, NoteFile, ReadOnlyLog};
use vouch_consensus::EntryId;
use vouch_storage::{
    ExpectedShard, PlaceDisk, PlacePicture, PlaceStep, PullDisk, PullError, StartProgress, check_log, damaged_segments,
};

use super::snapshots::Kept;
use super::{SEGMENT, log_config};
use crate::bugs::{Slip, slips};
use crate::ledger::Ledger;

/// Where segments and snapshots lie, by the names that an offer has for them.
const LOG: &str = "log/";
const SNAPSHOTS: &str = "snapshots/";

/// The name on a simulated disk of what an offer calls so.
pub(super) fn on_disk(path: &Path) -> &str {
    let path = path.to_str().unwrap();
    path.strip_prefix(LOG).unwrap_or(path)
}

/// What an offer calls the snapshot that covers all before this position.
pub(super) fn snapshot_path(covered: LogPosition) -> String {
    format!("{SNAPSHOTS}{:020}.snapshot", covered.0)
}

/// A folder.
#[derive(Clone, Default)]
pub(super) struct Shelf {
    /// Its log, its note, and what is gathered of a snapshot.
    pub(super) disk: Option<SimDisk>,
    pub(super) kept: Vec<Kept>,
    pub(super) ledger: Ledger,
    /// All that was gathered is there.
    complete: bool,
    /// Gathered files that are the node's own, under a second name.
    own: BTreeSet<String>,
    /// It was gathered.
    pub(super) was_gathered: bool,
}

impl Shelf {
    pub(super) fn of(disk: SimDisk, kept: Vec<Kept>, ledger: Ledger) -> Self {
        Self { disk: Some(disk), kept, ledger, ..Self::default() }
    }

    fn disk(&self) -> &SimDisk {
        self.disk.as_ref().unwrap()
    }

    /// As the next process finds it, or what is left when the power went.
    fn after(mut self, events: usize, loss: Option<PowerLoss>, rng: &mut Rng) -> Self {
        let disk = self.disk();
        self.disk = Some(match loss {
            None => disk.fork(events),
            Some(loss) => SimDisk::new(disk.after_power_cut(events, loss, rng)),
        });
        if loss.is_some() {
            self.ledger.power_went();
        }
        self
    }
}

/// The folders that lie beside each other.
#[derive(Clone, Default)]
pub(super) struct Shelves {
    pub(super) here: Option<Shelf>,
    pub(super) before: Option<Shelf>,
    pub(super) gathered: Option<Shelf>,
}

impl Shelves {
    fn all(&mut self) -> impl Iterator<Item = &mut Shelf> {
        [&mut self.here, &mut self.before, &mut self.gathered].into_iter().flatten()
    }

    /// What a death leaves of them now.
    pub(super) fn after(mut self, loss: Option<PowerLoss>, rng: &mut Rng) -> Self {
        for shelf in self.all() {
            let events = shelf.disk().events();
            *shelf = std::mem::take(shelf).after(events, loss, rng);
        }
        self
    }

    /// A start goes on with what came from others. What is the node's own has one name again.
    pub(super) fn drop_second_names(&mut self) {
        if let Some(shelf) = &mut self.gathered {
            for name in std::mem::take(&mut shelf.own) {
                // A power cut may have taken the second name.
                let _ = shelf.disk().take_away(&name);
            }
        }
    }
}

/// The shelves of a machine on which no node runs.
pub(crate) struct PullingDisk {
    pub(super) shelves: Shelves,
    /// What a kill would have left behind each change of names, and whether it was durable.
    changes: Vec<(Shelves, bool)>,
    /// What it had done to the gathered files before all of them were there.
    begins: usize,
}

impl PullingDisk {
    pub(super) fn of(shelves: Shelves) -> Self {
        Self { shelves, changes: Vec::new(), begins: 0 }
    }

    fn gathered_shelf(&self) -> &Shelf {
        self.shelves.gathered.as_ref().unwrap()
    }

    fn gathered_disk(&self) -> &SimDisk {
        self.gathered_shelf().disk()
    }

    fn changed(&mut self, durable: bool) {
        self.changes.push((self.shelves.clone(), durable));
    }

    /// All was gathered: deaths may come from here on.
    pub(super) fn mark(&mut self) {
        self.changes.clear();
        self.begins = self.gathered_disk().events();
    }

    /// What is left when its machine died somewhere behind [`Self::mark`]: in what was written, or between two changes of names.
    pub(super) fn died(&self, before: Shelves, loss: Option<PowerLoss>, rng: &mut Rng) -> Shelves {
        if self.changes.is_empty() || rng.chance(3) {
            let mut left = before;
            if let Some(shelf) = &mut left.gathered {
                let end = shelf.disk().events().max(self.begins);
                let at = self.begins + rng.below((end - self.begins) as u64 + 1) as usize;
                *shelf = std::mem::take(shelf).after(at, loss, rng);
            }
            return left;
        }
        let at = rng.below(self.changes.len() as u64) as usize;
        let durable = (0..=at).rev().find(|at| self.changes[*at].1);
        let at = match loss {
            None | Some(PowerLoss::Nothing) => Some(at),
            Some(PowerLoss::All) => durable,
            Some(_) => {
                if rng.chance(2) {
                    durable
                } else {
                    Some(at)
                }
            }
        };
        let left = at.map_or(before, |at| self.changes[at].0.clone());
        left.after(loss, rng)
    }
}

fn wrong(error: impl ToString) -> PullError {
    PullError::Offer(error.to_string())
}

impl PlaceDisk for PullingDisk {
    fn picture(&self) -> PlacePicture {
        let Shelves { here, before, gathered } = &self.shelves;
        let complete = gathered.as_ref().is_some_and(|gathered| gathered.complete);
        PlacePicture { here: here.is_some(), before: before.is_some(), complete }
    }

    fn step(&mut self, step: PlaceStep) -> io::Result<()> {
        let Shelves { here, before, gathered } = &mut self.shelves;
        match step {
            PlaceStep::PutAside => *before = here.take(),
            PlaceStep::PutInPlace => *here = gathered.take(),
            PlaceStep::PutBack => *here = before.take(),
            PlaceStep::RemoveBefore => *before = None,
        }
        self.changed(false);
        self.changed(true);
        Ok(())
    }

    fn failed(&self, step: PlaceStep, error: io::Error) -> PullError {
        wrong(format!("{step:?}: {error}"))
    }
}

impl PullDisk for PullingDisk {
    fn prepare(&mut self) -> Result<(), PullError> {
        let new = || Shelf { disk: Some(SimDisk::new(Image::new())), was_gathered: true, ..Shelf::default() };
        self.shelves.gathered.get_or_insert_with(new).complete = false;
        Ok(())
    }

    fn gathered(&self) -> Result<Vec<PathBuf>, PullError> {
        let files = self.gathered_disk().files().into_iter().filter(|name| !name.starts_with("replica"));
        let path = |name: String| if name.starts_with(SNAPSHOTS) { name } else { format!("{LOG}{name}") };
        Ok(files.map(|name| PathBuf::from(path(name))).collect())
    }

    fn length(&self, path: &Path) -> Result<Option<u64>, PullError> {
        Ok(self.gathered_disk().length(on_disk(path)))
    }

    fn remove(&mut self, path: &Path) -> Result<(), PullError> {
        self.shelves.gathered.iter_mut().for_each(|gathered| _ = gathered.own.remove(on_disk(path)));
        self.gathered_disk().take_away(on_disk(path)).map_err(wrong)
    }

    fn own_length(&self, path: &Path) -> Result<u64, PullError> {
        let here = self.shelves.here.as_ref().and_then(|here| here.disk().length(on_disk(path)));
        Ok(here.unwrap_or(0))
    }

    /// What is rotten on the medium is so under each name, whatever the page cache still has: that is what is read here.
    fn keep_own(&mut self, path: &Path) -> Result<(), PullError> {
        let name = on_disk(path);
        let here = self.shelves.here.as_ref().unwrap().disk();
        let visible = here.bytes_at(name, 0, here.length(name).unwrap() as usize).unwrap();
        let durable = here.after_power_cut(here.events(), PowerLoss::All, &mut Rng::new(0)).remove(name);
        let bytes = durable.filter(|durable| durable.len() == visible.len()).unwrap_or(visible);
        let shelf = self.shelves.gathered.as_mut().unwrap();
        let disk = shelf.disk.as_ref().unwrap();
        // It is not there in most cases.
        let _ = disk.take_away(name);
        disk.append(name, &bytes).map_err(wrong)?;
        shelf.own.insert(name.to_owned());
        Ok(())
    }

    fn has_room_for(&self, _: u64) -> Result<(), PullError> {
        Ok(())
    }

    fn append(&mut self, path: &Path, bytes: &[u8]) -> Result<(), PullError> {
        self.gathered_disk().append(on_disk(path), bytes).map_err(wrong)
    }

    fn settle(&mut self, path: &Path, length: u64) -> Result<(), PullError> {
        if slips(Slip::PulledNotSynced) {
            let missing = length - self.length(path)?.unwrap_or(0);
            return self.append(path, &vec![0; missing as usize]);
        }
        self.gathered_disk().settle(on_disk(path), length).map_err(wrong)
    }

    fn check(&mut self, expected: &ExpectedShard, _: &StartProgress) -> Result<EntryId, String> {
        let shelf = self.shelves.gathered.as_mut().unwrap();
        let disk = shelf.disk.as_ref().unwrap();
        shelf.kept = expected.snapshot.map(|covered| read_kept(disk, covered)).transpose()?.into_iter().collect();
        let mut config = log_config();
        config.known_durable = expected.log_end;
        config.checkpoint = shelf.kept.first().map(|kept| kept.checkpoint);
        let state = match shelf.kept.first() {
            Some(kept) => state_of(&kept.bytes)?,
            None => State::default(),
        };
        let open = || open_read_only(disk, &config, LogPosition(0)).map_err(|error| error.to_string());
        let last = check_log(open()?, (config.checkpoint, state), expected)?;
        let found = names(&open()?)?;
        let own = self.shelves.here.as_ref().map(|here| &here.ledger);
        shelf.ledger = Ledger::pulled(found, (expected.log_start, expected.log_end), own);
        Ok(last)
    }

    fn broken_segments(&mut self, expected: &ExpectedShard) -> Vec<LogPosition> {
        let mut config = log_config();
        config.known_durable = expected.log_end;
        let opened = open_read_only(self.gathered_disk(), &config, LogPosition(0));
        opened.map(|opened| damaged_segments(&opened.verification.damage, SEGMENT)).unwrap_or_default()
    }

    fn note(&mut self) -> Result<NoteFile, PullError> {
        // One that a pull wrote which did not end is written anew.
        open_note(self.gathered_disk(), "replica").map_err(wrong)
    }

    fn complete(&mut self) -> Result<(), PullError> {
        if !slips(Slip::PulledNotSynced) {
            self.gathered_disk().sync_names().map_err(wrong)?;
        }
        self.shelves.gathered.as_mut().unwrap().complete = true;
        self.changed(false);
        self.changed(true);
        Ok(())
    }

    fn throw_away(&mut self) -> Result<(), PullError> {
        self.shelves.gathered = None;
        Ok(())
    }
}

fn state_of(snapshot: &[u8]) -> Result<State, String> {
    let read = read_snapshot(snapshot);
    read.map(|(_, state): (RecordPosition, State)| state).map_err(|error| format!("a snapshot cannot be read: {error}"))
}

fn read_kept(disk: &SimDisk, covered: LogPosition) -> Result<Kept, String> {
    let path = snapshot_path(covered);
    let length = disk.length(&path).ok_or("there is no snapshot")?;
    let kept = Kept::decode(&disk.bytes_at(&path, 0, length as usize).unwrap())?;
    if kept.checkpoint.end == covered { Ok(kept) } else { Err(format!("it covers {}", kept.checkpoint)) }
}

/// The names of all entries of a log.
fn names(opened: &ReadOnlyLog) -> Result<Vec<Checkpoint>, String> {
    let reader = &opened.reader;
    let found = reader.headers_from(reader.start()).map(|at| at.and_then(|at| reader.checkpoint_at(at.position)));
    found.collect::<Result<_, _>>().map_err(|error| error.to_string())
}
