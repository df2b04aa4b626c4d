//! Why a connection to PostgreSQL could not be made, and what to do: one text for each reason.
//!
//! Promises: every text names the server by host and port or by its socket, never with a password.
//! Whatever is over once the server has started or another client has left may pass by itself, and
//! is worth another attempt (`again`); a wrong password is not.

use std::io::ErrorKind;
use std::time::Duration;

use rustls::{CertificateError, Error as TlsError};
use sqlx::postgres::PgConnectOptions;

use super::DbError;

/// The server that is meant.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Host and port, or the socket.
    pub(super) place: String,
    host: String,
    user: String,
    database: String,
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
#[error("could not connect to PostgreSQL at {place}: {why}. {remedy}")]
pub struct Refusal {
    place: String,
    why: String,
    remedy: String,
    may_pass: bool,
}

impl From<Refusal> for DbError {
    fn from(refusal: Refusal) -> Self {
        Self::Connect(Box::new(refusal))
    }
}

impl Target {
    pub(super) fn of(options: &PgConnectOptions) -> Self {
        let socket = options.get_socket().map(|socket| socket.display().to_string());
        let socket =
            socket.or_else(|| options.get_host().starts_with('/').then(|| options.get_host().to_owned()));
        let (host, port) = (options.get_host(), options.get_port());
        Self {
            place: match &socket {
                Some(directory) => format!("{directory}/.s.PGSQL.{port}"),
                None if host.contains(':') => format!("[{host}]:{port}"),
                None => format!("{host}:{port}"),
            },
            host: host.to_owned(),
            user: options.get_username().to_owned(),
            database: options.get_database().unwrap_or_else(|| options.get_username()).to_owned(),
        }
    }

    fn for_good(&self, why: impl Into<String>, remedy: impl Into<String>) -> Refusal {
        Refusal { place: self.place.clone(), why: why.into(), remedy: remedy.into(), may_pass: false }
    }

    fn for_now(&self, why: impl Into<String>, remedy: impl Into<String>) -> Refusal {
        Refusal { may_pass: true, ..self.for_good(why, remedy) }
    }
}

impl Refusal {
    /// What was attempted and why it failed.
    pub fn what(&self) -> String {
        format!("could not connect to PostgreSQL at {}: {}", self.place, self.why)
    }

    /// What to do.
    pub fn remedy(&self) -> &str {
        &self.remedy
    }

    /// Whether another attempt may succeed without anybody doing anything.
    pub const fn may_pass(&self) -> bool {
        self.may_pass
    }

    /// Nothing came back in time.
    pub(super) fn no_answer(target: &Target, waited: Duration) -> Self {
        target.for_now(
            format!("no answer within {} seconds", waited.as_secs()),
            "Check host and port in `database.url`, and whether a firewall drops the connection.",
        )
    }

    /// The server wants the password as it is, over a connection that others may read.
    pub(super) fn clear_password(target: &Target) -> Self {
        target.for_good(
            "the server asks for the password in clear text over an unencrypted connection, so it was not sent",
            "Turn on TLS at the server and take `sslmode` out of `database.url`, or let the server use scram-sha-256.",
        )
    }

    /// What every statement relies on is lost on the way.
    pub(super) fn settings_do_not_hold(target: &Target, dropped: &[&str]) -> Self {
        target.for_good(
            format!("the settings of a transaction do not hold ({})", dropped.join(", ")),
            "Connect to the server itself, past the pooler.",
        )
    }

    /// A file that is named for TLS cannot be used.
    pub(super) fn tls_file(target: &Target, parameter: &str, file: &str, why: &str) -> Self {
        target.for_good(
            format!("{file} ({parameter}) {why}"),
            format!("Check `{parameter}` in `database.url`: it names a PEM file."),
        )
    }

    /// Puts what the driver says into words.
    pub(super) fn of(error: &sqlx::Error, target: &Target) -> Self {
        match error {
            sqlx::Error::Io(error) => of_io(error, target),
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default();
                of_server(&code, error.message(), target)
            }
            sqlx::Error::Tls(error) if error.to_string().contains("does not support TLS") => target.for_good(
                "the server declines TLS, and others may read what is sent to it",
                "Turn on TLS at the server (`ssl = on`), or add `sslmode=disable` to `database.url` if you trust the \
                 network in between.",
            ),
            sqlx::Error::Tls(error) => {
                target.for_good(format!("TLS failed ({error})"), "Check the TLS parameters in `database.url`.")
            }
            sqlx::Error::Protocol(said) => target.for_good(
                format!("the answer is not that of a PostgreSQL server ({said})"),
                "Check host and port in `database.url`.",
            ),
            other => target.for_good(other.to_string(), "Check `database.url`."),
        }
    }
}

fn of_io(error: &std::io::Error, target: &Target) -> Refusal {
    const RUNNING: &str = "Is the server running? Check `database.url`.";
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
        return of_tls(error, target);
    }
    let text = error.to_string();
    if text.contains("failed to lookup address") {
        let why = format!("the host name `{}` cannot be resolved ({text})", target.host);
        let remedy = "Check the host in `database.url`.";
        // A name server that cannot be reached, unlike one that does not know the name.
        return if text.contains("emporary failure") {
            target.for_now(why, remedy)
        } else {
            target.for_good(why, remedy)
        };
    }
    match error.kind() {
        ErrorKind::ConnectionRefused => target.for_now("connection refused", RUNNING),
        // Of a socket: a server removes it when it stops.
        ErrorKind::NotFound => target.for_now("there is no such socket", RUNNING),
        ErrorKind::PermissionDenied => target.for_good(
            "this user may not open the socket",
            "Let the user of this process into the socket's directory.",
        ),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => target.for_now(
            format!("the connection was closed before the server answered ({text})"),
            "Look into the log of the server or the pooler, and check host and port in `database.url`.",
        ),
        _ => target.for_now(text, RUNNING),
    }
}

fn of_tls(error: &TlsError, target: &Target) -> Refusal {
    let host = &target.host;
    match error {
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => target.for_good(
            "no known CA has signed the server's certificate (UnknownIssuer)",
            "Get the certificate of the server's CA (hosted: from the provider's documentation) and add \
             `sslrootcert=FILE` to `database.url`.",
        ),
        TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => target.for_good(
            format!("the server's certificate is not for the name `{host}`"),
            "Use a name in `database.url` that the certificate has, or have a certificate made for this name.",
        ),
        TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => target
            .for_good("the server's certificate has expired", "Renew it, and check the clock of this machine."),
        TlsError::InvalidCertificate(reason) => target.for_good(
            format!("the server's certificate cannot be verified ({reason})"),
            "Have a server certificate made by a CA, and add `sslrootcert=FILE` with the CA to `database.url`; a \
             certificate that signs itself does not do.",
        ),
        other => target.for_good(
            format!("the TLS handshake failed ({other})"),
            "Check the TLS settings of the server, and `sslcert` and `sslkey` in `database.url`.",
        ),
    }
}

fn of_server(code: &str, said: &str, target: &Target) -> Refusal {
    const POOLER: &str = "Look into the configuration and the log of the pooler.";
    let Target { user, database, .. } = target;
    let code = if code == "08P01" { passed_on(said) } else { code };
    match code {
        "28P01" => target.for_good(
            format!("the server refuses the password of the user `{user}`"),
            "Check user and password in `database.url` (DATABASE_URL).",
        ),
        "28000" if said.contains("pg_hba.conf") => target.for_good(
            format!("the server's access rules do not allow this ({said})"),
            "Add a line for this user, database and address to its pg_hba.conf (hosted: to the list of allowed \
             addresses); where only encrypted connections are allowed, take `sslmode` out of `database.url`.",
        ),
        "28000" => {
            target.for_good(format!("the server refuses the user `{user}` ({said})"), "Check the user in `database.url`.")
        }
        "3D000" => target.for_good(
            format!("there is no database `{database}`"),
            "Check the name at the end of `database.url`, or create the database.",
        ),
        "42501" => target.for_good(
            format!("the user `{user}` may not connect ({said})"),
            format!("Grant it: `GRANT CONNECT ON DATABASE {database} TO {user}`."),
        ),
        "53300" => target.for_now(
            format!("too many connections ({said})"),
            "End others, raise max_connections of the server (or CONNECTION LIMIT of the role or the database), or lower \
             `database.max_connections`: one is enough for everything, only slower.",
        ),
        "57P03" => target.for_now(
            format!("the server accepts no connections yet ({said})"),
            "Wait until it has started, then run the command again.",
        ),
        "57P01" | "57P02" => target.for_now(
            format!("the server is shutting down ({said})"),
            "Wait until it has started again, then run the command again.",
        ),
        _ if said.contains("startup parameter") => target.for_good(
            format!("the pooler refuses a parameter ({said})"),
            "Take `options` out of `database.url` and PGOPTIONS out of the environment; set a search path on the role: \
             `ALTER ROLE … SET search_path = …`.",
        ),
        _ if said.contains("statement pool") => target.for_good(
            format!("the pooler allows no transactions ({said})"),
            "Set `pool_mode = transaction` or `session` for this database in the pooler.",
        ),
        // PgBouncer's words while the server behind it is down or full.
        _ if ["cannot connect", "login has been failing", "login failed", "query_wait_timeout"]
            .iter()
            .any(|words| said.contains(words)) =>
        {
            target.for_now(format!("the pooler has no connection to the server ({said})"), POOLER)
        }
        "08P01" => target.for_good(said, POOLER),
        // The connection broke, or the server is too slow to prove its settings.
        _ if code.starts_with("08") || code == "57014" => {
            target.for_now(format!("{said} (SQLSTATE {code})"), "Look into the server's log.")
        }
        _ => target.for_good(format!("{said} (SQLSTATE {code})"), "Check `database.url` and the server's log."),
    }
}

/// The SQLSTATE that is meant: PgBouncer passes the server's words on as 08P01 (protocol
/// violation), and has words of its own.
fn passed_on(said: &str) -> &'static str {
    let contains = |words: &[&str]| words.iter().any(|words| said.contains(words));
    if said.contains("no such database") || said.starts_with("database ") && said.ends_with("does not exist")
    {
        "3D000"
    } else if said.contains("password authentication failed") {
        "28P01"
    } else if contains(&["authentication failed", "no such user", "pg_hba.conf"]) {
        "28000"
    } else if contains(&["too many", "no more connections"]) {
        "53300"
    } else if contains(&["starting up", "recovery mode"]) {
        "57P03"
    } else {
        "08P01"
    }
}
