//! PostgreSQL, from Debian's package.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Make, PASSWORD, Server, USER, as_server, run as run_to_end, supervisor::Supervisor};

/// Where Debian puts the programs, the newest version first.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut programs: Vec<PathBuf> =
        versions.flatten().map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).collect();
    programs.sort();
    programs.pop()
}

fn installed(name: &str) -> PathBuf {
    program(name).expect("asked for only where it is installed")
}

pub(super) fn socket(folder: &Path, port: u16) -> PathBuf {
    folder.join(format!(".s.PGSQL.{port}"))
}

/// Makes the files of a server.
pub(super) fn prepare(folder: &Path, port: u16) {
    let data = folder.join("data");
    let mut initdb = as_server(Make::Postgres, &installed("initdb"));
    run_to_end(initdb.args(["-U", "postgres", "-N", "--auth=trust", "-E", "UTF8", "--locale=C", "-D"]).arg(&data));
    let settings = format!(
        "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{folder}'\nfsync = off\nssl = on\n\
         ssl_cert_file = '{folder}/server.crt'\nssl_key_file = '{folder}/server.key'\nmax_connections = 200\n\
         deadlock_timeout = '100ms'\n",
        folder = folder.display()
    );
    let users = "local all postgres trust\nlocal all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n";
    append(&data.join("postgresql.conf"), &settings);
    fs::write(data.join("pg_hba.conf"), users).expect("who may come in");
}

fn append(path: &Path, text: &str) {
    let before = fs::read_to_string(path).expect("a file of settings");
    fs::write(path, before + text).expect("settings are written");
}

pub(super) fn run(folder: &Path) -> Supervisor {
    let script = r#"
        "$0" -D "$1" -w -t 60 -l /dev/null start >/dev/null || exit 1
        read -r server <"$1/postmaster.pid"
        echo ready
        cat >/dev/null
        "$0" -D "$1" -m immediate stop >/dev/null || kill -QUIT "$server"
        [ -e "$2/kept" ] || rm -rf "$2"
    "#;
    let mut shell = as_server(Make::Postgres, Path::new("sh"));
    Supervisor::start(shell.args(["-c", script]).arg(installed("pg_ctl")).arg(folder.join("data")).arg(folder), "ready")
}

pub(super) fn admit_tester(server: &Server) {
    administer(server, "postgres", &format!("create role {USER} login password '{PASSWORD}'"));
}

pub(super) fn create_database(server: &Server, name: &str, statements: &str) {
    administer(server, "postgres", &format!("create database {name} owner {USER}"));
    administer(server, name, &format!("set role {USER}; {statements}"));
}

pub(super) fn administer(server: &Server, database: &str, statements: &str) {
    let mut psql = Command::new(installed("psql"));
    let folder = server.folder.path();
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database]);
    psql.arg("-h").arg(folder).arg("-p").arg(server.port.to_string());
    // Each by itself, as some cannot stand in one transaction with others.
    for statement in statements.split(";\n\n") {
        psql.arg("-c").arg(statement);
    }
    run_to_end(&mut psql);
}
