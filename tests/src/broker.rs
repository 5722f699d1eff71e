//! A real broker process in a folder of its own.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

const START_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// So that kills fall between snapshots, and into them, and into the release of old segments.
const SMALL_SIZES: &[&str] = &["--snapshot-every", "1MiB", "--segment-size", "4MiB", "--retention-every", "200ms"];

/// The binary under test: `VOUCH_BIN`, else the one that was built beside the running test.
///
/// # Errors
/// When there is none; the message says how to build it.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(chosen) = std::env::var_os("VOUCH_BIN") {
        return Ok(PathBuf::from(chosen));
    }
    // target/release/deps/<test> → target/release/vouch
    let test = std::env::current_exe()?;
    let beside = test.ancestors().nth(2).context("a test binary lies in target/<profile>/deps")?.join("vouch");
    ensure!(beside.exists(), "{} is missing: run `cargo build --release` first, or set VOUCH_BIN", beside.display());
    Ok(beside)
}

/// One `vouch serve`. Ports are the system's choice on the first start and are kept over restarts, as clients keep
/// talking to the address they were given. Dropping it kills the process and removes the folder.
#[derive(Debug)]
pub struct Broker {
    folder: TempDir,
    child: Option<Child>,
    grpc: String,
    http: String,
    sizes: &'static [&'static str],
}

impl Broker {
    /// A broker that was not started yet.
    ///
    /// # Errors
    /// When no temporary folder can be made.
    pub fn new() -> anyhow::Result<Self> {
        Self::with_sizes(SMALL_SIZES)
    }

    /// One whose segments and snapshots are as large as they are by themselves: of which figures are taken.
    ///
    /// # Errors
    /// When no temporary folder can be made.
    pub fn with_its_own_sizes() -> anyhow::Result<Self> {
        Self::with_sizes(&[])
    }

    fn with_sizes(sizes: &'static [&'static str]) -> anyhow::Result<Self> {
        let any_port = "127.0.0.1:0".to_owned();
        Ok(Self { folder: TempDir::new()?, child: None, grpc: any_port.clone(), http: any_port, sizes })
    }

    /// `host:port` of the gRPC service.
    #[must_use]
    pub fn grpc(&self) -> &str {
        &self.grpc
    }

    /// `host:port` of the HTTP API.
    #[must_use]
    pub fn http(&self) -> &str {
        &self.http
    }

    /// Memory of the process itself, in bytes: without what it maps of files.
    ///
    /// # Errors
    /// When it is not running, or the system does not tell.
    pub fn memory(&self) -> anyhow::Result<u64> {
        let pid = self.child.as_ref().context("the broker is not running")?.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib =
            status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.parse().ok());
        kib.map(|kib: u64| kib << 10).context("the system tells no RssAnon")
    }

    /// The folder with the log, for a message that tells where to look.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the process and waits until it is ready; returns how long that took.
    ///
    /// # Errors
    /// When the process ends, or is not ready in time; the message holds the end of its log.
    pub fn start(&mut self) -> anyhow::Result<Duration> {
        ensure!(self.child.is_none(), "the broker is running");
        let began = Instant::now();
        let output = self.output()?;
        let data_dir = self.data_dir();
        let child = Command::new(binary()?)
            .arg("serve")
            .args(self.sizes)
            .args(["--grpc-addr", &self.grpc, "--http-addr", &self.http])
            .arg("--data-dir")
            .arg(&data_dir)
            .stdout(Stdio::from(output.try_clone()?))
            .stderr(Stdio::from(output))
            .spawn()?;
        self.child = Some(child);
        while !self.is_ready()? {
            ensure!(began.elapsed() < START_DEADLINE, "not ready after {START_DEADLINE:?}:\n{}", self.log());
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(began.elapsed())
    }

    fn is_ready(&mut self) -> anyhow::Result<bool> {
        let child = self.child.as_mut().context("the broker was not started")?;
        if let Some(status) = child.try_wait()? {
            self.child = None;
            bail!("`vouch serve` ended with {status}:\n{}", self.log());
        }
        let pid = u64::from(child.id());
        let Ok(endpoints) = fs::read(self.data_dir().join("endpoints.json")) else { return Ok(false) };
        let endpoints: serde_json::Value = serde_json::from_slice(&endpoints)?;
        // A file that a killed process left behind names that process, not this one.
        if endpoints["pid"].as_u64() != Some(pid) {
            return Ok(false);
        }
        self.grpc = endpoints["grpc"].as_str().context("endpoints.json has no `grpc`")?.to_owned();
        self.http = endpoints["http"].as_str().context("endpoints.json has no `http`")?.to_owned();
        Ok(self.call("GET", "/readyz", "").is_ok())
    }

    /// kill -9, and waits until the process is gone.
    ///
    /// # Errors
    /// When the broker is not running, or ended by itself before.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("the broker is not running")?;
        if let Some(status) = child.try_wait()? {
            bail!("the broker had ended by itself with {status}:\n{}", self.log());
        }
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for the exit status.
    ///
    /// # Errors
    /// When the process does not end in time.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        let mut child = self.child.take().context("the broker is not running")?;
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if began.elapsed() > STOP_DEADLINE {
                child.kill()?;
                child.wait()?;
                bail!("did not stop within {STOP_DEADLINE:?} of SIGTERM:\n{}", self.log());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// One call of the HTTP API; returns the decoded answer.
    ///
    /// # Errors
    /// When the call fails or the answer is not 2xx.
    pub fn call(&self, method: &str, path: &str, body: &str) -> anyhow::Result<serde_json::Value> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(10)))
            .http_status_as_error(false)
            .build()
            .into();
        let url = format!("http://{}{path}", self.http);
        let mut answer = match method {
            "GET" => agent.get(url).call()?,
            "PUT" => agent.put(url).content_type("application/json").send(body)?,
            other => bail!("{other} is not needed by these tests"),
        };
        let text = answer.body_mut().read_to_string()?;
        ensure!(answer.status().is_success(), "{method} {path}: {} {text}", answer.status());
        Ok(serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)))
    }

    /// Runs a command of the binary against this broker; returns what it printed.
    ///
    /// # Errors
    /// When it fails; the message holds what it said.
    pub fn vouch(&self, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        let addresses = [("VOUCH_HTTP_ADDR", &self.http), ("VOUCH_GRPC_ADDR", &self.grpc)];
        let output = Command::new(binary()?).args(arguments).envs(addresses).output()?;
        ensure!(output.status.success(), "vouch {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    }

    /// The end of what the broker wrote to its terminal.
    #[must_use]
    pub fn log(&self) -> String {
        let text = fs::read(self.output_path()).unwrap_or_default();
        let from = text.len().saturating_sub(20_000);
        String::from_utf8_lossy(&text[from..]).into_owned()
    }

    /// Keeps the folder (the log that shows a defect) and returns where it is.
    #[must_use]
    pub fn keep_folder(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    fn output(&self) -> anyhow::Result<File> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.output_path())?;
        writeln!(file, "--- start")?;
        Ok(file)
    }

    fn output_path(&self) -> PathBuf {
        self.folder.path().join("vouch.log")
    }

    /// First position of the log that is kept.
    ///
    /// # Errors
    /// When the folder of the log cannot be listed.
    pub fn log_start(&self) -> anyhow::Result<u64> {
        let files = std::fs::read_dir(self.data_dir().join("shards/0/log"))?;
        let starts = files.filter_map(|file| file.ok()?.file_name().to_str()?.strip_suffix(".log")?.parse().ok());
        starts.min().context("the log has no segments")
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already gone is fine: the folder is removed next.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
