//! Decides how a connection to PostgreSQL is encrypted.
//!
//! On this machine (a loopback address or a socket) TLS is used where the server offers it.
//! Everywhere else it is required, and the server's certificate is verified with its name, by the
//! public CAs and by `sslrootcert` where that is given. `sslmode` in the URL, or PGSSLMODE, says
//! otherwise, with libpq's meaning: `require` alone does not verify, `require` with a CA verifies
//! the CA.
//!
//! Promises: a file that cannot be used is named. A server off this machine that asks for the
//! password in clear text without TLS does not get it: sqlx would send it, so the server is asked
//! beforehand, without a password. An attacker between the two who changes the server's answers
//! after that could still ask for it; only TLS protects from that, which is why it takes an
//! explicit `sslmode` to do without.
//! Leaves to others: the handshake itself (sqlx and rustls), words for failures (`refusal`).

use std::net::IpAddr;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::Url;

use super::refusal::{Refusal, Target};
use super::{DbError, redacted};

/// Who could read and change what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Nobody but this machine.
    Local,
    /// Nobody: TLS with a verified certificate.
    Verified,
    /// Whoever has any certificate of a CA that is known: the name is not verified.
    AnyName,
    /// Whoever can pretend to be the server: TLS, not verified.
    Unverified,
    /// Whoever is on the network: TLS is off, or left to the server.
    MaybeNone,
}

/// Files that the URL or the environment names.
const FILES: [(&str, [&str; 3], &str); 3] = [
    ("sslrootcert", ["sslrootcert", "ssl-root-cert", "ssl-ca"], "PGSSLROOTCERT"),
    ("sslcert", ["sslcert", "ssl-cert", "ssl-cert"], "PGSSLCERT"),
    ("sslkey", ["sslkey", "ssl-key", "ssl-key"], "PGSSLKEY"),
];

/// Reads a URL, and sets what it leaves open about TLS.
pub(super) fn options(url: &str) -> Result<(PgConnectOptions, Encryption), DbError> {
    let failed = |source| DbError::Open { url: redacted(url), source };
    let mut options: PgConnectOptions = url.parse().map_err(failed)?;
    let parsed = Url::parse(url).map_err(|error| failed(sqlx::Error::Configuration(error.into())))?;
    let host = options.get_host().to_owned();
    if let Some(bare) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        options = options.host(bare);
    }
    let target = Target::of(&options);
    let given = |names: &[&str], variable: &str| {
        let pair = parsed.query_pairs().filter(|(name, _)| names.contains(&&**name)).last();
        pair.map(|(_, value)| value.into_owned()).or_else(|| std::env::var(variable).ok())
    };
    let mut ca = false;
    for (parameter, names, variable) in FILES {
        match given(&names, variable) {
            // libpq's word for the public CAs, which are known here anyway.
            Some(file) if parameter == "sslrootcert" && file == "system" => {
                options = options.ssl_root_cert_from_pem(Vec::new());
                ca = true;
            }
            Some(file) if !file.starts_with("-----BEGIN") => {
                check_file(parameter, Path::new(&file))
                    .map_err(|why| Refusal::tls_file(&target, parameter, &file, &why))?;
                ca |= parameter == "sslrootcert";
            }
            Some(_) => ca |= parameter == "sslrootcert",
            None => {}
        }
    }
    let mode = given(&["sslmode", "ssl-mode"], "PGSSLMODE").and_then(|mode| mode.parse::<PgSslMode>().ok());
    let local = is_local(&options);
    let mode = match mode {
        // A CA is given to be used.
        None if ca || !local => PgSslMode::VerifyFull,
        Some(PgSslMode::Require) if ca => PgSslMode::VerifyCa,
        None => PgSslMode::Prefer,
        Some(mode) => mode,
    };
    let encryption = match mode {
        _ if local => Encryption::Local,
        PgSslMode::VerifyFull => Encryption::Verified,
        PgSslMode::VerifyCa => Encryption::AnyName,
        PgSslMode::Require => Encryption::Unverified,
        PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer => Encryption::MaybeNone,
    };
    Ok((options.ssl_mode(mode), encryption))
}

/// Whether nothing leaves this machine.
fn is_local(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    options.get_socket().is_some()
        || host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The driver neither names a file that it cannot read nor notices one without a certificate.
fn check_file(parameter: &str, file: &Path) -> Result<(), String> {
    let text = std::fs::read(file).map_err(|error| format!("cannot be read ({error})"))?;
    if parameter == "sslkey" {
        return Ok(());
    }
    let mut certificates = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| format!("is not PEM ({error:?})"))?;
        certificates.add(certificate).map_err(|error| format!("holds an unusable certificate ({error})"))?;
    }
    if certificates.is_empty() { Err("holds no certificate".to_owned()) } else { Ok(()) }
}

/// Goes as far as the server's wish for a password, and whether it wants it in clear text without
/// TLS.
pub(super) async fn asks_for_clear_password(options: &PgConnectOptions) -> Result<bool, sqlx::Error> {
    /// The code that asks for TLS.
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    /// Version 3.0 of the protocol.
    const VERSION: [u8; 4] = [0, 3, 0, 0];
    const CLEAR_TEXT: u32 = 3;
    let mut server = TcpStream::connect((options.get_host(), options.get_port())).await?;
    if matches!(options.get_ssl_mode(), PgSslMode::Prefer) {
        server.write_all(&SSL_REQUEST).await?;
        if server.read_u8().await? == b'S' {
            return Ok(false);
        }
    }
    let mut startup = VERSION.to_vec();
    for text in ["user", options.get_username()] {
        startup.extend(text.as_bytes());
        startup.push(0);
    }
    if let Some(database) = options.get_database() {
        startup.extend([b"database\0", database.as_bytes(), b"\0"].concat());
    }
    startup.push(0);
    let length =
        u32::try_from(startup.len() + 4).map_err(|error| sqlx::Error::Configuration(error.into()))?;
    server.write_all(&length.to_be_bytes()).await?;
    server.write_all(&startup).await?;
    // What is no such wish is for the connection itself to find out.
    if server.read_u8().await? != b'R' {
        return Ok(false);
    }
    let _length = server.read_u32().await?;
    Ok(server.read_u32().await? == CLEAR_TEXT)
}
