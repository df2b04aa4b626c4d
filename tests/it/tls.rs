//! TLS to PostgreSQL: required and verified unless the server is on loopback, or `sslmode` says
//! otherwise.
//!
//! A PgBouncer stands for the server, with a certificate for 0.0.0.0 and localhost by a CA of
//! `tls/`. 0.0.0.0 leads to this machine and is no loopback address. The certificates are valid
//! until 2123; `docs/testing.md` says how they were made.

#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its world has failed")]

use std::net::TcpListener;

use serde_json::Value;
use url::Url;

use crate::binary::makegood;
use crate::pooler::Pooler;
use crate::postgres::server;

const CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tls/ca.pem");
const OTHER_CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tls/other_ca.pem");

/// The grade and the text about the connection, or about why there is none.
async fn connection(url: &str) -> (String, String) {
    let ended = makegood(&["check"]).env("DATABASE_URL", url).output().await;
    let told: Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    let all = told["checks"].as_array().unwrap();
    let of = |about: &str| all.iter().find(|check| check["about"] == about);
    let found = of("connection").or_else(|| of("database")).unwrap();
    (found["grade"].as_str().unwrap().to_owned(), format!("{} -> {}", found["says"], found["advice"]))
}

#[tokio::test]
async fn off_this_machine_tls_is_required_and_verified_unless_the_url_says_otherwise() {
    let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let lines = format!(
        "pool_mode = transaction\nunix_socket_dir =\nlisten_addr = 0.0.0.0\nlisten_port = {port}\nclient_tls_sslmode = require"
    );
    let Some(_pooler) = Pooler::start(&lines) else { return };
    let user = Url::parse(&server().url).unwrap().username().to_owned();
    let at = |host: &str, query: &str| format!("postgres://{user}@{host}:{port}/postgres{query}");
    for (host, query, grade, says) in [
        ("0.0.0.0", String::new(), "fail", "no known CA has signed the server's certificate (UnknownIssuer)"),
        ("0.0.0.0", String::new(), "fail", "add `sslrootcert=FILE` to `database.url`"),
        ("0.0.0.0", "?sslrootcert=system".to_owned(), "fail", "UnknownIssuer"),
        ("0.0.0.0", format!("?sslrootcert={CA}"), "ok", "encrypted, and 0.0.0.0"),
        ("0.0.0.0", format!("?sslmode=verify-full&sslrootcert={CA}"), "ok", "encrypted, and 0.0.0.0"),
        ("0.0.0.0", format!("?sslrootcert={OTHER_CA}"), "fail", "UnknownIssuer"),
        ("0.0.0.0", "?sslmode=require".to_owned(), "warn", "could impersonate 0.0.0.0"),
        // As libpq has it: with a CA, `require` verifies by it.
        ("0.0.0.0", format!("?sslmode=require&sslrootcert={OTHER_CA}"), "fail", "UnknownIssuer"),
        ("0.0.0.0", format!("?sslmode=require&sslrootcert={CA}"), "warn", "any certificate of a known CA"),
        ("0.0.0.0", "?sslmode=prefer".to_owned(), "warn", "it may be plain text"),
        // A CA is given to be used, also on this machine.
        (
            "127.0.0.2",
            format!("?sslrootcert={CA}"),
            "fail",
            "the server's certificate is not for the name `127.0.0.2`",
        ),
        ("127.0.0.2", String::new(), "ok", "is this machine"),
    ] {
        let url = at(host, &query);
        let (graded, said) = connection(&url).await;
        assert!(graded == grade && said.contains(says), "{url}: {graded} {said}");
    }
}
