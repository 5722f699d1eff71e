//! MariaDB, from Debian's package.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{Make, PASSWORD, Server, USER, as_server, run as run_to_end, supervisor::Supervisor};

pub(super) fn program() -> Option<PathBuf> {
    ["/usr/sbin/mariadbd", "/usr/libexec/mariadbd"].into_iter().map(PathBuf::from).find(|path| path.exists())
}

pub(super) fn socket(folder: &Path) -> PathBuf {
    folder.join("socket")
}

/// Makes the files of a server. One that starts removes all temporary tables that it finds, those of others as well: each has a
/// folder for its own.
pub(super) fn prepare(folder: &Path, _program: &Path) {
    let mut install = as_server(Make::MariaDb, Path::new("mariadb-install-db"));
    install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
    install.arg(format!("--tmpdir={}", folder.display()));
    run_to_end(install.arg(format!("--datadir={}", folder.join("data").display())));
}

pub(super) fn run(folder: &Path, port: u16) -> Supervisor {
    let script = r#"
        folder=$1; shift
        "$@" 2>&1 & server=$!
        cat >/dev/null
        kill -9 $server
        wait $server
        [ -e "$folder/kept" ] || rm -rf "$folder"
    "#;
    let at = folder.display();
    let mut shell = as_server(Make::MariaDb, Path::new("sh"));
    shell.args(["-c", script, "supervisor"]).arg(folder).arg(program().expect("asked for only where it is installed"));
    shell.args([
        "--no-defaults".to_owned(),
        format!("--datadir={at}/data"),
        format!("--tmpdir={at}"),
        format!("--socket={at}/socket"),
        format!("--pid-file={at}/pid"),
        format!("--port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--ssl-cert={at}/server.crt"),
        format!("--ssl-key={at}/server.key"),
        "--innodb-buffer-pool-size=64M".to_owned(),
        "--innodb-flush-log-at-trx-commit=2".to_owned(),
        "--character-set-server=utf8mb4".to_owned(),
        "--max-connections=200".to_owned(),
        "--log-bin-trust-function-creators=1".to_owned(),
    ]);
    Supervisor::start(&mut shell, "ready for connections")
}

pub(super) fn admit_tester(server: &Server) {
    administer(
        server,
        "mysql",
        &format!(
            "create user {USER}@localhost identified by '{PASSWORD}';
             create user {USER}@'127.0.0.1' identified by '{PASSWORD}';"
        ),
    );
}

pub(super) fn create_database(server: &Server, name: &str, statements: &str) {
    let users = [format!("{USER}@localhost"), format!("{USER}@'127.0.0.1'")];
    let grants: String = users.iter().map(|user| format!("grant all on {name}.* to {user};")).collect();
    administer(server, "mysql", &format!("create database {name}; {grants} use {name}; {statements}"));
}

pub(super) fn administer(server: &Server, database: &str, statements: &str) {
    let mut client = Command::new("mariadb");
    client.args(["--no-defaults", "-u", "root", "-B", "-e", statements]);
    client.arg(format!("--socket={}", server.socket().display())).arg(database);
    run_to_end(&mut client);
}
