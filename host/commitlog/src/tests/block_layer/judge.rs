//! What must be found after a power cut.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;

use super::medium::Medium;
use super::virtual_disk::{Mounted, Scratch, VirtualDisk};
use super::workload::{History, Submitted, config, copied};
use super::write_log::{Request, parse};
use crate::disk::RealDisk;
use crate::log::open_on;
use crate::simulated::{PowerLoss, Rng};
use crate::{Entry, LogPosition, OpenError, Recovery};

/// Images that are judged at a time.
const AT_ONCE: usize = 6;

/// What a start finds in a folder.
struct Found {
    recovery: Recovery,
    entries: Vec<Entry>,
}

fn recover(folder: &Path) -> Result<Found, String> {
    let say = |error: OpenError| format!("the log does not open: {error}");
    let disk = RealDisk::open(folder).map_err(|error| format!("the folder does not open: {error}"))?;
    let mut entries = Vec::new();
    let (appender, reader, recovery) = open_on(Arc::new(disk), &config(folder), Box::new(|_| ()), &mut |entry| {
        entries.push(copied(entry));
        Ok(())
    })
    .map_err(say)?;
    let read: Result<Vec<Entry>, _> = reader.entries_from(recovery.start).collect();
    if read.map_err(|error| error.to_string())? != entries {
        return Err("what is read is not what was handed over".to_owned());
    }
    drop(appender);
    Ok(Found { recovery, entries })
}

/// What was left of them in a log that begins at `start`.
fn left(submitted: &[Submitted], start: LogPosition) -> &[Submitted] {
    &submitted[submitted.iter().take_while(|submitted| submitted.entry.position < start).count()..]
}

/// The promise: everything acknowledged is there, nothing was invented, nothing changed places.
fn promise(history: &History, length: u64, found: &Found) -> Result<(), String> {
    let (start, entries) = (found.recovery.start, &found.entries);
    let (certain, most) = history.released(length);
    if !(certain..=most).contains(&start.0) {
        return Err(format!("it starts at {start}, and was released up to {certain} for certain, {most} at most"));
    }
    let submitted = left(&history.entries, start);
    for (number, entry) in entries.iter().enumerate() {
        match submitted.get(number) {
            Some(original) if original.entry != *entry => {
                return Err(format!(
                    "entry {} became entry {} at {}",
                    original.entry.index, entry.index, entry.position
                ));
            }
            Some(original) if original.written_at >= length => {
                return Err(format!("entry {} is from the future", entry.index));
            }
            Some(_) => {}
            None => return Err(format!("entry {} at {} was invented", entry.index, entry.position)),
        }
    }
    let durable = history.durable(length);
    match submitted.get(entries.len()) {
        Some(lost) if lost.entry.end.0 <= durable => Err(format!(
            "entry {} is lost: it ends at {}, and everything before {durable} was acknowledged",
            lost.entry.index, lost.entry.end
        )),
        _ => Ok(()),
    }
}

/// The machine starts after a power cut that left this image, at this length of the write log; the log recovers, and
/// again after another start.
fn judge(scratch: &Scratch, place: usize, history: &History, length: u64, image: &[u8]) -> Result<(), String> {
    let mounted = Mounted::image(scratch, place, image).map_err(|error| format!("broken file system: {error}"))?;
    let first = recover(&mounted.log())?;
    promise(history, length, &first)?;
    mounted.unmount()?;
    let mounted = Mounted::written_image(scratch, place)?;
    let second = recover(&mounted.log()).map_err(|error| format!("second recovery: {error}"))?;
    if second.entries != first.entries || second.recovery.end != first.recovery.end {
        let (first, second) = (first.entries.len(), second.entries.len());
        return Err(format!("{first} entries were recovered, and {second} by a second recovery"));
    }
    if second.recovery.cut.is_some() {
        return Err("what was cut came back".to_owned());
    }
    mounted.unmount()
}

/// A power cut: where in the write log, and what of the requests since the last flush is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// Requests that were done.
    pub(super) requests: usize,
    pub(super) loss: PowerLoss,
    /// Of the choice of sectors.
    pub(super) seed: u64,
}

/// What one life of a log left behind.
pub(super) struct Life {
    pub(super) base: Vec<u8>,
    pub(super) write_log: Bytes,
    pub(super) requests: Vec<Request>,
    /// Blocks that the log's files own.
    pub(super) blocks: BTreeSet<u64>,
    pub(super) history: History,
}

impl Life {
    /// Ends the disk that the log has left.
    pub(super) fn of(base: Vec<u8>, disk: VirtualDisk, history: History) -> Result<Self, String> {
        let (write_log, blocks) = disk.stop()?;
        let requests = parse(&write_log)?;
        Ok(Self { base, write_log, requests, blocks, history })
    }

    /// Where the write log ends when so many requests are done.
    pub(super) fn length(&self, requests: usize) -> u64 {
        self.requests.get(requests).map_or(self.write_log.len() as u64, |request| request.at)
    }

    /// Judges each of these cuts, which must be in the order of their requests. Gives the first violation found.
    pub(super) fn judge(&self, scratch: &Scratch, cuts: &[Cut]) -> Result<(), String> {
        // Most of a start is waiting for the kernel to mount and unmount: more of them at once than there are cores.
        let (send, images) = sync_channel::<(Cut, Vec<u8>)>(1);
        let (images, violation) = (Mutex::new(images), OnceLock::new());
        let judge_some = |place: usize| {
            loop {
                let next = images.lock().unwrap().recv();
                let Ok((cut, image)) = next else { return };
                if let Err(error) = judge(scratch, place, &self.history, self.length(cut.requests), &image) {
                    let _ = violation.set((cut, image, error));
                }
            }
        };
        std::thread::scope(|scope| {
            let judge_some = &judge_some;
            for place in 0..AT_ONCE {
                scope.spawn(move || judge_some(place));
            }
            let mut medium = Medium::new(self.base.clone(), self.blocks.clone());
            let mut done = 0;
            for cut in cuts {
                self.requests[done..cut.requests].iter().for_each(|request| medium.take(request));
                done = cut.requests;
                let image = medium.cut(cut.loss, &mut Rng::new(cut.seed));
                if violation.get().is_some() || send.send((*cut, image)).is_err() {
                    break;
                }
            }
            drop(send);
        });
        violation.into_inner().map_or(Ok(()), |(cut, image, error)| Err(self.keep(cut, &image, &error)))
    }

    /// What a cut leaves on the disk.
    pub(super) fn image(&self, cut: Cut) -> Vec<u8> {
        let mut medium = Medium::new(self.base.clone(), self.blocks.clone());
        self.requests[..cut.requests].iter().for_each(|request| medium.take(request));
        medium.cut(cut.loss, &mut Rng::new(cut.seed))
    }

    /// Keeps what shows a violation.
    fn keep(&self, cut: Cut, image: &[u8], violation: &str) -> String {
        let kept = tempfile::Builder::new().prefix("vouch-block-layer-").tempdir().unwrap().keep();
        let said = format!("{cut:?}\n{violation}\n{:#?}\n", self.history.said);
        let files: [(&str, &[u8]); 4] = [
            ("base.img", &self.base),
            ("writes.log", &self.write_log),
            ("cut.img", image),
            ("violation.txt", said.as_bytes()),
        ];
        for (name, bytes) in files {
            fs::write(kept.join(name), bytes).unwrap();
        }
        format!("{cut:?} of {}: {violation}; see {}", self.requests.len(), kept.display())
    }
}
