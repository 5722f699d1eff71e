//! A note is never an older one than its writer was told, whatever happens to the machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::bugs::{self, Bug};
use crate::simulated::{Image, LOSSES, PowerLoss, Rng, SimDisk, SimFault, open_note, read_note};

const NAME: &str = "note";
/// Notes of a life; enough for each slot to be written over twice.
const WRITES: u64 = 5;

/// A note that says its number, and is long enough to lie in several sectors.
fn note(number: u64) -> Vec<u8> {
    [number.to_le_bytes().as_slice(), &[number as u8; 1500]].concat()
}

/// The number that a note says; 0 where nothing is noted.
fn number(note: Option<&[u8]>) -> u64 {
    let Some(found) = note else { return 0 };
    let number = u64::from_le_bytes(found[..8].try_into().unwrap());
    assert_eq!(found, self::note(number), "a note that nobody wrote");
    number
}

/// What happened to a note in the time of one process.
struct Life {
    disk: SimDisk,
    /// Events that had happened before.
    born: usize,
    /// Notes, each with the events that had happened when its write began, and when it had returned; the first one is what
    /// was found.
    notes: Vec<(u64, usize, usize)>,
}

impl Life {
    /// Opens the note, and writes it so often.
    fn live(disk: SimDisk, writes: u64) -> Result<Self, String> {
        let born = disk.events();
        let mut file = open_note(&disk, NAME).map_err(|error| error.to_string())?;
        let found = number(file.note());
        let mut notes = vec![(found, born, disk.events())];
        for number in found + 1..=found + writes {
            let begun = disk.events();
            file.write(&note(number)).map_err(|error| error.to_string())?;
            notes.push((number, begun, disk.events()));
        }
        Ok(Self { disk, born, notes })
    }

    /// The last one that was told to be durable within the first `events`, and the last one that was begun. What it began with
    /// is not told before it was opened.
    fn known(&self, events: usize, before: u64) -> (u64, u64) {
        let returned = self.notes.iter().filter(|(.., returned)| *returned <= events).map(|(number, ..)| *number);
        let begun = self.notes.iter().filter(|(_, begun, _)| *begun < events || *begun == self.born);
        (returned.max().unwrap_or(before), begun.map(|(number, ..)| *number).max().unwrap_or(before))
    }

    /// All that can be on the disk after the first `events`: killed, or without power.
    fn ends(&self, events: usize, rng: &mut Rng) -> Vec<(String, SimDisk)> {
        let mut ends = vec![("killed".to_owned(), self.disk.fork(events))];
        for loss in LOSSES {
            // Which sectors are lost is drawn.
            let times = if matches!(loss, PowerLoss::Sectors) { 4 } else { 1 };
            for _ in 0..times {
                let image = self.disk.after_power_cut(events, loss, rng);
                ends.push((format!("{loss:?}"), SimDisk::new(image)));
            }
        }
        ends
    }
}

/// A life, ended everywhere and in every way; a second one, ended in the same ways; and what is read then.
fn violation() -> Option<String> {
    let mut rng = Rng::new(0x0020_7E5E_ED00);
    let check = |told: &str, found: u64, (least, most): (u64, u64)| match (least..=most).contains(&found) {
        true => None,
        false => Some(format!("{told}: note {found} is there, {least} was durable, {most} was begun")),
    };
    let first = Life::live(SimDisk::new(Image::new()), WRITES).unwrap();
    for at in 0..=first.disk.events() {
        for (end, disk) in first.ends(at, &mut rng) {
            let told = format!("{end} after event {at}");
            let second = match Life::live(disk, 2) {
                Ok(second) => second,
                Err(error) => return Some(format!("{told}: {error}")),
            };
            let found = second.notes[0].0;
            if let Some(violation) = check(&told, found, first.known(at, 0)) {
                return Some(violation);
            }
            for again in second.born..=second.disk.events() {
                for (end, disk) in second.ends(again, &mut rng) {
                    let told = format!("{told}, then {end} after event {again}");
                    let (known, begun) = second.known(again, first.known(at, 0).0);
                    match read_note(&disk, NAME) {
                        Ok(read) => {
                            if let Some(violation) = check(&told, number(read.as_deref()), (known, begun)) {
                                return Some(violation);
                            }
                        }
                        Err(error) => return Some(format!("{told}: {error}")),
                    }
                }
            }
        }
    }
    None
}

/// A write that fails, at every step; then another one, and a power cut.
fn violation_of_a_fault() -> Option<String> {
    let mut rng = Rng::new(7);
    for fault in [SimFault::Write, SimFault::Sync, SimFault::SyncDirectory, SimFault::NoSpace, SimFault::Descriptors] {
        for good in 0..3 {
            let disk = SimDisk::new(Image::new());
            let mut file = open_note(&disk, NAME).unwrap();
            for number in 1..=good {
                file.write(&note(number)).unwrap();
            }
            disk.inject(fault);
            let Err(first) = file.write(&note(good + 1)) else { continue };
            disk.clear_faults();
            let before = disk.events();
            let mut durable = number(file.note());
            assert_eq!(durable, good, "what failed is not noted");
            for number in good + 2..good + 4 {
                match file.write(&note(number)) {
                    Ok(()) => durable = number,
                    Err(error) if error.to_string() == first.to_string() => {}
                    Err(error) => return Some(format!("{fault:?}: first {first}, then {error}")),
                }
            }
            if durable == good && disk.events() != before {
                return Some(format!("{fault:?}: something is written or synced after an error"));
            }
            for loss in LOSSES.repeat(8) {
                for (told, disk) in [
                    ("power cut", SimDisk::new(disk.after_power_cut(disk.events(), loss, &mut rng))),
                    ("killed", disk.fork(disk.events())),
                ] {
                    // What the next process is told survives the next power cut.
                    let found = match open_note(&disk, NAME) {
                        Ok(file) => number(file.note()),
                        Err(error) => return Some(format!("{fault:?}, {told}: {error}")),
                    };
                    let left = SimDisk::new(disk.after_power_cut(disk.events(), PowerLoss::All, &mut rng));
                    let left = number(read_note(&left, NAME).unwrap().as_deref());
                    if found < durable || left < found {
                        return Some(format!(
                            "{fault:?}, {told}, {loss:?}: {durable} durable, {found} found, {left} left"
                        ));
                    }
                }
            }
        }
    }
    None
}

#[test]
fn whatever_a_power_cut_leaves_is_the_last_note_that_was_written_or_the_one_that_was_being_written() {
    assert_eq!(violation(), None);
}

#[test]
fn after_the_first_error_nothing_is_written_and_what_the_next_process_is_told_is_durable() {
    assert_eq!(violation_of_a_fault(), None);
}

fn caught(bug: &Bug) -> String {
    bug.during(|| violation().or_else(violation_of_a_fault)).expect("the mistake is caught")
}

#[test]
fn a_note_that_is_written_over_the_one_before_is_caught() {
    println!("{}", caught(&bugs::NOTE_IN_ONE_SLOT));
}

#[test]
fn a_note_that_is_believed_as_it_was_read_is_caught() {
    println!("{}", caught(&bugs::NOTE_BELIEVED_AS_READ));
}

#[test]
fn a_note_that_is_written_after_an_error_is_caught() {
    println!("{}", caught(&bugs::NOTE_WRITTEN_AFTER_ERROR));
}

#[test]
fn a_note_that_has_its_name_before_it_is_durable_is_caught() {
    println!("{}", caught(&bugs::NOTE_NAMED_BEFORE_SYNC));
}

/// Three notes, and the bytes of the file.
fn written() -> Vec<u8> {
    let life = Life::live(SimDisk::new(Image::new()), 3).unwrap();
    life.disk.image()[NAME].clone()
}

fn read(bytes: Vec<u8>) -> Result<u64, NoteError> {
    let disk = SimDisk::new(Image::from([(NAME.to_owned(), bytes)]));
    Ok(number(open_note(&disk, NAME)?.note()))
}

#[test]
fn a_torn_slot_is_passed_over_and_written_next() {
    let mut bytes = written();
    bytes[..SLOT_LEN].fill(0x55);
    let disk = SimDisk::new(Image::from([(NAME.to_owned(), bytes)]));
    let mut file = open_note(&disk, NAME).unwrap();
    let found = number(file.note());
    assert!([2, 3].contains(&found));
    file.write(&note(9)).unwrap();
    assert_eq!(number(read_note(&disk, NAME).unwrap().as_deref()), 9);
    // What was whole lies where it lay.
    assert_eq!(disk.bytes_at(NAME, SLOT_LEN as u64, SLOT_LEN), Some(encode_of(found)));
}

fn encode_of(number: u64) -> Vec<u8> {
    // The first note is written twice, so each number is one behind its count.
    let mut at = Newest::first(&note(1));
    for number in 1..=number {
        at = at.next(&note(number));
    }
    encode(&at)
}

#[test]
fn bytes_that_go_bad_bring_back_no_older_note() {
    let bytes = written();
    for sector in (0..bytes.len()).step_by(512) {
        let mut bad = bytes.clone();
        bad[sector..sector + 512].fill(0xAA);
        assert_eq!(read(bad).unwrap(), 3, "the sector at {sector}");
    }
}

#[test]
fn a_file_without_a_whole_slot_is_damaged_and_never_one_that_was_not_written() {
    for bytes in [Vec::new(), vec![0; 8192], vec![7; 100], vec![0; 1 << 16]] {
        let damaged = read(bytes).unwrap_err();
        assert!(damaged.to_string().contains("note is damaged: neither of its two slots"), "{damaged}");
    }
    let mut bytes = written();
    for copy in bytes.chunks_exact_mut(SLOT_LEN / 2) {
        copy[30] ^= 1;
    }
    assert!(matches!(read(bytes), Err(NoteError::Damaged(_))));
    assert_eq!(number(open_note(&SimDisk::new(Image::new()), NAME).unwrap().note()), 0, "no file is no error");
}

#[test]
fn a_slot_that_the_disk_cannot_read_is_no_torn_one() {
    let disk = SimDisk::new(Image::from([(NAME.to_owned(), written())]));
    disk.break_sectors(NAME, 0..512);
    assert!(matches!(open_note(&disk, NAME), Err(NoteError::Io { action: "read", .. })));
}

#[test]
fn a_newer_version_is_refused_whichever_slot_has_it() {
    for slot in [0, 1] {
        let mut bytes = written();
        for copy in bytes[slot * SLOT_LEN..][..SLOT_LEN].chunks_exact_mut(SLOT_LEN / 2) {
            copy[8] = 9;
            let crc = crc32c::crc32c(&copy[..SLOT_LEN / 2 - 4]);
            copy[SLOT_LEN / 2 - 4..].copy_from_slice(&crc.to_le_bytes());
        }
        let newer = read(bytes).unwrap_err();
        assert!(matches!(newer, NoteError::Version { version: 9, .. }), "{newer}");
        assert!(newer.to_string().contains("use the one that wrote it or a later one"), "{newer}");
    }
}

#[test]
fn a_file_that_was_cut_behind_its_first_slot_is_written_as_ever() {
    let mut bytes = written();
    bytes.truncate(SLOT_LEN + 100);
    let disk = SimDisk::new(Image::from([(NAME.to_owned(), bytes)]));
    let mut file = open_note(&disk, NAME).unwrap();
    for number in 4..7 {
        file.write(&note(number)).unwrap();
        assert_eq!(self::number(read_note(&disk, NAME).unwrap().as_deref()), number);
    }
    assert_eq!(disk.image()[NAME].len() as u64, FILE_LEN);
}

#[test]
fn on_a_real_folder_it_is_the_owners_alone_and_nothing_is_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let shard = folder.path().join("shard");
    assert!(NoteFile::read(&shard, NAME).unwrap().is_none(), "no folder, no note");
    let mut file = NoteFile::open(&shard, NAME).unwrap();
    assert!(file.note().is_none());
    // A crash came before the file had its name.
    fs::write(shard.join("note.new"), "torn").unwrap();
    for text in ["first", "second", "third"] {
        file.write(text.as_bytes()).unwrap();
        assert_eq!(file.note(), Some(text.as_bytes()));
        assert_eq!(NoteFile::read(&shard, NAME).unwrap().as_deref(), Some(text.as_bytes()));
    }
    assert_eq!(file.path(), shard.join(NAME));
    drop(file);
    assert_eq!(NoteFile::open(&shard, NAME).unwrap().note(), Some(b"third".as_slice()));
    let names: Vec<_> = fs::read_dir(&shard).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [NAME]);
    let found = fs::metadata(shard.join(NAME)).unwrap();
    assert_eq!((found.len(), found.permissions().mode() & 0o777), (FILE_LEN, 0o600));
}

#[test]
fn a_file_that_was_removed_under_its_owner_is_made_again_by_the_next_note() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = NoteFile::open(folder.path(), NAME).unwrap();
    file.write(b"first").unwrap();
    assert!(file.is_there());
    fs::remove_file(file.path()).unwrap();
    assert!(!file.is_there());
    file.write(b"second").unwrap();
    assert!(file.is_there());
    assert_eq!(NoteFile::read(folder.path(), NAME).unwrap().as_deref(), Some(b"second".as_slice()));
    file.write(b"third").unwrap();
    drop(file);
    assert_eq!(NoteFile::open(folder.path(), NAME).unwrap().note(), Some(b"third".as_slice()));
}

#[test]
#[should_panic(expected = "does not fit")]
fn a_note_that_is_too_long_is_refused() {
    let mut file = open_note(&SimDisk::new(Image::new()), NAME).unwrap();
    file.write(&[1; MAX_NOTE_LEN]).unwrap();
    let _ = file.write(&[1; MAX_NOTE_LEN + 1]);
}
