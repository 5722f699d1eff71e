//! The compiler's own process, from the inside.
//!
//! It is the only place where the bytes of a component are read at all: a component that makes the parser overflow its stack or
//! the compiler take all memory ends this process, not the broker. The process knows nothing but what lies in one file in
//! memory, its standard input: the job and the component, and in their place at the end the compiled code or the refusal.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::AsFd,
    panic::{self, AssertUnwindSafe},
    process,
};

use rustix::process::{Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};

use super::job::Job;
use crate::upload::UploadRefused;

/// How the process ends: the file holds the compiled code.
pub(super) const COMPILED: i32 = 0;
/// The file holds the [`UploadRefused`] as JSON.
pub(super) const REFUSED: i32 = 10;
/// The compiler has a bug, which this component shows.
pub(super) const PANICKED: i32 = 11;
/// The process could not do its work; standard error says why.
pub(super) const FAILED: i32 = 12;

/// What stands before the component: the length of this in four bytes, and this as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct JobHead {
    /// Who started the process and reads what it writes.
    parent: u32,
    job: Job,
}

impl JobHead {
    /// Writes what the process must know before it looks at the component.
    pub(super) fn write(job: &Job, to: &mut impl Write) -> io::Result<()> {
        let head = Self { parent: process::id(), job: job.clone() };
        let json = serde_json::to_vec(&head).map_err(io::Error::other)?;
        to.write_all(&u32::try_from(json.len()).map_err(io::Error::other)?.to_le_bytes())?;
        to.write_all(&json)
    }

    /// Reads it in the process. Only the broker wrote it, so it is not bounded.
    fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let mut json = vec![0; u32::from_le_bytes(length) as usize];
        from.read_exact(&mut json)?;
        serde_json::from_slice(&json).map_err(io::Error::other)
    }
}

/// What the program that [`crate::CompilerProgram::Process`] names must do, and all it must do: it takes the job from
/// standard input, compiles one component, and ends the process. Start it with no other threads running.
pub fn compiler_process() -> ! {
    process::exit(match work() {
        Ok(status) => status,
        Err(error) => {
            // Read by the engine that started the process; there is nobody else to tell.
            let _ = writeln!(io::stderr(), "{error}");
            FAILED
        }
    })
}

/// All that the process does. The limits come before the first byte of the component.
fn work() -> io::Result<i32> {
    let mut exchange = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let JobHead { parent, job } = JobHead::read(&mut exchange)?;
    end_with(parent)?;
    limit(&job)?;
    let mut wasm = Vec::new();
    exchange.read_to_end(&mut wasm)?;
    // They stand back like the thread that started this process, from which they have their priority.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(job.threads).build().map_err(io::Error::other)?;
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| pool.install(|| job.run(&wasm))));
    drop(wasm);
    exchange.set_len(0)?;
    exchange.rewind()?;
    match outcome {
        Ok(Ok(artifact)) => exchange.write_all(artifact.bytes()).map(|()| COMPILED),
        Ok(Err(refused)) => exchange.write_all(&told(&refused)?).map(|()| REFUSED),
        Err(_) => Ok(PANICKED),
    }
}

/// A refusal as the broker reads it.
fn told(refused: &UploadRefused) -> io::Result<Vec<u8>> {
    serde_json::to_vec(refused).map_err(io::Error::other)
}

/// Ends this process when the thread that started it does, so that a killed broker leaves no compiler behind.
fn end_with(parent: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before the line above.
    let is_there = getppid().is_some_and(|pid| u32::try_from(pid.as_raw_nonzero().get()) == Ok(parent));
    if is_there { Ok(()) } else { Err(io::Error::other("the broker that wanted this component compiled is gone")) }
}

/// The limits hold from here on; nothing of the component was read before.
fn limit(job: &Job) -> io::Result<()> {
    // What holds for the broker holds here too: a limit can only be lowered.
    let at_most = |resource: Resource, soft: u64, hard: u64| {
        let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        setrlimit(resource, Rlimit { current: Some(soft.min(most)), maximum: Some(hard.min(most)) })
    };
    // Counts what is writable and private, so neither address space that is only reserved nor the program's own text.
    at_most(Resource::Data, job.memory.0, job.memory.0)?;
    at_most(Resource::Fsize, job.artifact.0, job.artifact.0)?;
    at_most(Resource::Core, 0, 0)?;
    // A second between the signal that says why the process ends and the one that says nothing.
    at_most(Resource::Cpu, job.seconds, job.seconds.saturating_add(1))?;
    // Where memory is short all the same, this process is the one that goes. It is a wish: not every system has the file.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}
