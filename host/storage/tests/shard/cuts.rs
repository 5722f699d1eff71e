//! A crash at each step of what writes files: whatever it leaves, the next start reads everything and tidies up.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use vouch_storage::{backup, check_backup, last_backup_ms, verify_snapshots};

use crate::common::{
    Shard, config, copy_tree, files, flip, ids, named, number, open, refused, scrubbed_once, snapshot_folder, stopped,
};

/// Names and bytes of the files of the snapshots, without room that is set aside.
fn stored(data: &Path) -> BTreeMap<String, Vec<u8>> {
    let all = files(&snapshot_folder(data)).into_iter();
    let all = all.filter(|path| path.extension().is_none_or(|extension| extension != "room"));
    all.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())).collect()
}

/// Puts exactly these files into the folder of the snapshots.
fn put(data: &Path, files: &BTreeMap<String, Vec<u8>>) {
    fs::remove_dir_all(snapshot_folder(data)).unwrap();
    fs::create_dir(snapshot_folder(data)).unwrap();
    for (name, bytes) in files {
        fs::write(snapshot_folder(data).join(name), bytes).unwrap();
    }
}

/// What lies in the folder after each step of writing a file twice: both copies are written beside, get their names one after
/// the other.
fn steps_of_writing(before: &BTreeMap<String, Vec<u8>>, name: &str, bytes: &[u8]) -> Vec<BTreeMap<String, Vec<u8>>> {
    let (first, second) = (name.to_owned(), format!("{name}2"));
    let beside = |name: &str| format!("{name}.unfinished");
    let with = |added: &[(String, &[u8])]| {
        let mut files = before.clone();
        files.extend(added.iter().map(|(name, bytes)| (name.clone(), bytes.to_vec())));
        files
    };
    let half = &bytes[..bytes.len() / 2];
    vec![
        with(&[(beside(&first), b"")]),
        with(&[(beside(&first), half), (beside(&second), b"")]),
        with(&[(beside(&first), bytes), (beside(&second), half)]),
        with(&[(beside(&first), bytes), (beside(&second), bytes)]),
        with(&[(first.clone(), bytes), (beside(&second), bytes)]),
        with(&[(first, bytes), (second, bytes)]),
    ]
}

#[test]
fn a_cut_at_any_step_of_a_snapshot_leaves_one_that_a_start_goes_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut shard = Shard::start(&data);
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    let mut kept = Vec::new();
    for n in 0..3 {
        shard.fill(topic, n..n + 1);
        shard.snapshot();
        kept.push(stored(&data));
    }
    shard.fill(topic, 3..4);
    shard.kill();
    // The folder after each step from the second snapshot to the third: its part, itself, and what goes of the first one.
    let mut steps = vec![kept[1].clone()];
    for extension in ["part", "snapshot"] {
        let is_new = |name: &&String| !kept[1].contains_key(*name) && name.ends_with(&format!(".{extension}"));
        let new = kept[2].keys().find(is_new).unwrap();
        let before = steps.last().unwrap().clone();
        steps.extend(steps_of_writing(&before, new, &kept[2][new]));
    }
    let gone: Vec<_> = kept[1].keys().filter(|name| !kept[2].contains_key(*name)).rev().cloned().collect();
    assert_eq!(gone.len(), 2, "both copies of the first snapshot, the second one first: {gone:?}");
    for name in gone {
        let mut files = steps.last().unwrap().clone();
        files.remove(&name);
        steps.push(files);
    }
    assert!(steps.last() == Some(&kept[2]), "this is what it ends with");

    let positions = |files: &BTreeMap<String, Vec<u8>>| {
        let whole = files.keys().filter(|name| name.ends_with(".snapshot"));
        whole.map(|name| number(Path::new(name))).max().unwrap()
    };
    for (step, files) in steps.iter().enumerate() {
        let copy = folder.path().join(format!("step{step}"));
        copy_tree(&data, &copy);
        put(&copy, files);
        let found = verify_snapshots(&copy, vouch_commitlog::LogPosition(0), &mut |_| ()).unwrap();
        assert!(found.damage.is_empty(), "step {step}: what a crash leaves is no damage: {found:?}");
        let mut shard = Shard::start(&copy);
        assert_eq!((shard.snapshot, shard.passed_over), (positions(files), false), "step {step}");
        assert_eq!(shard.listed("t"), ids(0..4), "step {step}");
        // The next one is made as ever, and leaves two snapshots, with a second copy of everything.
        shard.fill(topic, 4..5);
        shard.snapshot();
        assert_eq!(named(&copy, "snapshot").len(), 2, "step {step}");
        scrubbed_once(&shard, &copy);
        assert!(stored(&copy).keys().all(|name| !name.ends_with("unfinished")), "step {step}");
        let found = verify_snapshots(&copy, vouch_commitlog::LogPosition(0), &mut |_| ()).unwrap();
        assert!(found.damage.is_empty() && found.to_be_made.is_empty(), "step {step}: {found:?}");
        shard.kill();
    }
}

/// The steps in which the note of a backup is replaced.
#[test]
fn a_cut_while_a_backup_is_noted_leaves_the_note_of_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path());
    assert_eq!(last_backup_ms(&data), None);
    let first = backup(&data, &folder.path().join("first"), &mut |_| ()).unwrap();
    assert_eq!(last_backup_ms(&data), Some(first.made_at_ms));
    let beside = data.join("last-backup.json.new");
    let mut noted = first.made_at_ms;
    for half in ["", "{\"made_at_ms\":", "{\"made_at_ms\":1}"] {
        fs::write(&beside, half).unwrap();
        assert_eq!(last_backup_ms(&data), Some(noted), "{half}");
        Shard::start(&data).stop();
        let next = folder.path().join(format!("next{}", half.len()));
        let taken = backup(&data, &next, &mut |_| ()).unwrap();
        noted = taken.made_at_ms;
        assert_eq!(last_backup_ms(&data), Some(noted), "{half}");
        assert!(!beside.exists(), "{half}");
    }
    fs::write(data.join("last-backup.json"), "yesterday").unwrap();
    assert_eq!(last_backup_ms(&data), None, "what cannot be read says nothing");
}

/// A folder that a backup was cut short in.
#[test]
fn a_cut_at_any_step_of_a_backup_leaves_what_neither_a_node_nor_a_restore_takes() {
    let folder = tempfile::tempdir().unwrap();
    let (data, whole) = (stopped(folder.path()), folder.path().join("whole"));
    backup(&data, &whole, &mut |_| ()).unwrap();
    let manifest = fs::read(whole.join("backup.json")).unwrap();
    let mut all: Vec<PathBuf> = files(&whole).into_iter().filter(|file| !file.ends_with("backup.json")).collect();
    all.push(PathBuf::from("half a manifest"));
    for step in 0..all.len() {
        let cut = folder.path().join(format!("cut{step}"));
        fs::create_dir(&cut).unwrap();
        fs::write(cut.join("backup.unfinished"), "").unwrap();
        for file in &all[..step] {
            let to = cut.join(file.strip_prefix(&whole).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(file, to).unwrap();
        }
        if step + 1 == all.len() {
            fs::write(cut.join("backup.json.new"), &manifest[..manifest.len() / 2]).unwrap();
        }
        let before = files(&cut);
        assert!(refused(&config(&cut)).to_string().contains("is a backup, or one that was cut short"), "step {step}");
        assert!(check_backup(&cut, &mut |_| ()).unwrap_err().to_string().contains("is no backup"), "step {step}");
        let again = backup(&data, &cut, &mut |_| ()).unwrap_err();
        assert!(again.to_string().contains("is not empty"), "step {step}: {again}");
        assert_eq!(files(&cut), before, "step {step}");
    }
    // The last step of all: it is a backup already, and what says that it is to be one is still there.
    fs::write(whole.join("backup.unfinished"), "").unwrap();
    check_backup(&whole, &mut |_| ()).unwrap();
    assert!(refused(&config(&whole)).to_string().contains("is a backup"));
}

/// The scrubber's place is not synced: a power cut may leave any of this.
#[test]
fn a_cut_while_the_scrubber_notes_its_place_costs_a_round_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let data = stopped(folder.path());
    let place = data.join("shards/0/scrub");
    for (kept, beside) in [("", None), ("\0\0\0\0", None), ("8388608", Some("")), ("5", Some("4194304"))] {
        fs::write(&place, kept).unwrap();
        if let Some(beside) = beside {
            fs::write(place.with_extension("new"), beside).unwrap();
        }
        let shard = Shard::start(&data);
        let report = scrubbed_once(&shard, &data);
        assert_eq!(report.found().len(), 0, "{kept:?}, {beside:?}");
        shard.kill();
        assert!(fs::read_to_string(&place).unwrap().parse::<u64>().is_ok(), "{kept:?}, {beside:?}");
        assert!(!place.with_extension("new").exists(), "{kept:?}, {beside:?}");
    }
}

/// A power cut may take the end of a log back to what was synced, and leave any bytes behind it.
#[test]
fn a_torn_end_of_the_log_is_cut_where_no_entry_was_durable_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut shard = Shard::start(&data);
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.fill(topic, 0..4);
    let last = shard.send(topic, "m004", 1000);
    shard.kill();
    // No mark covers the last entry, so whether it was durable nobody knows.
    flip(&crate::common::segment(&data, 0), last + 500);
    let shard = Shard::start(&data);
    let cut = shard.recovery.cut.as_ref().expect("the torn entry is cut");
    assert!(format!("{cut:?}").len() > 10 && !shard.recovery.clean);
    assert_eq!(shard.listed("t"), ids(0..4));
    shard.stop();
    // Now a mark covers it: the same damage would be damage.
    flip(&crate::common::segment(&data, 0), last - 1000);
    let error = refused(&config(&data)).to_string();
    assert!(error.contains("log verify"), "{error}");
    flip(&crate::common::segment(&data, 0), last - 1000);
    assert_eq!(open(&config(&data)).unwrap().state.topics().get(topic).unwrap().messages(), 4);
}
