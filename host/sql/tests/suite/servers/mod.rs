//! Servers of real databases, in folders of the tests' own: started when first asked for, stopped with the test process.

mod mariadb;
mod postgres;
mod supervisor;

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use vouch_sql::{DatabasePassword, DatabaseUrl, SqlSurroundings};

use supervisor::Supervisor;

/// What the user of the tests is let in with.
pub(crate) const PASSWORD: &str = "correct horse battery staple";
/// That user.
pub(crate) const USER: &str = "vouch_tester";
/// The name that the certificates of the servers are for.
pub(crate) const TLS_NAME: &str = "localhost";

/// Which database a server is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Make {
    Postgres,
    MariaDb,
}

/// A server, running unless it was stopped.
pub(crate) struct Server {
    pub(crate) make: Make,
    /// Cleared away by the supervisor, as nothing here is dropped when the tests end.
    folder: tempfile::TempDir,
    pub(crate) port: u16,
    /// Who is to be believed that this is the server.
    pub(crate) authority: Vec<u8>,
    supervisor: Option<Supervisor>,
}

impl Server {
    /// The one that all tests share; `None`, and said aloud, if the package is not installed.
    pub(crate) fn shared(make: Make) -> Option<&'static Self> {
        static POSTGRES: OnceLock<Option<Server>> = OnceLock::new();
        static MARIADB: OnceLock<Option<Server>> = OnceLock::new();
        let shared = match make {
            Make::Postgres => &POSTGRES,
            Make::MariaDb => &MARIADB,
        };
        shared.get_or_init(|| Self::start(make)).as_ref()
    }

    /// One for a test that stops it.
    pub(crate) fn start(make: Make) -> Option<Self> {
        let (program, package) = match make {
            Make::Postgres => (postgres::program("postgres"), "postgresql-15"),
            Make::MariaDb => (mariadb::program(), "mariadb-server"),
        };
        let Some(program) = program else {
            // Past the capture of the test runner: what is left out must be seen in a run that passes.
            let _ = Command::new("sh")
                .args([
                    "-c",
                    &format!("echo 'LEFT OUT: tests on {make:?}; install Debian'\\''s package {package}' >&2"),
                ])
                .stderr(Stdio::inherit())
                .status();
            return None;
        };
        let folder = tempfile::Builder::new().prefix("vouch-sql-").tempdir().expect("a folder for a server");
        let port = free_port();
        let authority = certify(folder.path());
        give_to(make, folder.path());
        match make {
            Make::Postgres => postgres::prepare(folder.path(), port),
            Make::MariaDb => mariadb::prepare(folder.path(), &program),
        }
        let mut server = Self { make, folder, port, authority, supervisor: None };
        server.run();
        match make {
            Make::Postgres => postgres::admit_tester(&server),
            Make::MariaDb => mariadb::admit_tester(&server),
        }
        Some(server)
    }

    /// Starts it again on the same files and the same port.
    pub(crate) fn run(&mut self) {
        let folder = self.folder.path();
        self.supervisor = Some(match self.make {
            Make::Postgres => postgres::run(folder),
            Make::MariaDb => mariadb::run(folder, self.port),
        });
    }

    /// Kills it as a power cut would; returns when it is gone.
    pub(crate) fn kill(&mut self) {
        let kept = self.folder.path().join("kept");
        std::fs::write(&kept, "").expect("a word to the supervisor");
        if let Some(supervisor) = self.supervisor.take() {
            supervisor.end();
        }
        std::fs::remove_file(kept).expect("the supervisor ended");
    }

    /// Starts PostgreSQL again as a replica, of a primary that it never hears of.
    pub(crate) fn restart_as_standby(&mut self) {
        self.kill();
        std::fs::write(self.folder.path().join("data/standby.signal"), "").expect("a signal");
        self.run();
    }

    /// Its Unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        match self.make {
            Make::Postgres => postgres::socket(self.folder.path(), self.port),
            Make::MariaDb => mariadb::socket(self.folder.path()),
        }
    }

    /// The address of one of its databases, over the Unix socket.
    pub(crate) fn url(&self, database: &str) -> DatabaseUrl {
        self.parsed(&format!("{USER}@localhost/{database}?socket={}", self.socket().display()))
    }

    /// The same over TCP, by way of this port.
    pub(crate) fn tcp_url(&self, host: &str, port: u16, database: &str) -> DatabaseUrl {
        self.parsed(&format!("{USER}@{host}:{port}/{database}"))
    }

    fn parsed(&self, behind_the_scheme: &str) -> DatabaseUrl {
        let scheme = if self.make == Make::Postgres { "postgres" } else { "mariadb" };
        format!("{scheme}://{behind_the_scheme}").parse().expect("a url that this crate reads")
    }

    /// What believes in the server's certificate.
    pub(crate) fn surroundings(&self) -> SqlSurroundings {
        SqlSurroundings { extra_authorities: self.authority.clone(), ..SqlSurroundings::default() }
    }

    /// Makes a database, and runs statements there as its owner.
    pub(crate) fn create_database(&self, name: &str, statements: &str) {
        match self.make {
            Make::Postgres => postgres::create_database(self, name, statements),
            Make::MariaDb => mariadb::create_database(self, name, statements),
        }
    }

    /// Runs statements as the administrator.
    pub(crate) fn administer(&self, database: &str, statements: &str) {
        match self.make {
            Make::Postgres => postgres::administer(self, database, statements),
            Make::MariaDb => mariadb::administer(self, database, statements),
        }
    }
}

impl Drop for Server {
    /// The server goes before its files do.
    fn drop(&mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            supervisor.end();
        }
    }
}

/// The tester's password.
pub(crate) fn password() -> DatabasePassword {
    DatabasePassword::new(PASSWORD)
}

/// A port that was free just now.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// Writes a certificate for [`TLS_NAME`] and its key, and says whom to believe.
fn certify(folder: &Path) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(vec![TLS_NAME.to_owned()]).expect("a certificate");
    let pem = made.cert.pem();
    std::fs::write(folder.join("server.crt"), &pem).expect("a certificate is written");
    std::fs::write(folder.join("server.key"), made.signing_key.serialize_pem()).expect("a key is written");
    pem.into_bytes()
}

/// A command as the user that the package made for the server, who will not run as root.
fn as_server(make: Make, program: &Path) -> Command {
    let user = if make == Make::Postgres { "postgres" } else { "mysql" };
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--clear-groups").arg(program);
    command
}

/// Hands the folder to that user.
fn give_to(make: Make, folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let only_owner = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(folder.join("server.key"), only_owner).expect("a key is private");
    if rustix::process::geteuid().is_root() {
        let user = if make == Make::Postgres { "postgres" } else { "mysql" };
        run(Command::new("chown").arg("-R").arg(format!("{user}:{user}")).arg(folder));
    }
}

/// Runs a command to its end, which must be a good one.
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
