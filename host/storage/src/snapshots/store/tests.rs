//! A file is there twice or not at all, whatever comes between; room that was set aside is used and given back.

use super::*;

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_appears_whole_and_twice_and_what_a_crash_left_unfinished_goes() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("00000000000000000007.unfinished"), b"half").unwrap();
    fs::write(folder.path().join("notes.snapshot"), b"somebody's").unwrap();
    let store = Store::of_folder(folder.path());
    store.prepare().unwrap();
    store.put(CopyKind::Part, 7, &[b"ab", b"c"], Rooms::Taken).unwrap();
    for which in Which::BOTH {
        assert_eq!(fs::read(store.path(CopyKind::Part, 7, which)).unwrap(), b"abc");
    }
    let (first, second) = ("00000000000000000007.part", "00000000000000000007.part2");
    assert_eq!(names(folder.path()), [first, second, "notes.snapshot"]);
    assert_eq!(store.positions(CopyKind::Part).unwrap(), [7]);
    assert!(store.positions(CopyKind::Snapshot).unwrap().is_empty());
}

#[test]
fn a_file_of_which_only_one_copy_can_be_written_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::of_folder(folder.path());
    // Nothing can be renamed to a folder that is not empty.
    fs::create_dir_all(store.path(CopyKind::Part, 7, Which::Second).join("in the way")).unwrap();
    assert!(store.put(CopyKind::Part, 7, &[b"abc"], Rooms::Taken).is_err());
    assert_eq!(names(folder.path()), ["00000000000000000007.part2"]);
}

#[test]
fn a_copy_is_made_again_of_what_is_there_and_of_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::of_folder(folder.path());
    store.put(CopyKind::Part, 7, &[b"abc"], Rooms::Taken).unwrap();
    for which in Which::BOTH {
        fs::remove_file(store.path(CopyKind::Part, 7, which)).unwrap();
        assert!(store.mend(CopyKind::Part, 7, which, b"abc", Rooms::Spared).unwrap());
        assert_eq!(fs::read(store.path(CopyKind::Part, 7, which)).unwrap(), b"abc");
    }
    store.tidy(&[], &[]).unwrap();
    assert!(!store.mend(CopyKind::Part, 7, Which::First, b"abc", Rooms::Spared).unwrap(), "it was removed meanwhile");
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn what_is_kept_stays_with_the_parts_that_it_needs_and_the_rest_goes() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::of_folder(folder.path());
    store.prepare().unwrap();
    for position in [10, 2, 300, 4000] {
        store.put(CopyKind::Snapshot, position, &[b"s"], Rooms::Taken).unwrap();
        store.put(CopyKind::Part, position, &[b"p"], Rooms::Taken).unwrap();
    }
    // As a crash in the middle of this would leave it.
    fs::remove_file(store.path(CopyKind::Snapshot, 2, Which::First)).unwrap();
    store.tidy(&[300, 10], &[2, 300]).unwrap();
    assert_eq!(store.positions(CopyKind::Snapshot).unwrap(), [10, 300]);
    assert_eq!(store.positions(CopyKind::Part).unwrap(), [2, 300]);
    assert_eq!(names(folder.path()).len(), 8);
}

/// Whether a store refuses to add, mend, remove and set aside.
fn refuses_all(store: &Store) -> bool {
    store.set_room_aside(1);
    store.put(CopyKind::Part, 7, &[b"abc"], Rooms::Taken).is_err()
        && store.mend(CopyKind::Part, 7, Which::First, b"abc", Rooms::Taken).is_err()
        && store.take_back_all(CopyKind::Part, &[7], true).is_err()
        && store.tidy(&[], &[]).is_err()
}

#[test]
fn what_lies_at_the_path_of_a_folder_that_was_moved_away_is_left_alone() {
    let above = tempfile::tempdir().unwrap();
    let (folder, away) = (above.path().join("snapshots"), above.path().join("away"));
    let store = Store::of_folder(&folder);
    store.prepare().unwrap();
    store.put(CopyKind::Part, 7, &[b"abc"], Rooms::Taken).unwrap();
    fs::rename(&folder, &away).unwrap();
    assert!(refuses_all(&store) && !folder.exists());
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("00000000000000000007.part"), b"another node's").unwrap();
    assert!(refuses_all(&store));
    assert_eq!(names(&folder), ["00000000000000000007.part"]);
    fs::remove_dir_all(&folder).unwrap();
    fs::rename(&away, &folder).unwrap();
    store.tidy(&[], &[]).unwrap();
    assert_eq!(names(&folder), [""; 0]);
}

#[test]
fn a_store_that_was_given_up_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::of_folder(folder.path());
    store.put(CopyKind::Part, 7, &[b"abc"], Rooms::Taken).unwrap();
    let before = names(folder.path());
    store.give_up();
    assert!(refuses_all(&store));
    assert_eq!(names(folder.path()), before);
}

#[test]
fn what_is_taken_back_is_room_for_the_next_of_its_kind() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::of_folder(folder.path());
    for position in 0..6 {
        store.put(CopyKind::Part, position, &[&[1; 8192]], Rooms::Taken).unwrap();
    }
    store.take_back_all(CopyKind::Part, &[0, 1, 2, 3, 4, 9], true).unwrap();
    let rooms: Vec<_> = (0..ROOMS).map(|n| format!("part-{n}.room")).collect();
    let part = |extension| format!("00000000000000000005.{extension}");
    assert_eq!(names(folder.path()), [vec![part("part"), part("part2")], rooms].concat());
}

#[test]
fn what_is_mended_on_a_full_disk_takes_no_room_from_the_next_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::of_folder(folder.path());
    store.put(CopyKind::Part, 7, &[b"abc"], Rooms::Taken).unwrap();
    store.set_room_aside(1);
    let before = names(folder.path());
    assert!(before.contains(&"part-0.room".to_owned()), "{before:?}");
    // Whatever is written to it finds a full disk.
    let full = || {
        let unfinished = folder.path().join("00000000000000000007.part2.unfinished");
        std::os::unix::fs::symlink("/dev/full", unfinished)
    };
    full().unwrap();
    let error = store.mend(CopyKind::Part, 7, Which::Second, b"abc", Rooms::Spared).unwrap_err();
    assert!(is_full(&error), "{error}");
    assert_eq!(names(folder.path()), before);
    full().unwrap();
    let error = store.put(CopyKind::Part, 7, &[b"abc"], Rooms::Spared).unwrap_err();
    assert!(is_full(&error), "one with which no segment goes: {error}");
    assert_eq!(names(folder.path()), before);
    full().unwrap();
    store.put(CopyKind::Part, 7, &[b"abc"], Rooms::Taken).unwrap();
    assert_eq!(names(folder.path()).len(), before.len() - 1, "a snapshot with which segments go takes it");
}

#[test]
fn a_file_that_cannot_be_written_again_stays_as_it_was() {
    for copy in ["part", "part2"] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of_folder(folder.path());
        store.put(CopyKind::Part, 7, &[b"abc"], Rooms::Taken).unwrap();
        let before = names(folder.path());
        let unfinished = folder.path().join(format!("00000000000000000007.{copy}.unfinished"));
        std::os::unix::fs::symlink("/dev/full", &unfinished).unwrap();
        assert!(is_full(&store.put(CopyKind::Part, 7, &[b"abc"], Rooms::Taken).unwrap_err()));
        let left: Vec<_> = names(folder.path()).into_iter().filter(|name| !name.ends_with(".room")).collect();
        assert_eq!(left, before, "{copy}");
        for which in Which::BOTH {
            assert_eq!(fs::read(store.path(CopyKind::Part, 7, which)).unwrap(), b"abc");
        }
    }
}

#[test]
fn room_that_a_crash_left_half_used_is_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::of_folder(folder.path());
    store.set_room_aside(1);
    let before = names(folder.path());
    for (room, copy) in [("part-0.room", "7.part.unfinished"), ("snapshot-3.room", "7.snapshot2.unfinished")] {
        fs::rename(folder.path().join(room), folder.path().join(copy)).unwrap();
    }
    store.prepare().unwrap();
    assert_eq!(names(folder.path()), before);
}
