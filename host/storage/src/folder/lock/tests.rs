//! Who gets a folder, who waits, and who is named.

use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, Ordering};

use super::note::FolderPurpose;
use super::*;

fn exclusive(dir: &Path) -> Result<FolderLock, StartError> {
    FolderLock::exclusive(dir, &StartProgress::default())
}

fn refusal(dir: &Path) -> StartError {
    FolderLock::exclusive_within(dir, Duration::ZERO, &StartProgress::default()).err().expect("the folder is held")
}

#[test]
fn a_node_is_not_waited_for_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let lock = exclusive(folder.path()).unwrap();
    let began = Instant::now();
    let error = exclusive(folder.path()).err().expect("the folder is held");
    assert!(began.elapsed() < TOOL_WAIT);
    let me = format!("is in use by process {} (vouch serve)", std::process::id());
    assert!(matches!(&error, StartError::Locked { .. }) && error.to_string().contains(&me), "{error}");
    assert!(SharedLock::of_folder(folder.path()).unwrap().is_none(), "tools see that a node runs");
    assert!(in_use(folder.path()).is_some_and(|told| told.to_string() == error.to_string()));
    drop(lock);
    assert!(in_use(folder.path()).is_none());
    assert!(SharedLock::of_folder(folder.path()).unwrap().is_some());
    exclusive(folder.path()).unwrap();
}

#[test]
fn tools_share_a_folder_and_a_node_that_waited_long_enough_names_one() {
    let folder = tempfile::tempdir().unwrap();
    drop(exclusive(folder.path()).unwrap());
    let first = SharedLock::of_folder(folder.path()).unwrap();
    let second = SharedLock::of_folder(folder.path()).unwrap();
    assert!(first.is_some() && second.is_some());
    let error = refusal(folder.path());
    let named = format!("was held by process {} (vouch backup) for 0 s", std::process::id());
    assert!(matches!(&error, StartError::ToolHolds { .. }) && error.to_string().contains(&named), "{error}");
    // A tool that may not write there, and a note of an earlier time.
    fs::write(folder.path().join(LOCK_FILE), r#"{"pid":1,"purpose":"serve"}"#).unwrap();
    let me = format!("was held by process {} (", std::process::id());
    let told = refusal(folder.path()).to_string();
    assert!(told.contains(&me) && !told.contains("(vouch "), "{told}");
    drop((first, second));
    exclusive(folder.path()).unwrap();
}

#[test]
fn a_tool_makes_no_file_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    assert!(SharedLock::of_folder(folder.path()).unwrap().is_some());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_restore_that_ends_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let restoring = File::open(folder.path()).unwrap();
    restoring.lock().unwrap();
    note_restore(folder.path()).unwrap();
    assert!(refusal(folder.path()).to_string().contains("(vouch restore)"));
    let waiting = std::thread::spawn({
        let dir = folder.path().to_owned();
        move || exclusive(&dir).map(drop)
    });
    drop(restoring);
    waiting.join().unwrap().unwrap();
}

#[test]
fn an_earlier_versions_lock_counts() {
    let folder = tempfile::tempdir().unwrap();
    let earlier = File::create(folder.path().join(LOCK_FILE)).unwrap();
    earlier.lock().unwrap();
    let me = format!("process {} (", std::process::id());
    assert!(matches!(refusal(folder.path()), StartError::Locked { holder, .. } if holder.starts_with(&me)));
    assert!(SharedLock::of_folder(folder.path()).unwrap().is_none());
}

#[test]
fn who_serves_the_log_from_another_data_folder_is_named() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let log = tempfile::tempdir().unwrap();
    let mut first = exclusive(folders[0].path()).unwrap();
    first.hold_log(log.path()).unwrap();
    let mut second = exclusive(folders[1].path()).unwrap();
    let error = second.hold_log(log.path()).unwrap_err();
    // Both are this process, and the note in either folder is no help.
    let me = format!("{} is in use by process {} (", log.path().display(), std::process::id());
    assert!(error.to_string().contains(&me) && !error.to_string().contains("vouch serve)"), "{error}");
}

#[test]
fn a_start_that_is_given_up_waits_for_no_tool() {
    let folder = tempfile::tempdir().unwrap();
    let _tool = SharedLock::of_folder(folder.path()).unwrap();
    let progress = StartProgress::default();
    progress.give_up();
    let began = Instant::now();
    let error = FolderLock::exclusive(folder.path(), &progress).err().expect("the folder is held");
    assert!(matches!(error, StartError::GivenUp) && began.elapsed() < TOOL_WAIT, "{error}");
    assert!(matches!(progress.step(), StartStep::Waiting { holder } if holder.contains("process ")));
}

#[test]
fn a_folder_that_was_replaced_while_it_was_locked_is_locked_again() {
    let above = tempfile::tempdir().unwrap();
    let (dir, new) = (above.path().join("dir"), above.path().join("new"));
    [&dir, &new].iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let mut opened = 0;
    let counted = std::cell::RefCell::new(&mut opened);
    let open = || {
        let file = File::open(&dir)?;
        **counted.borrow_mut() += 1;
        if new.exists() {
            fs::rename(&new, &dir)?;
        }
        Ok(file)
    };
    let Attempt::Held(file) = attempt(&dir, FlockOperation::NonBlockingLockExclusive, open).unwrap() else {
        panic!("nobody else holds it");
    };
    assert!(is_at(&file, &dir).unwrap());
    assert_eq!(opened, 2);
}

#[test]
fn a_full_disk_keeps_no_node_from_starting_or_running() {
    let folder = tempfile::tempdir().unwrap();
    let (note, identity) = (folder.path().join(LOCK_FILE), folder.path().join(IDENTITY_FILE));
    // Whatever is written there finds a full disk.
    let full = |path: &Path| std::os::unix::fs::symlink("/dev/full", path).unwrap();
    full(&note);
    let mut lock = loop {
        match exclusive(folder.path()) {
            // The device is everybody's, and this test may run twice at a time.
            Err(StartError::Locked { .. }) => std::thread::yield_now(),
            held => break held.unwrap(),
        }
    };
    let me = format!("in use by process {} (", std::process::id());
    assert!(in_use(folder.path()).is_some_and(|told| told.to_string().contains(&me)), "the system says who");
    fs::write(&identity, "this node").unwrap();
    lock.hold_identity().unwrap();

    fs::remove_file(&identity).unwrap();
    full(&identity.with_extension("again"));
    lock.look().unwrap();
    assert!(!identity.exists(), "there was no space for it");
    assert!(fs::symlink_metadata(identity.with_extension("again")).is_err(), "what was half written is gone");
    lock.look().unwrap();
    assert_eq!(fs::read_to_string(&identity).unwrap(), "this node");
    // What is no shortage fences.
    fs::remove_file(&identity).unwrap();
    fs::create_dir(identity.with_extension("again")).unwrap();
    assert!(lock.look().unwrap_err().contains("cannot be put back"));
}

/// Somebody who removes `identity.json` again and again, also between the moment when it is put back and that when it is locked.
#[test]
fn what_is_removed_again_before_it_is_held_is_put_back_by_the_next_look_and_fences_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let identity = folder.path().join(IDENTITY_FILE);
    fs::write(&identity, "this node").unwrap();
    let mut lock = exclusive(folder.path()).unwrap();
    lock.hold_identity().unwrap();
    let looked = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !looked.load(Ordering::Relaxed) {
                let _ = fs::remove_file(&identity);
            }
        });
        for _ in 0..300 {
            let look = lock.look();
            looked.store(look.is_err(), Ordering::Relaxed);
            look.unwrap();
        }
        looked.store(true, Ordering::Relaxed);
    });
    lock.look().unwrap();
    assert_eq!(fs::read_to_string(&identity).unwrap(), "this node");
}

#[test]
fn a_shorter_note_leaves_nothing_of_a_longer_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LOCK_FILE);
    fs::write(&path, "x".repeat(200)).unwrap();
    note_restore(folder.path()).unwrap();
    let note = Note { pid: std::process::id(), purpose: FolderPurpose::Restore };
    assert_eq!(Note::read(folder.path()), Some(note));
}
