//! The data folder: what a start takes for a shard's, what it makes, and what it goes on with.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use vouch_commitlog::SEGMENT_HEADER_LEN;
use vouch_storage::{StartError, StartProgress, StartStep, StorageConfig, backup, check_start, in_use};

use crate::common::{
    PATIENCE, SEGMENT, Shard, config, files, log_folder, open, refused, segment, snapshot_folder, still_has,
};

/// A stopped shard's folder with a message in its log.
fn with_a_message(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    let mut shard = Shard::start(&data);
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.send(topic, "kept", 10);
    shard.stop();
    data
}

fn still_has_its_message(data: &Path) {
    still_has(data, &["kept".to_owned()]);
}

fn of_size(data: &Path, segment_size: u64) -> StorageConfig {
    StorageConfig { segment_size: Some(segment_size), ..config(data) }
}

/// As a start leaves it that cannot write the first entry.
fn without_an_entry(data: &Path) {
    let opened = open(&of_size(data, 2 * SEGMENT)).unwrap();
    assert_eq!(opened.segment_size, 2 * SEGMENT);
    drop(opened);
    assert!(data.join("identity.part").exists() && !data.join("identity.json").exists());
    assert_eq!(fs::metadata(segment(data, 0)).unwrap().len(), 2 * SEGMENT);
}

#[test]
fn a_folder_whose_log_is_not_there_is_refused_and_what_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = with_a_message(folder.path());
    let away = folder.path().join("away");
    for moved in ["shards", "shards/0", "shards/0/log"] {
        fs::rename(data.join(moved), &away).unwrap();
        let error = refused(&config(&data));
        let named = matches!(&error, StartError::LogMissing { missing, .. } if *missing == data.join(moved));
        assert!(named && error.to_string().contains("is missing") && error.to_string().contains("mount"), "{error}");
        assert!(!data.join(moved).exists(), "nothing is made where a volume belongs");
        fs::rename(&away, data.join(moved)).unwrap();
    }
    // The folder that a volume is mounted on, with what every file system has.
    fs::rename(log_folder(&data), &away).unwrap();
    fs::create_dir_all(log_folder(&data).join("lost+found")).unwrap();
    let error = refused(&config(&data)).to_string();
    assert!(error.contains("shards/0/log holds no segment of a log") && error.contains("restore"), "{error}");
    fs::remove_dir_all(log_folder(&data)).unwrap();
    fs::rename(&away, log_folder(&data)).unwrap();
    still_has_its_message(&data);
}

#[test]
fn a_first_start_that_was_interrupted_is_begun_again_and_never_over_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (identity, part) = (data.join("identity.json"), data.join("identity.part"));
    // Before the log: the identity may be torn.
    for torn in ["", r#"{"cluster_id": "00000"#] {
        fs::create_dir_all(&data).unwrap();
        fs::write(&part, torn).unwrap();
        Shard::start(&data).stop();
        assert!(identity.exists() && !part.exists());
        fs::remove_dir_all(&data).unwrap();
    }
    // While the log was made: the folder of the log cannot be, so the identity has no name yet.
    fs::create_dir_all(data.join("shards/0")).unwrap();
    std::os::unix::fs::symlink("nowhere/at/all", log_folder(&data)).unwrap();
    refused(&config(&data));
    assert!(part.exists() && !identity.exists(), "no log was made");
    fs::remove_file(log_folder(&data)).unwrap();
    // A smaller segment may be what helps.
    Shard::start_with(&of_size(&data, 2 * SEGMENT)).unwrap().stop();
    fs::remove_dir_all(&data).unwrap();

    // Behind the first records: the same log goes on, whatever is in it.
    let data = with_a_message(folder.path());
    let cluster = fs::read(&identity).unwrap();
    fs::rename(&identity, &part).unwrap();
    let error = refused(&of_size(&data, 2 * SEGMENT));
    assert!(matches!(error, StartError::SegmentSize { made_with: SEGMENT, .. }), "{error}");
    still_has_its_message(&data);
    assert!(fs::read(&identity).unwrap() == cluster && !part.exists());

    // Neither tells whose log it is: nothing is made anew.
    fs::rename(&identity, folder.path().join("identity")).unwrap();
    let error = refused(&config(&data)).to_string();
    assert!(error.contains("the folder holds a log"), "{error}");
    fs::write(&part, "torn").unwrap();
    let error = refused(&config(&data)).to_string();
    assert!(error.contains("identity.part cannot be read"), "{error}");
    fs::remove_file(&part).unwrap();
    // Nor beside snapshots of a log that is gone.
    let snapshot = snapshot_folder(&data).join(format!("{:020}.snapshot", 1));
    fs::write(&snapshot, "").unwrap();
    fs::rename(log_folder(&data), folder.path().join("log")).unwrap();
    refused(&config(&data));
    fs::copy(folder.path().join("identity"), &part).unwrap();
    let error = refused(&config(&data)).to_string();
    assert!(error.contains("holds snapshots"), "{error}");
    assert!(!identity.exists() && !log_folder(&data).exists());

    fs::remove_file(snapshot).unwrap();
    fs::rename(folder.path().join("log"), log_folder(&data)).unwrap();
    still_has_its_message(&data);
}

/// A disk that is nearly full takes the folder and the segment, which is sparse, and not the first entry. Whoever begins again
/// with smaller segments, which need less, must not be told to leave the setting out.
#[test]
fn what_a_start_left_that_could_not_write_its_first_entry_is_finished_or_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let part = data.join("identity.part");
    // With the same setting, or none, the same folder is finished.
    for setting in [Some(2 * SEGMENT), None] {
        without_an_entry(&data);
        let begun = fs::read(&part).unwrap();
        let settings = StorageConfig { segment_size: setting, ..config(&data) };
        check_start(&settings).unwrap();
        Shard::start_with(&settings).unwrap().stop();
        assert!(fs::read(data.join("identity.json")).unwrap() == begun, "it is the same cluster");
        fs::remove_dir_all(&data).unwrap();
    }
    // With another one it is new, and so it is where nobody knows any more how it was begun.
    for torn in [false, true] {
        without_an_entry(&data);
        if torn {
            fs::write(&part, "{").unwrap();
        }
        let before = files(&data);
        check_start(&config(&data)).unwrap();
        assert_eq!(files(&data), before, "a look changes nothing");
        let mut shard = Shard::start(&data);
        let topic = shard.topic("t", r#"{"queues": 1}"#);
        shard.send(topic, "kept", 10);
        shard.stop();
        assert_eq!(fs::metadata(segment(&data, 0)).unwrap().len(), SEGMENT);
        still_has_its_message(&data);
        fs::remove_dir_all(&data).unwrap();
    }
}

#[test]
fn whatever_lies_in_the_log_of_a_start_that_failed_is_kept_however_little_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for at in [SEGMENT_HEADER_LEN, SEGMENT, 2 * SEGMENT - 1] {
        without_an_entry(&data);
        let file = File::options().write(true).open(segment(&data, 0)).unwrap();
        file.write_all_at(&[1], at).unwrap();
        let error = refused(&config(&data));
        assert!(matches!(error, StartError::SegmentSize { .. }), "byte {at}: {error}");
        fs::write(data.join("identity.part"), "torn").unwrap();
        let error = refused(&config(&data)).to_string();
        assert!(error.contains("identity.part cannot be read"), "byte {at}: {error}");
        assert!(segment(&data, 0).exists(), "byte {at}");
        fs::remove_dir_all(&data).unwrap();
    }
    // A second segment, a snapshot, a link: more than such a start leaves.
    type Leave = fn(&Path);
    let more: [(&str, Leave); 3] = [
        ("a segment", |data| fs::write(segment(data, 2 * SEGMENT), vec![1; 8192]).unwrap()),
        ("a snapshot", |data| fs::write(snapshot_folder(data).join("00000000000000000001.part"), "").unwrap()),
        ("a link", |data| {
            fs::rename(segment(data, 0), data.join("elsewhere")).unwrap();
            std::os::unix::fs::symlink(data.join("elsewhere"), segment(data, 0)).unwrap();
        }),
    ];
    for (what, leave) in more {
        without_an_entry(&data);
        leave(&data);
        let error = refused(&config(&data));
        assert!(matches!(error, StartError::SegmentSize { .. }), "{what}: {error}");
        assert!(segment(&data, 0).exists(), "{what}");
        fs::remove_dir_all(&data).unwrap();
    }
    // With an identity that has its name there was an entry once.
    without_an_entry(&data);
    fs::rename(data.join("identity.part"), data.join("identity.json")).unwrap();
    let error = refused(&config(&data));
    assert!(matches!(error, StartError::SegmentSize { .. }), "{error}");
}

/// A crash between the two steps of making it anew.
#[test]
fn a_log_that_was_taken_back_before_the_identity_was_written_anew_is_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    without_an_entry(&data);
    fs::remove_file(segment(&data, 0)).unwrap();
    Shard::start(&data).stop();
    assert_eq!(fs::metadata(segment(&data, 0)).unwrap().len(), SEGMENT);
}

#[test]
fn a_setting_that_no_log_can_have_leaves_no_folder_behind() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for settings in [of_size(&data, 5), StorageConfig { syncs_in_flight: 99, ..config(&data) }] {
        refused(&settings);
        assert!(check_start(&settings).is_err());
    }
    assert!(!data.exists());
}

#[test]
fn a_limit_that_the_log_would_reach_at_once_is_refused_and_says_the_least() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let limited = |limit| StorageConfig { disk_limit: Some(limit), ..config(&data) };
    // Four segments below the mark of 90 %.
    let enough = 4 * SEGMENT * 100 / 90;
    for settings in [limited(enough - 1), limited(0)] {
        let StartError::DiskLimit { least, segment_size, .. } = check_start(&settings).unwrap_err() else {
            panic!("another error")
        };
        assert_eq!((least, segment_size), (enough, SEGMENT));
        assert!(matches!(refused(&settings), StartError::DiskLimit { .. }));
    }
    // What was refused is no obstacle.
    check_start(&limited(enough)).unwrap();
    Shard::start_with(&limited(enough)).unwrap().stop();
    // In a folder that is there its own segments count, not the setting that is left out.
    let unsaid = StorageConfig { segment_size: None, ..limited(enough) };
    check_start(&unsaid).unwrap();
    Shard::start_with(&unsaid).unwrap().stop();
}

#[test]
fn a_log_of_a_newer_version_is_refused_by_name_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let Some(mut opened) = open(&config(&data)).ok() else { panic!("it opens") };
    let vouch_storage::OpenedLog::Whole { appender: mut log, .. } = opened.log else { panic!("it is whole") };
    let mut records = Vec::new();
    vouch_broker::record::ClusterInit {
        cluster_id: opened.folders.cluster_id().unwrap(),
        segment_size: SEGMENT,
        handle_key: [1; 32],
        feature_level: vouch_broker::record::FEATURE_LEVEL + 1,
        written_by: "9.9.9".to_owned(),
    }
    .encode(&mut records);
    let kind = vouch_commitlog::EntryKind::Records;
    let header = vouch_commitlog::EntryHeader { term: 1, index: 1, leader_time_ms: 1, kind };
    log.append(header, &[&records]).unwrap();
    log.close().unwrap();
    opened.folders.begun().unwrap();
    drop(opened.folders);
    let before = files(&data);
    let error = refused(&config(&data));
    assert!(
        matches!(&error, StartError::FeatureLevel { found: 3, knows: 2, version } if version == "9.9.9"),
        "{error}"
    );
    assert!(error.to_string().contains("start a newer version"), "{error}");
    assert_eq!(files(&data), before);
}

#[test]
fn a_folder_that_is_somebody_elses_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("home");
    fs::create_dir(&theirs).unwrap();
    fs::set_permissions(&theirs, Permissions::from_mode(0o755)).unwrap();
    fs::write(theirs.join("thesis.odt"), "").unwrap();
    let error = refused(&config(&theirs)).to_string();
    assert!(error.contains("holds thesis.odt"), "{error}");
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), 1);
    assert_eq!(fs::metadata(&theirs).unwrap().permissions().mode() & 0o777, 0o755);

    let (data, target) = (with_a_message(folder.path()), folder.path().join("backup"));
    backup(&data, &target, &mut |_| ()).unwrap();
    let error = refused(&config(&target)).to_string();
    assert!(error.contains("is a backup") && error.contains("vouch restore"), "{error}");
    // One that was cut short is none that can be restored, and no node's folder either.
    fs::rename(target.join("backup.json"), target.join("backup.unfinished")).unwrap();
    assert!(matches!(refused(&config(&target)), StartError::IsBackup(_)));
}

#[test]
fn a_log_of_another_cluster_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let data = with_a_message(folder.path());
    let other = folder.path().join("other");
    Shard::start(&other).stop();
    // Somebody mixed the files of two folders.
    fs::copy(other.join("identity.json"), data.join("identity.json")).unwrap();
    let error = refused(&config(&data)).to_string();
    assert!(error.contains("cluster"), "{error}");
    fs::write(data.join("identity.json"), r#"{"cluster_id": "none", "segment_size": 4194304}"#).unwrap();
    for error in [refused(&config(&data)), check_start(&config(&data)).unwrap_err()] {
        assert!(matches!(&error, StartError::Identity { why, .. } if why.contains("cluster_id")), "{error}");
    }
    fs::write(data.join("identity.json"), r#"{"cluster_id": "0", "segment_size": 4194304, "more": 1}"#).unwrap();
    let error = refused(&config(&data)).to_string();
    assert!(error.contains("identity.json cannot be read"), "{error}");
}

#[test]
fn a_folder_whose_segments_have_other_names_is_refused_until_they_have_none() {
    let folder = tempfile::tempdir().unwrap();
    let data = with_a_message(folder.path());
    let copy = folder.path().join("copy");
    let linked = std::process::Command::new("cp").arg("-al").args([&data, &copy]).status().unwrap();
    assert!(linked.success());
    // Whichever is served would change the other.
    for shared in [&copy, &data] {
        for error in [refused(&config(shared)), check_start(&config(shared)).unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains("hard link") && error.contains(".log"), "{error}");
        }
    }
    fs::remove_dir_all(&copy).unwrap();
    still_has_its_message(&data);
}

#[test]
fn two_data_folders_that_share_a_log_serve_it_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let data = with_a_message(folder.path());
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::copy(data.join("identity.json"), other.join("identity.json")).unwrap();
    std::os::unix::fs::symlink(data.join("shards"), other.join("shards")).unwrap();
    let shard = Shard::start(&data);
    let error = refused(&config(&other)).to_string();
    assert!(error.contains("shards/0/log is in use"), "{error}");
    shard.stop();
    still_has_its_message(&other);
}

#[test]
fn a_shard_that_runs_keeps_others_out_and_one_that_ended_or_failed_keeps_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let data = with_a_message(folder.path());
    let shard = Shard::start(&data);
    assert!(matches!(refused(&config(&data)), StartError::Locked { .. }));
    assert!(in_use(&data).is_some());
    // Who only wants to know whether a start could be is not refused for that.
    check_start(&config(&data)).unwrap();
    shard.kill();
    assert!(in_use(&data).is_none());
    // A start that is refused after it took the folder lets go of it.
    refused(&of_size(&data, 2 * SEGMENT));
    assert!(in_use(&data).is_none());
    still_has_its_message(&data);
}

#[test]
fn a_start_waits_for_a_tool_that_needs_the_folder_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let data = with_a_message(folder.path());
    for held in [data.clone(), data.join("lock")] {
        let tool = File::open(held).unwrap();
        tool.lock_shared().unwrap();
        let progress = StartProgress::default();
        std::thread::scope(|scope| {
            let starting = scope.spawn(|| vouch_storage::open(&config(&data), &|_| (), &progress).map(drop));
            let began = std::time::Instant::now();
            while !matches!(progress.step(), StartStep::Waiting { .. }) {
                assert!(began.elapsed() < PATIENCE, "it does not wait");
                std::thread::yield_now();
            }
            assert!(!starting.is_finished());
            drop(tool);
            starting.join().unwrap().unwrap();
        });
    }
    still_has_its_message(&data);
}

#[test]
fn nobody_but_the_owner_reads_what_lies_in_the_folder_nor_what_an_earlier_version_left_open() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("above/data");
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    let private = || {
        let folders =
            [data.clone(), data.join("shards"), data.join("shards/0"), log_folder(&data), snapshot_folder(&data)];
        for path in files(&data).into_iter().chain(folders) {
            assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
        }
    };
    let mut shard = Shard::start(&data);
    let topic = shard.topic("t", r#"{"queues": 1}"#);
    shard.fill(topic, 0..2);
    shard.snapshot();
    private();
    shard.stop();
    for path in files(&data).into_iter().chain([log_folder(&data), data.join("shards"), data.clone()]) {
        fs::set_permissions(&path, Permissions::from_mode(mode(&path) | 0o044)).unwrap();
    }
    let shard = Shard::start(&data);
    private();
    shard.stop();
}
