//! How far a backup, a check or a restore has come.

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupStep {
    /// Files are copied or compared with their digests.
    Files,
    /// Every entry of the log is verified.
    Log,
}

/// How far a step has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupProgress {
    /// The step.
    pub step: BackupStep,
    /// Bytes behind it.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// Called while something takes long.
pub type OnProgress<'a> = &'a mut dyn FnMut(BackupProgress);
