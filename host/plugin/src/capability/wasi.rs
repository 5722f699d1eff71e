//! `wasi:cli/imports` 0.2, inert: there, so that a guest's standard library works, and leading nowhere (ruling 22).

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncWrite;
use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource},
};
use wasmtime_wasi::{
    WasiCtx, async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{
        OutputStream, Pollable, StreamError, StreamResult,
        bindings::sockets::{ip_name_lookup, network},
    },
    sockets::WasiSocketsView,
};

use crate::{
    bindings::host::Level,
    error_text::cut,
    guest::CallState,
    handed::takes,
    log::{CallLog, LogSource, MAX_LINE},
};

/// Most random bytes in one call of the guest.
const MAX_RANDOM: u64 = 64 << 10;

/// No folders, no connections, no name look-ups, no environment, no arguments, no input. What is written to standard output
/// and error becomes lines of the plugin's log: that is where a guest's panic message ends up.
pub(crate) fn inert_wasi(log: &CallLog) -> WasiCtx {
    WasiCtx::builder()
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .max_random_size(MAX_RANDOM)
        .stdout(LineStream::new(log, Level::Info))
        .stderr(LineStream::new(log, Level::Warn))
        .build()
}

/// Replaces the text that a guest gets of a failed stream: the error and its causes, and nothing else.
///
/// The library's own text is the error's debug form, which carries the host's backtrace where the operator set
/// `RUST_BACKTRACE`: that is none of the guest's business, and long enough to make the guest's answer too large.
pub(crate) fn tell_errors_without_backtraces(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance("wasi:io/error@0.2.12")?.func_wrap(
        "[method]error.to-debug-string",
        |mut store: StoreContextMut<'_, CallState>, (error,): (Resource<wasmtime::Error>,)| {
            let error = store.data_mut().table.get(&error)?;
            Ok((format!("{error:#}"),))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Puts a bound before the function that a guest can hand a text to although it leads nowhere: the engine's own bound lets pass what a
/// message needs. What is written to a stream the stream bounds, and lists of handles are bounded by how many there may be.
pub(crate) fn bound_what_is_handed_over(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance("wasi:sockets/ip-name-lookup@0.2.12")?.func_wrap(
        "resolve-addresses",
        |mut store: StoreContextMut<'_, CallState>, (network, name): (Resource<network::Network>, String)| {
            takes(name.len())?;
            let mut sockets = store.data_mut().sockets();
            match ip_name_lookup::Host::resolve_addresses(&mut sockets, network, name) {
                Ok(stream) => Ok((Ok(stream),)),
                Err(error) => Ok((Err(error.downcast()?),)),
            }
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Cuts what is written into lines.
#[derive(Clone)]
struct LineStream {
    unfinished: Arc<Mutex<Unfinished>>,
}

/// The start of a line whose end has not come; becomes a line when the last stream goes.
struct Unfinished {
    bytes: Vec<u8>,
    level: Level,
    log: CallLog,
}

impl Unfinished {
    /// Writes what was gathered as one line of the log.
    fn end_line(&mut self) {
        if !self.bytes.is_empty() {
            let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
            self.bytes.clear();
            // Whoever hides secrets has to see that the end is missing, where there may be the half of one.
            cut(&mut text, MAX_LINE);
            match self.level {
                Level::Warn => self.log.write_panic(text),
                level => self.log.write(level, LogSource::Stdio, text),
            }
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.end_line();
    }
}

impl LineStream {
    /// A stream whose lines have this level.
    fn new(log: &CallLog, level: Level) -> Self {
        let unfinished = Unfinished { bytes: Vec::new(), level, log: log.clone() };
        Self { unfinished: Arc::new(Mutex::new(unfinished)) }
    }
}

impl IsTerminal for LineStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LineStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.3 asks for this one, which is not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for LineStream {
    async fn ready(&mut self) {}
}

impl OutputStream for LineStream {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        takes(bytes.len()).map_err(StreamError::Trap)?;
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        for &byte in &bytes {
            match byte {
                b'\n' => unfinished.end_line(),
                // What exceeds a line is lost, as it would be in the log; one byte more tells that something is.
                _ if unfinished.bytes.len() <= MAX_LINE => unfinished.bytes.push(byte),
                _ => {}
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_LINE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        log::LogRing,
        secrets::{BindingSecrets, HiddenValues},
    };

    #[test]
    fn a_secret_across_the_end_of_what_is_kept_leaves_no_half() {
        const SECRET: &str = "s3cr3t-0123456789";
        let config = [("token".to_owned(), SECRET.to_owned())].into();
        let secrets = Arc::new(BindingSecrets::of(&config, &HiddenValues::default()));
        for before in MAX_LINE - 2 * SECRET.len()..=MAX_LINE {
            let ring = LogRing::new("b", "d");
            let log = CallLog::new(Arc::clone(&ring), Arc::clone(&secrets), "t".to_owned());
            let line = format!("{}{SECRET} and more\nnext\n", "x".repeat(before));
            LineStream::new(&log, Level::Info).write(line.into()).unwrap();
            let lines = ring.after(0);
            let kept = &lines[0].text;
            assert!(kept.len() <= MAX_LINE && !kept.contains('s'), "{before}: {}", &kept[before.min(kept.len())..]);
            assert!(before + SECRET.len() + " and more".len() <= MAX_LINE || kept.ends_with('…'), "{before}");
            assert_eq!(lines[1].text, "next");
        }
    }

    #[test]
    fn a_line_as_long_as_fits_is_whole() {
        let ring = LogRing::new("b", "d");
        let log = CallLog::new(Arc::clone(&ring), Arc::default(), "t".to_owned());
        LineStream::new(&log, Level::Info).write("x".repeat(MAX_LINE).into()).unwrap();
        assert_eq!(ring.after(0)[0].text, "x".repeat(MAX_LINE));
    }
}
