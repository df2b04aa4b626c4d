//! Delivers the metrics of a one-shot run to a Pushgateway or to a file for `node_exporter`.
//!
//! Promises: a push ends within [`PUSH_TIMEOUT`]. The file is replaced atomically: a reader sees
//! the old text or the new one. A crash halfway leaves a temporary file `NAME.PID.tmp` beside it,
//! which `node_exporter` ignores.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use url::Url;

use crate::config::HttpUrl;

/// Time limit of a push. After it these metrics are lost; the next run delivers newer ones.
pub const PUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the metrics were not delivered.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The HTTP client could not be set up.
    #[error("could not set up the HTTP client for the Pushgateway")]
    Client(#[source] reqwest::Error),
    /// The request failed.
    #[error("could not push the metrics to {to}; check metrics.pushgateway")]
    Send {
        /// The Pushgateway, without a password.
        to: HttpUrl,
        /// The client's reason, without the URL.
        #[source]
        source: reqwest::Error,
    },
    /// The Pushgateway answered with an error status.
    #[error("the Pushgateway {to} refused the metrics with status {status}")]
    Refused {
        /// The Pushgateway, without a password.
        to: HttpUrl,
        /// The status.
        status: u16,
    },
    /// The file could not be written.
    #[error("could not write the metrics to {}; check metrics.textfile and that its directory exists", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// Replaces the metrics of `job` at the Pushgateway by `text`.
///
/// # Errors
/// See [`DeliveryError`]. The caller logs a warning.
pub async fn push(to: &HttpUrl, job: &str, text: String) -> Result<(), DeliveryError> {
    let client = reqwest::Client::builder()
        .timeout(PUSH_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(DeliveryError::Client)?;
    let response = client
        .put(group(to.expose(), job))
        .header("Content-Type", super::TEXT_FORMAT)
        .body(text)
        .send()
        .await
        // reqwest's message would contain the URL with its password.
        .map_err(|source| DeliveryError::Send { to: to.clone(), source: source.without_url() })?;
    let status = response.status();
    if status.is_success() {
        Ok(())
    } else {
        Err(DeliveryError::Refused { to: to.clone(), status: status.as_u16() })
    }
}

/// The URL of the job's group, as in <https://github.com/prometheus/pushgateway#url>.
fn group(base: &Url, job: &str) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push("metrics");
        if job.contains('/') {
            // The Pushgateway does not accept an encoded slash, so the name is sent in base64.
            path.push("job@base64").push(&URL_SAFE.encode(job));
        } else {
            path.push("job").push(job);
        }
    }
    url
}

/// Writes `text` to `path` atomically, for the textfile collector of `node_exporter`.
///
/// # Errors
/// See [`DeliveryError`]. The caller logs a warning.
pub async fn write_textfile(path: &Path, text: &str) -> Result<(), DeliveryError> {
    // In the same directory, because a rename works within one file system only. node_exporter
    // reads only `*.prom`.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = async {
        tokio::fs::write(&temporary, text).await?;
        tokio::fs::rename(&temporary, path).await
    };
    let result = written.await;
    if result.is_err() {
        // The temporary file may not exist.
        let _ = tokio::fs::remove_file(&temporary).await;
    }
    result.map_err(|source| DeliveryError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn to(text: &str) -> HttpUrl {
        HttpUrl::parse(text).unwrap()
    }

    #[test]
    fn the_group_url_has_the_form_of_the_pushgateway() {
        for (base, job, address) in [
            ("http://push:9091", "makegood", "http://push:9091/metrics/job/makegood"),
            ("http://push:9091/", "a b", "http://push:9091/metrics/job/a%20b"),
            ("http://push/prefix/", "x?y#z%", "http://push/prefix/metrics/job/x%3Fy%23z%25"),
            ("http://push", "a/b", "http://push/metrics/job@base64/YS9i"),
        ] {
            assert_eq!(group(to(base).expose(), job).as_str(), address);
        }
    }

    /// Answers one request with `status` and returns the request.
    async fn answer_once(listener: TcpListener, status: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let mut chunk = [0; 1024];
        while !request.ends_with(b"up 1\n") {
            let read = stream.read(&mut chunk).await.unwrap();
            assert!(read > 0, "the request ended early");
            request.extend_from_slice(&chunk[..read]);
        }
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    }

    #[tokio::test]
    async fn a_push_is_a_put_and_its_error_does_not_contain_the_password() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        for (status, refused) in
            [("200 OK", false), ("202 Accepted", false), ("400 Bad Request", true), ("302 Found", true)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let gateway = to(&format!("http://ada:hunter2@{}", listener.local_addr().unwrap()));
            let (result, request) =
                tokio::join!(push(&gateway, "makegood", "up 1\n".to_owned()), answer_once(listener, status));
            assert!(request.starts_with("PUT /metrics/job/makegood HTTP/1.1\r\n"), "{request}");
            assert!(
                request.to_lowercase().contains("\r\ncontent-type: text/plain; version=0.0.4\r\n"),
                "{request}"
            );
            assert!(request.to_lowercase().contains("\r\nauthorization: basic "), "{request}");
            assert_eq!(result.is_err(), refused, "{status}");
            if let Err(error) = result {
                assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
            }
        }
        // The port was released: nothing listens there.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = to(&format!("http://ada:hunter2@{}", listener.local_addr().unwrap()));
        drop(listener);
        let error = push(&gateway, "makegood", "up 1\n".to_owned()).await.unwrap_err();
        assert!(matches!(error, DeliveryError::Send { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }

    #[tokio::test]
    async fn the_file_is_replaced_atomically_and_no_temporary_file_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("makegood.prom");
        for text in ["up 1\n", "up 2\n"] {
            write_textfile(&path, text).await.unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let nowhere = dir.path().join("missing/makegood.prom");
        let error = write_textfile(&nowhere, "up 1\n").await.unwrap_err();
        assert!(error.to_string().contains("missing/makegood.prom"), "{error}");
    }
}
