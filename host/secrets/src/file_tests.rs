//! The key file on the disk: made once, kept, and refused rather than guessed.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// A folder, and the key file that is to be in it.
fn empty() -> (TempDir, SecretKeyFile) {
    let folder = tempfile::tempdir().unwrap();
    let file = SecretKeyFile::new(folder.path().join(KEY_FILE));
    (folder, file)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// All that lies in a folder.
fn names(folder: &TempDir) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn the_file_is_made_once_for_its_owner_alone_and_found_again() {
    let (folder, file) = empty();
    assert!(matches!(file.read(), Err(KeyFileFault::Missing { path }) if path == file.path()));
    assert_eq!(names(&folder), [""; 0], "reading makes none");
    let made = file.read_or_make().unwrap();
    assert_eq!((names(&folder), mode(file.path())), (vec![KEY_FILE.to_owned()], 0o600));
    assert_eq!((made.ids().count(), file.read().unwrap() == made), (1, true));
    let again = SecretKeyFile::new(file.path());
    assert_eq!(again.read_or_make().unwrap(), made, "another start finds the same key");
}

#[test]
fn a_file_that_others_may_read_is_refused_and_left_as_it_is() {
    let (_folder, file) = empty();
    let made = file.read_or_make().unwrap();
    let before = fs::read(file.path()).unwrap();
    for open in [0o640, 0o604, 0o644, 0o660, 0o610, 0o601, 0o777] {
        set_mode(file.path(), open);
        for refused in [file.read(), file.read_or_make(), file.rotate(), file.add(&SecretKeys::draw())] {
            let fault = refused.unwrap_err();
            assert!(matches!(fault, KeyFileFault::OpenToOthers { mode, .. } if mode == open), "{open:o}: {fault}");
            let text = fault.to_string();
            assert!(text.contains(&format!("(mode {open:04o})")) && text.contains("chmod 600"), "{text}");
        }
    }
    assert_eq!(fs::read(file.path()).unwrap(), before);
    for closed in [0o600, 0o400] {
        set_mode(file.path(), closed);
        assert_eq!(file.read().unwrap(), made, "{closed:o}");
    }
}

#[test]
fn a_damaged_file_is_refused_and_never_begun_anew() {
    let (_folder, file) = empty();
    file.read_or_make().unwrap();
    let good = fs::read(file.path()).unwrap();
    let mut flipped = good.clone();
    flipped[40] ^= 1;
    let huge = [&good[..], &vec![b'x'; 1 << 20]].concat();
    for (damaged, why) in [(flipped, KeyFileDamage::Sum), (vec![], KeyFileDamage::Empty), (huge, KeyFileDamage::Sum)] {
        fs::write(file.path(), &damaged).unwrap();
        for refused in [file.read(), file.read_or_make(), file.rotate(), file.add(&SecretKeys::draw())] {
            let fault = refused.unwrap_err();
            assert!(matches!(fault, KeyFileFault::Damaged { why: found, .. } if found == why), "{fault}");
            assert!(fault.to_string().contains("copy it from another node"), "{fault}");
        }
        assert!(fs::read(file.path()).unwrap() == damaged, "it is left as it is");
    }
}

#[test]
fn what_is_no_file_is_refused_without_waiting_for_it() {
    let (folder, file) = empty();
    fs::create_dir(file.path()).unwrap();
    for refused in [file.read(), file.read_or_make()] {
        assert!(matches!(refused, Err(KeyFileFault::NoFile { .. })));
    }
    fs::remove_dir(file.path()).unwrap();
    symlink("/dev/zero", file.path()).unwrap();
    assert!(matches!(file.read(), Err(KeyFileFault::NoFile { .. })));
    let below = SecretKeyFile::new(folder.path().join("no-folder").join(KEY_FILE));
    let refused = below.read_or_make().unwrap_err();
    assert!(matches!(&refused, KeyFileFault::Io { action: "written", .. }), "{refused}");
}

/// As platforms mount secrets.
#[test]
fn a_link_leads_to_the_file_whose_mode_counts() {
    let (folder, file) = empty();
    let made = file.read_or_make().unwrap();
    let link = SecretKeyFile::new(folder.path().join("link"));
    symlink(file.path(), link.path()).unwrap();
    assert_eq!(link.read().unwrap(), made);
    set_mode(file.path(), 0o644);
    assert!(matches!(link.read(), Err(KeyFileFault::OpenToOthers { mode: 0o644, .. })));
}

#[test]
fn a_node_takes_over_the_keys_of_its_cluster_and_keeps_its_own() {
    let (_folder, file) = empty();
    let of_cluster = SecretKeys::draw();
    assert_eq!(file.add(&of_cluster).unwrap(), of_cluster, "a node without a file gets one");
    assert_eq!((file.read().unwrap(), mode(file.path())), (of_cluster.clone(), 0o600));
    let of_another = SecretKeys::draw();
    let both = file.add(&of_another).unwrap();
    assert!(both.ids().eq([of_another.sealing(), of_cluster.sealing()]));
    assert_eq!(file.read().unwrap(), both);
    let written = fs::metadata(file.path()).unwrap().modified().unwrap();
    assert_eq!(file.add(&of_another).unwrap(), both, "what it has is not written again");
    assert_eq!(fs::metadata(file.path()).unwrap().modified().unwrap(), written);
}

#[test]
fn a_key_is_changed_and_the_old_one_forgotten() {
    let (_folder, file) = empty();
    assert!(matches!(file.rotate(), Err(KeyFileFault::Missing { .. })), "there is nothing to change");
    let old = file.read_or_make().unwrap().sealing();
    let both = file.rotate().unwrap();
    assert!(both.ids().eq([both.sealing(), old]) && both.sealing() != old);
    assert_eq!(file.read().unwrap(), both);
    let refused = file.forget(both.sealing());
    assert!(matches!(refused, Err(KeyFileFault::Refused(KeyChangeRefused::Seals(_)))));
    let new = file.forget(old).unwrap();
    assert_eq!((new.ids().count(), file.read().unwrap()), (1, new));
    assert!(matches!(file.forget(old), Err(KeyFileFault::Refused(KeyChangeRefused::Unknown(_)))));
}

#[test]
fn what_a_crash_left_beside_it_harms_nothing_and_lets_nobody_else_read_the_next() {
    let (folder, file) = empty();
    let beside = folder.path().join(format!("{KEY_FILE}.new"));
    fs::write(&beside, "half of a file").unwrap();
    set_mode(&beside, 0o666);
    let made = file.read_or_make().unwrap();
    assert_eq!((mode(file.path()), file.read().unwrap()), (0o600, made.clone()));
    assert_eq!(names(&folder), [KEY_FILE]);
    // What cannot be written leaves the keys that there are.
    fs::create_dir(&beside).unwrap();
    assert!(matches!(file.rotate(), Err(KeyFileFault::Io { action: "written", .. })));
    assert_eq!(file.read().unwrap(), made);
}

#[test]
fn whoever_makes_the_file_at_the_same_time_gets_the_same_key() {
    let (_folder, file) = empty();
    let made: Vec<SecretKeys> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..8).map(|_| scope.spawn(|| file.read_or_make().unwrap())).collect();
        makers.into_iter().map(|maker| maker.join().unwrap()).collect()
    });
    assert!(made.iter().all(|keys| *keys == made[0]));
    assert_eq!(file.read().unwrap(), made[0]);
}
