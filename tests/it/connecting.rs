//! Connections that cannot be made: what the error says, which commands wait for a server, and
//! which create a file.
//!
//! A small server of the test's gives the answers that PostgreSQL, poolers and other services give.
//! It records everything that it is sent: a password must not be among it.

#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its world has failed")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use makegood::store::{Store, Trouble};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;
use url::Url;

use crate::binary::{Makegood, makegood};
use crate::database::{as_least_privileged, sqlite};
use crate::postgres::server;
use crate::world::World;

const PASSWORD: &str = "hunter2";
/// A guard: this error once took 34 seconds.
const AT_ONCE: Duration = Duration::from_secs(10);

/// The server's answer after it has declined TLS.
#[derive(Clone, Debug)]
pub enum Says {
    /// An error, with this SQLSTATE.
    Error(&'static str, &'static str),
    /// It asks for the password in clear text.
    ClearPassword,
    /// These bytes, instead of anything about TLS.
    Bytes(&'static [u8]),
    /// Nothing.
    Nothing,
}

/// A server that answers every connection alike.
#[derive(Debug)]
pub struct Fake {
    /// Where it listens.
    pub port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    /// On all addresses of this machine.
    pub async fn start(says: Says) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A client that disconnects is no error.
                tokio::spawn(answer(client, says.clone(), Arc::clone(&noted)));
            }
        });
        Self { port, heard, task }
    }

    /// Whether it was sent the password.
    pub fn received_password(&self) -> bool {
        let heard = self.heard.lock().unwrap();
        heard.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes())
    }
}

async fn answer(mut client: TcpStream, says: Says, heard: Arc<Mutex<Vec<u8>>>) -> std::io::Result<()> {
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    let mut part = [0; 1024];
    loop {
        let length = client.read(&mut part).await?;
        if length == 0 {
            return Ok(());
        }
        heard.lock().unwrap().extend(&part[..length]);
        let is_ssl_request = part[..length] == SSL_REQUEST;
        match &says {
            Says::Nothing => {}
            Says::Bytes(bytes) => client.write_all(bytes).await?,
            _ if is_ssl_request => client.write_all(b"N").await?,
            Says::ClearPassword if part[0] == 0 => client.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3]).await?,
            Says::ClearPassword => return Ok(()),
            Says::Error(code, text) => {
                let fields = format!("SFATAL\0VFATAL\0C{code}\0M{text}\0\0");
                let length = u32::try_from(fields.len() + 4).unwrap();
                client.write_all(&[&b"E"[..], &length.to_be_bytes()[..], fields.as_bytes()].concat()).await?;
                return Ok(());
            }
        }
    }
}

/// A port where nothing listens.
async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// The binary on this database, telling people.
fn asked(arguments: &[&str], url: &str) -> Makegood {
    makegood(arguments)
        .env("DATABASE_URL", url)
        .env("MAKEGOOD__LOG__FORMAT", "text")
        .env("MAKEGOOD__METRICS__LISTEN", "127.0.0.1:0")
}

fn url(host: &str, port: u16, query: &str) -> String {
    format!("postgres://ada:{PASSWORD}@{host}:{port}/credits{query}")
}

#[tokio::test]
async fn every_command_reports_a_refused_connection_at_once() {
    let port = free_port().await;
    let why = format!("could not connect to PostgreSQL at 127.0.0.1:{port}: connection refused");
    let remedy = "Is the server running? Check `database.url`.";
    let commands: [&[&str]; 8] = [
        &["report"],
        &["explain", "c1"],
        &["brake", "status"],
        &["brake", "release", "--by", "mia", "--reason", "test"],
        &["refund", "c1/0", "--by", "mia", "--reason", "test"],
        &["recover", "c1/0", "--by", "mia", "--reason", "test"],
        &["reverse-refund", "c1/0", "--by", "mia", "--reason", "test"],
        &["migrate"],
    ];
    for command in commands {
        let began = Instant::now();
        let ended = asked(command, &url("127.0.0.1", port, "")).output().await;
        assert!(began.elapsed() < AT_ONCE, "{command:?} took {:?}", began.elapsed());
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{command:?}: {ended:?}");
        assert_eq!(ended.stderr.trim(), format!("makegood: {why}. {remedy}"), "{command:?}");
    }
    let ended = asked(&["check"], &url("127.0.0.1", port, "")).output().await;
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    let found = told["checks"].as_array().unwrap().iter().find(|check| check["about"] == "database").unwrap();
    assert_eq!((ended.code, found["grade"].as_str()), (Some(1), Some("fail")), "{told}");
    assert_eq!((found["says"].as_str(), found["advice"].as_str()), (Some(why.as_str()), Some(remedy)));
}

#[tokio::test]
async fn each_connection_error_has_its_own_message_without_the_password() {
    let cases: [(Says, &str, &str, &str); 14] = [
        (
            Says::Error("28P01", "password authentication failed for user \"ada\""),
            "",
            "the server refuses the password of the user `ada`",
            "DATABASE_URL",
        ),
        (
            Says::Error(
                "28000",
                "no pg_hba.conf entry for host \"10.0.0.7\", user \"ada\", database \"credits\", no encryption",
            ),
            "",
            "the server's access rules do not allow this (no pg_hba.conf entry for host \"10.0.0.7\"",
            "pg_hba.conf (hosted: to the list of allowed addresses)",
        ),
        (
            Says::Error("28000", "role \"ada\" does not exist"),
            "",
            "the server refuses the user `ada`",
            "Check the user",
        ),
        (
            Says::Error("3D000", "database \"credits\" does not exist"),
            "",
            "there is no database `credits`",
            "or create the database",
        ),
        (
            Says::Error("42501", "permission denied for database \"credits\""),
            "",
            "may not connect",
            "GRANT CONNECT ON DATABASE credits TO ada",
        ),
        (
            Says::Error("53300", "sorry, too many clients already"),
            "",
            "too many connections (sorry, too many clients already)",
            "max_connections",
        ),
        (
            Says::Error("57P03", "the database system is starting up"),
            "",
            "the server accepts no connections yet (the database system is starting up)",
            "Wait until it has started",
        ),
        (
            Says::Error("57P01", "terminating connection due to administrator command"),
            "",
            "the server is shutting down",
            "Wait until it has started again",
        ),
        (
            Says::Error("08P01", "server login has been failing, try again later (server_login_retry)"),
            "",
            "the pooler has no connection to the server",
            "the log of the pooler",
        ),
        (
            Says::Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            "",
            "the answer is not that of a PostgreSQL server",
            "Check host and port",
        ),
        (Says::Nothing, "", "no answer within 5 seconds", "firewall"),
        (Says::ClearPassword, "?sslmode=require", "the server declines TLS", "`ssl = on`"),
        (Says::Bytes(b"S\0"), "?sslmode=require", "TLS", "TLS"),
        (Says::Error("XX000", "no such luck"), "", "no such luck (SQLSTATE XX000)", "the server's log"),
    ];
    let mut all = tokio::task::JoinSet::new();
    for (says, query, why, remedy) in cases {
        all.spawn(async move {
            let fake = Fake::start(says.clone()).await;
            let ended = asked(&["report"], &url("127.0.0.1", fake.port, query)).output().await;
            assert_eq!(ended.code, Some(1), "{says:?}: {ended:?}");
            let place = format!("makegood: could not connect to PostgreSQL at 127.0.0.1:{}: ", fake.port);
            assert!(ended.stderr.starts_with(&place), "{says:?}: {ended:?}");
            assert!(ended.stderr.contains(why) && ended.stderr.contains(remedy), "{says:?}: {ended:?}");
            assert!(!ended.stderr.contains(PASSWORD) && !fake.received_password(), "{says:?}: {ended:?}");
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn a_host_a_socket_and_a_file_that_are_not_there_are_named() {
    // Too long to be looked up.
    let host = "x".repeat(70);
    let nobody = |query: &str| format!("postgres://ada:{PASSWORD}@{host}/credits{query}");
    for (url, why) in [
        (nobody(""), format!("at {host}:5432: the host name `{host}` cannot be resolved")),
        (nobody("?host=/nowhere"), "at /nowhere/.s.PGSQL.5432: there is no such socket".to_owned()),
        (
            nobody("?sslrootcert=/nowhere.pem"),
            "/nowhere.pem (sslrootcert) cannot be read (No such file".to_owned(),
        ),
        (nobody("?sslrootcert=/etc/passwd"), "/etc/passwd (sslrootcert) holds no certificate".to_owned()),
        (nobody("?sslcert=/nowhere.pem"), "/nowhere.pem (sslcert) cannot be read".to_owned()),
    ] {
        let ended = asked(&["report"], &url).output().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(&why) && !ended.stderr.contains(PASSWORD), "{why}: {ended:?}");
    }
}

/// Takes connections to the tests' PostgreSQL on this port.
async fn relay(port: u16) -> JoinHandle<()> {
    let url = Url::parse(&server().url).unwrap();
    let directory = url.query_pairs().find(|(name, _)| name == "host").unwrap().1.into_owned();
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
    tokio::spawn(async move {
        let mut carried = tokio::task::JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let socket = format!("{directory}/.s.PGSQL.5432");
            carried.spawn(async move {
                let mut server = UnixStream::connect(socket).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
            });
        }
    })
}

/// The world's database on this port.
async fn on_port(world: &World, port: u16) -> String {
    let mut url = Url::parse(&as_least_privileged(&world.database).await).unwrap();
    url.set_query(None);
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(port)).unwrap();
    url.into()
}

#[tokio::test]
async fn a_run_and_a_daemon_wait_visibly_for_a_server_that_comes_back() {
    if std::env::var_os("MAKEGOOD_TEST_POSTGRES").is_some() {
        crate::postgres::not_tried("the tests' server is another's");
        return;
    }
    let world = World::postgres().await;
    world.clock.set(makegood::clock::Clock::System.now());
    world.balance("ada", 0, 0).await;
    world.charge("c1").job("failed-1").insert().await;
    let port = free_port().await;
    let url = on_port(&world, port).await;
    let here = |command: &str, patience: &str| {
        asked(&[command], &url)
            .within(world.folder.path())
            .env("MAKEGOOD__DATABASE__STATEMENT_TIMEOUT", patience)
            .env("MAKEGOOD__PROVIDERS__DIR", "providers")
            .env("MAKEGOOD__STORAGE__URL", "file:./outputs")
            .env("MAKEGOOD__RECOVERY__ALLOW_LOOPBACK", "true")
    };
    let refused = format!(
        "could not connect to PostgreSQL at 127.0.0.1:{port}: connection refused. Is the server running?"
    );

    let mut daemon = here("schedule", "1s").start();
    daemon.says("Waiting for the server.").await;
    // `run` waits for a limited time, and logs that it does.
    let ended = here("run", "1s").output().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("Waiting for at most 1 seconds")
            && ended.stderr.contains(&format!("makegood: {refused}")),
        "{ended:?}"
    );
    assert!(!daemon.has_ended(), "a daemon waits for as long as it takes");
    daemon.terminate().await;
    let ended = daemon.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");

    let mut run = here("run", "60s").start();
    run.says("Waiting for at most 60 seconds").await;
    let relayed = relay(port).await;
    let ended = run.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains(&refused), "{ended:?}");
    assert_eq!(world.balance_of("ada").await, (0, 10));

    // A server that goes away later is not one that is full.
    let store = Store::open(&url, 1, Duration::from_secs(1)).await.unwrap();
    store.brake().await.unwrap();
    relayed.abort();
    let _aborted = relayed.await;
    let error = store.brake().await.unwrap_err();
    assert_eq!(error.trouble(), Trouble::Unreachable, "{error:?}");
    assert!(error.to_string().starts_with(&refused), "{error}");
}

#[tokio::test]
async fn only_migrate_creates_a_file() {
    let commands: [&[&str]; 10] = [
        &["report"],
        &["explain", "c1"],
        &["brake", "status"],
        &["run"],
        &["run", "--dry-run"],
        &["schedule"],
        &["check"],
        &["refund", "c1/0", "--by", "mia", "--reason", "test"],
        &["recover", "c1/0", "--by", "mia", "--reason", "test"],
        &["reverse-refund", "c1/0", "--by", "mia", "--reason", "test"],
    ];
    let database = sqlite();
    let file = Path::new(database.url.strip_prefix("sqlite://").unwrap());
    for command in commands {
        // Also where the address itself would have it created.
        for url in [database.url.clone(), format!("{}?mode=rwc", database.url)] {
            let ended = asked(command, &url).output().await;
            assert_eq!(ended.code, Some(1), "{command:?}: {ended:?}");
            let told = format!("{}{}", ended.stdout, ended.stderr);
            assert!(
                told.contains("there is no such file") || told.contains("there is no file"),
                "{command:?}: {ended:?}"
            );
            assert!(told.contains("makegood migrate"), "{command:?}: {ended:?}");
            assert!(!file.exists(), "{command:?} has created it");
        }
    }
    let ended = asked(&["migrate", "--reference-schema"], &database.url).output().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(file.exists());
}

/// 0.0.0.0 leads to this machine, and is no loopback address.
#[tokio::test]
async fn a_password_is_never_sent_in_clear_text_beyond_loopback() {
    let fake = Fake::start(Says::ClearPassword).await;
    let off = |query: &str| url("0.0.0.0", fake.port, query);
    for (url, why) in [
        (off(""), "the server declines TLS, and others may read what is sent to it. Turn on TLS"),
        (off("?sslmode=require"), "the server declines TLS"),
        (
            off("?sslmode=prefer"),
            "asks for the password in clear text over an unencrypted connection, so it was not sent",
        ),
        (off("?sslmode=allow"), "so it was not sent"),
        (off("?sslmode=disable"), "so it was not sent"),
    ] {
        let ended = asked(&["report"], &url).output().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(why) && !ended.stderr.contains(PASSWORD), "{url}: {ended:?}");
        assert!(!fake.received_password(), "{url}");
    }
    // On loopback nobody can read the traffic.
    let ended = asked(&["report"], &url("127.0.0.1", fake.port, "")).output().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(fake.received_password());
}
