//! A PostgreSQL for the tests, started by the first test that needs one.
//!
//! Promise: one server for each test process, reachable only in a directory under `/tmp` that only
//! its user may enter. It ends with the process, however that ends, because `postgres.sh` waits on
//! a pipe that the kernel closes. If `MAKEGOOD_TEST_POSTGRES=postgres://…` is set, that server is
//! used instead, and only databases are created and dropped there. If there is no PostgreSQL, the
//! test fails and says what to do; it is never skipped.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

/// Names a server to use instead of one of our own.
const SERVER_VARIABLE: &str = "MAKEGOOD_TEST_POSTGRES";

const SCRIPT: &str = include_str!("postgres.sh");

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// The address of its database `postgres`, for a user who may create databases.
    pub url: String,
    /// Holds our own server alive until the process ends.
    _lifeline: Option<ChildStdin>,
}

/// The server of this test process, started at the first call.
///
/// # Panics
/// There is no PostgreSQL here, or it does not start.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Result<Server, String>> = OnceLock::new();
    let server = SERVER.get_or_init(|| match std::env::var(SERVER_VARIABLE) {
        Ok(url) => Ok(Server { url, _lifeline: None }),
        Err(std::env::VarError::NotPresent) => start(),
        Err(unreadable @ std::env::VarError::NotUnicode(_)) => {
            Err(format!("{SERVER_VARIABLE}: {unreadable}"))
        }
    });
    match server {
        Ok(server) => server,
        Err(why) => panic!("no PostgreSQL for the tests: {why}"),
    }
}

/// Set to 1, what cannot be tried here fails.
const STRICT_VARIABLE: &str = "MAKEGOOD_TEST_STRICT";

/// A test, or a part of one, needs something that this machine does not have. It prints so, and
/// passes. With `MAKEGOOD_TEST_STRICT=1` it fails.
///
/// # Panics
/// Everything was to be tried.
pub fn not_tried(why: &str) {
    let strict = std::env::var_os(STRICT_VARIABLE).is_some_and(|value| value == "1");
    assert!(!strict, "not tried, and {STRICT_VARIABLE} is set: {why}");
    eprintln!("not tried: {why}");
}

/// Starts a server and leaves it to its lifeline.
fn start() -> Result<Server, String> {
    let Launched { mut watchdog, directory } = launch()?;
    let lifeline = watchdog.stdin.take();
    Ok(Server { url: address(&directory), _lifeline: lifeline })
}

/// A server of our own: it goes with this value.
#[derive(Debug)]
pub struct Launched {
    /// The process that watches; its input is the lifeline.
    pub watchdog: Child,
    /// Where the server's socket and data are.
    pub directory: PathBuf,
}

/// The address of the database `postgres` behind the socket in `directory`.
fn address(directory: &Path) -> String {
    format!("postgres://postgres@localhost:5432/postgres?host={}", directory.display())
}

/// Starts the script and waits until it is ready.
pub fn launch() -> Result<Launched, String> {
    let binaries = binaries().ok_or_else(|| {
        format!(
            "neither /usr/lib/postgresql/*/bin nor PATH has initdb. Install it (Debian: apt-get install \
             postgresql), run scripts/test.sh, which does, or set {SERVER_VARIABLE} to the address of a \
             server on which databases may be created"
        )
    })?;
    let mut watchdog = shell()
        .arg("-c")
        .arg(SCRIPT)
        .arg("postgres.sh")
        .arg(&binaries)
        // The tests' own directory may be closed to the server's user.
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Ctrl-C goes to a whole process group; the server must outlive it by a moment to clean up.
        .process_group(0)
        .spawn()
        .map_err(|why| format!("could not start a shell for {}: {why}", binaries.display()))?;

    let words = watchdog.stdout.take().expect("standard output was asked for as a pipe");
    let mut said = String::new();
    for line in BufReader::new(words).lines() {
        let line = line.map_err(|why| format!("could not read what the server's start says: {why}"))?;
        if let Some(directory) = line.strip_prefix("ready ") {
            return Ok(Launched { watchdog, directory: PathBuf::from(directory) });
        }
        said.push_str("\n  ");
        said.push_str(&line);
    }
    Err(format!("the server in {} did not start:{said}", binaries.display()))
}

/// A shell as a user for whom PostgreSQL runs: it refuses root.
pub fn shell() -> Command {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !root {
        return Command::new("sh");
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "sh"]);
    command
}

/// Where `initdb` and `pg_ctl` are: the newest of Debian's, otherwise where PATH finds them.
pub fn binaries() -> Option<PathBuf> {
    let newest = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, directory)| has_server(directory))
        .max();
    newest.map(|(_, directory)| directory).or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find(|directory| has_server(directory))
    })
}

fn has_server(directory: &Path) -> bool {
    directory.join("initdb").is_file() && directory.join("pg_ctl").is_file()
}

#[test]
fn a_server_goes_away_with_its_lifeline() {
    if std::env::var_os(SERVER_VARIABLE).is_some() && binaries().is_none() {
        not_tried("nothing to start here: the tests use the server that MAKEGOOD_TEST_POSTGRES names");
        return;
    }
    let Launched { mut watchdog, directory } = launch().unwrap();
    assert!(directory.join(".s.PGSQL.5432").exists(), "{} has no socket", directory.display());

    drop(watchdog.stdin.take());

    assert!(watchdog.wait().unwrap().success());
    assert!(!directory.exists(), "{} is still there", directory.display());
}
