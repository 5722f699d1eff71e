//! Each of these mistakes is made once on purpose: the suites above would not let it pass.

use super::bit_flips;
use super::cutting;
use super::driver::{Run, config, open};
use super::faults;
use super::power_cuts::violation;
use super::recycled;
use super::release;
use super::rot;
use super::settled;
use crate::EntryKind;
use crate::bugs::{self, Bug};
use crate::simulated::{Image, Rng};

fn faults_catch(bug: &Bug) {
    let caught = bug.during(|| (0..500).find_map(faults::violation));
    println!("{}", caught.expect("the faults catch it"));
}

fn power_cuts_catch(bug: &Bug) {
    let caught = bug.during(|| (0..200).find_map(violation));
    println!("{}", caught.expect("the power cuts catch it"));
}

#[test]
fn an_ack_before_the_sync() {
    power_cuts_catch(&bugs::ACK_BEFORE_SYNC);
}

#[test]
fn a_kept_group_behind_a_lost_one_taken_for_damage() {
    power_cuts_catch(&bugs::LOST_GROUP_IS_DAMAGE);
}

#[test]
fn a_tail_that_is_served_without_a_sync() {
    power_cuts_catch(&bugs::TAIL_NOT_SYNCED);
}

#[test]
fn a_cut_that_is_not_durable() {
    power_cuts_catch(&bugs::CUT_NOT_SYNCED);
}

#[test]
fn a_segment_whose_name_is_not_durable() {
    power_cuts_catch(&bugs::DIRECTORY_NOT_SYNCED);
}

#[test]
fn old_bytes_of_a_recycled_segment_taken_for_the_tail_of_the_log() {
    power_cuts_catch(&bugs::OLD_BYTES_TAKEN_FOR_TAIL);
}

#[test]
fn old_entries_of_a_recycled_segment_taken_for_kept_ones() {
    power_cuts_catch(&bugs::POSITION_IGNORED);
}

#[test]
fn a_recycled_segment_that_is_written_beyond_a_horizon_that_is_not_durable() {
    power_cuts_catch(&bugs::HORIZON_NOT_SYNCED);
}

#[test]
fn a_spare_file_that_holds_entries_of_positions_to_come() {
    let caught = bugs::SPARE_FROM_AHEAD_USED.during(recycled::put_back_beside_spares_from_ahead);
    println!("{}", caught.expect_err("going on beside spares from ahead catches it"));
}

#[test]
fn a_recycled_file_that_gets_its_name_before_its_header_is_durable() {
    power_cuts_catch(&bugs::RECYCLED_BEFORE_SYNC);
}

#[test]
fn a_released_file_that_is_written_on_before_its_removal_is_durable() {
    power_cuts_catch(&bugs::RECYCLED_BEFORE_RELEASED);
}

#[test]
fn old_entries_of_a_recycled_segment_taken_for_new_ones() {
    let caught = bugs::POSITION_IGNORED.during(recycled::stale_entries_served);
    println!("{}", caught.expect("the releases catch it"));
}

#[test]
fn a_file_that_is_used_again_while_a_reader_holds_it() {
    let caught = bugs::RECYCLED_WHILE_READ.during(release::bytes_changed_under_a_reader);
    println!("{}", caught.expect("the releases catch it"));
}

#[test]
fn bytes_that_may_be_cut_off_handed_out_without_a_copy() {
    let caught = bugs::UNSETTLED_BYTES_SHARED.during(settled::bytes_changed_above_the_durable_position);
    println!("{}", caught.expect("an overwrite above the durable position catches it"));
}

#[test]
fn a_suffix_that_is_forgotten_and_not_cut_off() {
    power_cuts_catch(&bugs::SUFFIX_NOT_CUT);
    let caught = bugs::SUFFIX_NOT_CUT.during(|| (0..60).find_map(cutting::torn_cut));
    println!("{}", caught.expect("power cuts during a cut catch it"));
}

#[test]
fn a_cut_that_takes_one_entry_too_many() {
    power_cuts_catch(&bugs::CUT_OFF_BY_ONE);
    let caught = bugs::CUT_OFF_BY_ONE.during(|| (0..60).find_map(cutting::torn_cut));
    println!("{}", caught.expect("power cuts during a cut catch it"));
}

#[test]
fn a_sync_of_before_a_cut_that_counts_after_it() {
    power_cuts_catch(&bugs::SYNC_OF_BEFORE_THE_CUT_COUNTED);
    let caught = bugs::SYNC_OF_BEFORE_THE_CUT_COUNTED.during(cutting::sync_of_before_counted);
    println!("{}", caught.expect("a sync over a cut catches it"));
}

#[test]
fn a_segment_that_was_cut_off_and_becomes_a_spare() {
    let caught = bugs::CUT_SEGMENT_KEPT.during(cutting::cut_segment_comes_again);
    println!("{}", caught.expect("going on behind a cut catches it"));
}

/// Entries that others wrote state what was durable on the disks of these.
#[test]
fn marks_that_are_trusted_in_the_log_of_a_replica() {
    power_cuts_catch(&bugs::MARKS_OF_OTHERS_TRUSTED);
}

#[test]
fn a_second_sync_after_a_failed_one() {
    faults_catch(&bugs::SYNC_AGAIN_AFTER_ERROR);
}

#[test]
fn new_blocks_that_are_synced_once() {
    faults_catch(&bugs::NEW_BLOCKS_SYNCED_ONCE);
}

#[test]
fn a_success_that_counts_although_an_overlapping_sync_got_the_error() {
    faults_catch(&bugs::SHARED_SYNC_DESCRIPTION);
}

#[test]
fn clean_pages_taken_for_durable_after_a_fault() {
    faults_catch(&bugs::CLEAN_PAGES_TRUSTED);
}

#[test]
fn entries_that_do_not_say_what_was_durable() {
    let caught = bugs::NO_DURABLE_MARK.during(|| bit_flips::violation(7));
    println!("{}", caught.expect("the bit flips catch it"));
}

#[test]
fn damage_below_the_mark_taken_for_a_torn_tail() {
    let caught = bugs::DAMAGE_TAKEN_FOR_TAIL.during(|| bit_flips::violation(11));
    println!("{}", caught.expect("the bit flips catch it"));
}

#[test]
fn entries_read_without_a_look_at_their_checksums() {
    assert!(!rot::turned_entry_is_read());
    assert!(bugs::READ_UNVERIFIED.during(rot::turned_entry_is_read));
}

#[test]
fn one_copy_of_a_note_read() {
    assert_eq!(rot::note_with_a_turned_copy(), Some(b"second".to_vec()));
    assert_eq!(bugs::NOTE_READ_ONCE.during(rot::note_with_a_turned_copy), Some(b"first".to_vec()));
}

/// Old bytes of a file that is used again must not pass for new ones.
fn entries_of_a_reused_segment() -> usize {
    let mut run = Run::new(Image::new(), Rng::new(3));
    while run.log.appender.appended().0 < config().segment_size + 6000 {
        run.append(EntryKind::Records, 700).unwrap();
    }
    run.settle();
    let first = |entry: &&super::driver::Submitted| entry.entry.position.0 > config().segment_size;
    assert!(run.submitted.iter().any(|entry| first(&entry)));
    let mut image = run.log.disk.image();
    let old = image["00000000000000000000.log"].clone();
    // The second segment, as if it were the first one's file with a new header and nothing appended yet.
    let reused = image.get_mut("00000000000000016384.log").unwrap();
    reused[4096..].copy_from_slice(&old[4096..]);
    // Retention removed the first, so that nothing tells which checksum the second must continue.
    image.remove("00000000000000000000.log");
    open(image).unwrap().entries.len()
}

#[test]
fn old_bytes_of_a_reused_segment_taken_for_new() {
    assert_eq!(entries_of_a_reused_segment(), 0);
    assert!(bugs::POSITION_IGNORED.during(entries_of_a_reused_segment) > 0);
}
