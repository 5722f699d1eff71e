//! Mistakes made once on purpose, which the suites beside this file must not let pass. The log runs its own threads here,
//! so a mistake is switched on for a whole process of its own.

use std::process::Command;

fn caught(bug: &str, test: &str) -> String {
    let here = module_path!().split_once("::").expect("a crate and a path").1;
    let suites = here.rsplit_once("::").expect("this file has neighbours").0;
    // What the process keeps to show the violation goes with this folder.
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&format!("{suites}::{test}"), "--exact", "--ignored", "--nocapture"])
        .env(crate::bugs::IN_THIS_PROCESS, bug)
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{bug} passes:\n{}", String::from_utf8_lossy(&output.stdout));
    println!("{bug}: {said}");
    said
}

#[test]
#[ignore = "needs root and qemu-storage-daemon; tests/run sees to both"]
fn an_ack_before_the_sync() {
    let said = caught("ACK_BEFORE_SYNC", "cuts::acked_entries_survive_power_cuts_of_a_virtual_disk");
    assert!(said.contains("was acknowledged"), "{said}");
}

#[test]
#[ignore = "needs root and qemu-storage-daemon; tests/run sees to both"]
fn a_second_sync_after_a_failed_one() {
    let test = "failing::a_failed_request_of_a_virtual_disk_ends_the_log_and_takes_nothing_acked";
    let said = caught("SYNC_AGAIN_AFTER_ERROR", test);
    assert!(said.contains("DiskFault"), "{said}");
}
