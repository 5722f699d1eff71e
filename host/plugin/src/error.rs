//! What can go wrong on the way from a file to a binding, by step.

use std::path::PathBuf;

use crate::{http::CaFileError, limits::LimitError, quantity::ByteSize, upload::UploadRefused};

/// Why the engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A setting is out of bounds: correct it.
    #[error("plugin engine: {name} is {value}: it must be between {least} and {most}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What it is set to.
        value: String,
        /// The least that is accepted.
        least: String,
        /// The most that is accepted.
        most: String,
    },
    /// The folder for compiled code cannot be used: make it writable, or set another.
    #[error("plugin engine: cache folder {}: {cause}", .folder.display())]
    CacheFolder {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        #[source]
        cause: std::io::Error,
    },
    /// The file with further authorities cannot be used.
    #[error("the file with further authorities for components, {}, cannot be used: {cause}", .file.display())]
    CaFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: CaFileError,
    },
    /// The processor or the system lacks what the engine needs.
    #[error("plugin engine: {0}")]
    Unsupported(String),
    /// Threads cannot be started: the process is at a limit.
    #[error("plugin engine: cannot start its threads: {0}")]
    Threads(String),
}

/// Why a component cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The bytes are not those that the digest names: fetch them again.
    #[error("the bytes of the component have the digest {found}, not {expected}")]
    DigestMismatch {
        /// What was asked for.
        expected: String,
        /// What the bytes have.
        found: String,
    },
    /// It would be refused as an upload, too.
    #[error(transparent)]
    Refused(#[from] UploadRefused),
    /// The host could not compile it; nothing speaks against it. Try again, and look at the machine.
    #[error("the component could not be compiled: {0}")]
    Host(String),
}

impl From<CompileError> for LoadError {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::Refused(refused) => Self::Refused(refused),
            CompileError::Host(cause) => Self::Host(cause),
        }
    }
}

/// Why an uploaded file got no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] UploadRefused),
    /// The host could not look at it; nothing speaks against it. Try again, and look at the machine.
    #[error("the component could not be compiled: {0}")]
    Host(String),
}

impl From<CompileError> for InspectError {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::Refused(refused) => Self::Refused(refused),
            CompileError::Host(cause) => Self::Host(cause),
        }
    }
}

/// Why there is no code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CompileError {
    /// The component is to blame.
    #[error(transparent)]
    Refused(#[from] UploadRefused),
    /// The host is: it may work another time.
    #[error("{0}")]
    Host(String),
}

/// Why a component cannot be bound so. Correct the binding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// A limit out of bounds.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The component starts with more memory than the binding allows.
    #[error("the component starts with {needs} of memory, over limits.memory of {limit}: raise it")]
    MemoryTooSmall {
        /// What it starts with.
        needs: ByteSize,
        /// What the binding allows.
        limit: ByteSize,
    },
    /// Something else is too long or too many.
    #[error("{what} is {size}, over the limit of {limit}")]
    TooLarge {
        /// What it is.
        what: String,
        /// How large it is.
        size: usize,
        /// How large it may be.
        limit: usize,
    },
    /// The binding has no name.
    #[error("the binding has no name")]
    NoName,
    /// A database in `grants.sql` cannot be used as it is written.
    #[error("grants.sql.{name}: {why}")]
    Database {
        /// Its name in the grants.
        name: String,
        /// What is wrong with it, without what may be secret.
        why: String,
    },
    /// A SQLite file lies on one machine, and any node of a cluster may have to ask.
    #[error(
        "grants.sql names a SQLite file, and this node is one of several: whichever leads would have to read it; grant a database \
         with a server"
    )]
    FileOfOneNode,
    /// The component says that it cannot work with this config.
    #[error("{0}")]
    Config(String),
}
