//! The compiler's own process, from the outside: started for one component, watched, and ended.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    process::Signal,
};

use super::{
    CompileError,
    job::{CompiledCode, Job},
    process::{COMPILED, JobHead, PANICKED, REFUSED},
};
use crate::{config::Program, error_text::cut, upload::UploadRefused};

/// How often the process is looked after: the system offers no wait with an end.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What is read of what the process said, and of a refusal.
const MAX_WORDS: u64 = 64 << 10;

/// Killed and buried when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended cannot be killed, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Compiles in a process of its own; waits for it. Ends it as soon as nobody wants the result, or its time is over. To be
/// called from a thread that stands back and lives on: the process inherits the thread's priority and ends with it.
pub(super) fn compile(
    program: &Program,
    job: &Job,
    wasm: &[u8],
    is_wanted: &dyn Fn() -> bool,
) -> Result<CompiledCode, CompileError> {
    let failed = |error: io::Error| CompileError::Host(format!("the compiler's process: {error}"));
    let mut exchange = in_memory("vouch-compile").map_err(failed)?;
    let mut words = in_memory("vouch-compile-words").map_err(failed)?;
    let mut running = start(program, job, wasm, &mut exchange, &words).map_err(failed)?;
    let end = Instant::now() + job.patience();
    let status = loop {
        if let Some(status) = running.0.try_wait().map_err(failed)? {
            break status;
        }
        if !is_wanted() {
            return Err(CompileError::Host("nobody waits for the component any more".to_owned()));
        }
        if Instant::now() >= end {
            return Err(job.over_time().into());
        }
        thread::sleep(LOOK_EVERY);
    };
    drop(running);
    if status.code() == Some(COMPILED) {
        let mut bytes = Vec::new();
        exchange.rewind().and_then(|()| exchange.read_to_end(&mut bytes)).map_err(failed)?;
        // It was written whole: the process said so.
        return Ok(CompiledCode::of_compiler(bytes));
    }
    let refusal = read(&mut exchange).map_err(failed)?;
    let said = read(&mut words).map_err(failed)?;
    Err(why(status, job, &refusal, &String::from_utf8_lossy(&said)))
}

/// A file without a name that no other process can open. It goes with its last holder.
fn in_memory(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MemfdFlags::CLOEXEC)?))
}

/// Starts the process with the job and the component in one file, which it writes its answer into: there is no pipe
/// that could fill up, and nothing on a disk.
fn start(program: &Program, job: &Job, wasm: &[u8], exchange: &mut File, words: &File) -> io::Result<Running> {
    JobHead::write(job, exchange)?;
    exchange.write_all(wasm)?;
    exchange.rewind()?;
    let child = Command::new(&program.path)
        .args(&program.arguments)
        .arg0("vouch-compiler")
        // Nothing of the broker is inherited: neither its environment, which may hold secrets, nor its place in a terminal.
        // Files of the broker are closed by the system when another program starts.
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdin(exchange.try_clone()?)
        .stdout(Stdio::null())
        .stderr(words.try_clone()?)
        .spawn()?;
    Ok(Running(child))
}

/// What the process wrote, up to [`MAX_WORDS`]: it may have written anything.
fn read(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(MAX_WORDS).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What the end of the process says about the component.
fn why(status: ExitStatus, job: &Job, refusal: &[u8], said: &str) -> CompileError {
    let invalid = |reason: &str| CompileError::from(UploadRefused::Invalid { reason: reason.to_owned() });
    match status.code() {
        Some(REFUSED) => {
            return match serde_json::from_slice::<UploadRefused>(refusal) {
                Ok(refused) => refused.into(),
                Err(error) => CompileError::Host(format!("the compiler's process refuses without a reason: {error}")),
            };
        }
        Some(PANICKED) => return invalid("the compiler panicked on this component"),
        _ => {}
    }
    let signal = status.signal();
    let is = |wanted: Signal| signal == Some(wanted.as_raw());
    if is(Signal::XCPU) {
        return job.over_time().into();
    }
    if is(Signal::XFSZ) {
        return job.over_artifact().into();
    }
    // The words of the standard library, which has no other way to tell.
    if is(Signal::ABORT) && said.contains("memory allocation of") {
        return job.over_memory().into();
    }
    if is(Signal::ABORT) && said.contains("has overflowed its stack") {
        return invalid("it is nested too deeply to be read");
    }
    if is(Signal::SEGV) || is(Signal::ABORT) || is(Signal::ILL) || is(Signal::BUS) {
        tracing::error!(%status, said, "the compiler crashed on a component");
        return invalid("the compiler crashed on this component");
    }
    let mut said = said.trim().to_owned();
    cut(&mut said, 512);
    CompileError::Host(format!("the compiler's process ended ({status}): {said}"))
}
