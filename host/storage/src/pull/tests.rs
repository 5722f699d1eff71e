//! What a crash may leave of a pull, and what a stage keeps of what it has.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use vouch_broker::ShardId;

use super::take_place::{COMPLETE, ShardPlaces, finish, gathered, is_under_way, take_place};
use crate::layout::ShardFolder;

/// A shard's folder with a file that says what it is.
fn make(folder: &ShardFolder, what: &str) {
    fs::create_dir_all(folder.log()).unwrap();
    fs::write(folder.log().join("what"), what).unwrap();
}

fn what(folder: &ShardFolder) -> Option<String> {
    fs::read_to_string(folder.log().join("what")).ok()
}

fn complete(folder: &ShardFolder) {
    fs::write(folder.path().join(COMPLETE), "").unwrap();
}

/// Before the first rename, between the two, behind the second, and where what was moved away has nothing to follow it.
#[test]
fn whatever_a_crash_leaves_the_next_start_has_all_of_one_log_and_nothing_of_another() {
    type Step = fn(&ShardFolder, &Path);
    let away: Step = |here, before| fs::rename(here.path(), before).unwrap();
    let come: Step = |here, _| fs::rename(gathered(here).path(), here.path()).unwrap();
    let half_gone: Step = |_, before| fs::remove_file(before.join("log/what")).unwrap();
    let pictures: [(bool, &[Step], &str); 5] = [
        (true, &[], "old"),
        (true, &[away], "new"),
        (true, &[away, come], "new"),
        (true, &[away, come, half_gone], "new"),
        (false, &[away], "old"),
    ];
    for (is_complete, steps, expected) in pictures {
        let folder = tempfile::tempdir().unwrap();
        let here = ShardFolder::of(folder.path(), ShardId::FIRST);
        make(&here, "old");
        make(&gathered(&here), "new");
        if is_complete {
            complete(&gathered(&here));
        }
        let before = here.path().with_file_name("0.before");
        steps.iter().for_each(|step| step(&here, &before));
        assert!(is_under_way(&here));
        for _ in 0..2 {
            finish(&here).unwrap();
            assert_eq!(what(&here).as_deref(), Some(expected), "complete: {is_complete}, {} steps", steps.len());
            assert!(!before.exists());
        }
    }
}

#[test]
fn what_was_gathered_takes_the_place_of_all_that_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let here = ShardFolder::of(folder.path(), ShardId::FIRST);
    make(&here, "old");
    fs::write(here.path().join("scrub"), "old").unwrap();
    make(&gathered(&here), "new");
    complete(&gathered(&here));
    take_place(&mut ShardPlaces(&here)).unwrap();
    assert_eq!(what(&here).as_deref(), Some("new"));
    assert!(!is_under_way(&here) && !here.path().join("scrub").exists() && !here.path().join(COMPLETE).exists());
}

/// Two logs that share a segment are refused by a start; these two are one node's.
#[test]
fn a_segment_that_was_kept_under_a_second_name_has_one_again_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let here = ShardFolder::of(folder.path(), ShardId::FIRST);
    make(&here, "old");
    let gathered = gathered(&here);
    fs::create_dir_all(gathered.log()).unwrap();
    fs::hard_link(here.log().join("what"), gathered.log().join("what")).unwrap();
    fs::write(gathered.log().join("came"), "new").unwrap();
    finish(&here).unwrap();
    assert_eq!(fs::metadata(here.log().join("what")).unwrap().nlink(), 1);
    assert!(gathered.log().join("came").exists() && what(&gathered).is_none(), "what came from another node stays");
}
