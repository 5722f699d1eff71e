//! The write log of the virtual disk, in the format that qemu's `blklogwrites` shares with the kernel's dm-log-writes: a
//! superblock, then one sector of header for each request and behind it the data, all in the order in which they were done.

use std::ops::Range;

use bytes::Bytes;

/// What the graph of the virtual disk is told to log in, in bytes.
pub(super) const SECTOR: usize = 512;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// A request that the disk has done. Its place in the log is how tests order what they saw against it: whoever sees the
/// log end behind a request knows that nothing that was done before lies after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Where its header lies in the log, in bytes.
    pub(super) at: u64,
    /// Whatever stands before it in the log is on the medium for certain.
    pub(super) flush: bool,
    /// What it wrote is on the medium for certain.
    pub(super) fua: bool,
    /// Where on the disk, in bytes.
    pub(super) offset: u64,
    /// What was written; empty for a mere flush. A discarded range reads as zeros.
    pub(super) data: Bytes,
}

fn number(log: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(log.get(at..at + 8)?.try_into().ok()?))
}

fn span(sectors: u64) -> Result<usize, String> {
    let bytes = sectors.checked_mul(SECTOR as u64).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.filter(|bytes| *bytes < 1 << 40).ok_or(format!("{sectors} sectors are no request"))
}

/// Reads a whole log. The superblock's count is not looked at: it is written at flushes only, and the file ends where
/// the last request does.
pub(super) fn parse(log: &Bytes) -> Result<Vec<Request>, String> {
    let sector = log.get(24..28).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    if log.is_empty() {
        return Ok(Vec::new());
    }
    if number(log, 0) != Some(MAGIC) || number(log, 8) != Some(1) || sector != Some(SECTOR as u32) {
        return Err("the write log has not the superblock of blklogwrites, version 1, sectors of 512 bytes".to_owned());
    }
    let mut requests = Vec::new();
    let mut at = SECTOR;
    while at + 32 <= log.len() {
        let field = |index: usize| number(log, at + 8 * index).unwrap_or(0);
        let (offset, len, flags) = (span(field(0))?, span(field(1))?, field(2));
        if flags & !(FLUSH | FUA | DISCARD | MARK) != 0 || (flags == 0 && len == 0) {
            return Err(format!("no request at byte {at} of the write log: {len} bytes at {offset}, flags {flags:#x}"));
        }
        let logged: Range<usize> = at + SECTOR..at + SECTOR + if flags & (DISCARD | MARK) == 0 { len } else { 0 };
        if logged.end > log.len() {
            return Err(format!("the write log ends inside the request at byte {at}"));
        }
        let data = if flags & DISCARD == 0 { log.slice(logged.clone()) } else { Bytes::from(vec![0; len]) };
        let (flush, fua) = (flags & FLUSH != 0, flags & FUA != 0);
        requests.push(Request { at: at as u64, flush, fua, offset: offset as u64, data });
        at = logged.end;
    }
    Ok(requests)
}

fn log_of(entries: &[[u64; 3]], data: u8) -> Bytes {
    let mut log = vec![0; SECTOR];
    log[..8].copy_from_slice(&MAGIC.to_le_bytes());
    log[8..16].copy_from_slice(&1u64.to_le_bytes());
    log[24..28].copy_from_slice(&(SECTOR as u32).to_le_bytes());
    for entry in entries {
        let at = log.len();
        log.resize(at + SECTOR, 0);
        for (index, field) in entry.iter().enumerate() {
            log[at + 8 * index..at + 8 * index + 8].copy_from_slice(&field.to_le_bytes());
        }
        if entry[2] & DISCARD == 0 {
            log.extend(vec![data; (entry[1] as usize % 1024) * SECTOR]);
        }
    }
    log.into()
}

#[test]
fn writes_flushes_and_discards_are_told_apart() {
    let requests = parse(&log_of(&[[8, 2, 0], [0, 0, FLUSH], [9, 1, FUA], [40, 4, DISCARD]], 7)).unwrap();
    let seen: Vec<_> = requests.iter().map(|r| (r.at, r.flush, r.fua, r.offset, r.data.len())).collect();
    assert_eq!(
        seen,
        [
            (512, false, false, 4096, 1024),
            (2048, true, false, 0, 0),
            (2560, false, true, 4608, 512),
            (3584, false, false, 20480, 2048)
        ]
    );
    assert_eq!((requests[0].data[0], requests[3].data[0]), (7, 0));
}

#[test]
fn what_is_no_write_log_is_refused() {
    assert!(parse(&Bytes::from(vec![0; 600])).is_err());
    assert!(parse(&log_of(&[[0, 0, 0]], 0)).is_err());
    assert!(parse(&log_of(&[[0, 1, 64]], 0)).is_err());
    let cut_short = log_of(&[[0, 4, 0]], 1);
    assert!(parse(&cut_short.slice(..cut_short.len() - 1)).is_err());
    assert!(parse(&log_of(&[[0, u64::MAX / 4, 0]], 1)).is_err());
}
