//! Readers of single settings with a format of their own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use url::Url;

use super::secret::{DatabaseUrl, HttpUrl};
use super::units;

fn text<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    String::deserialize(d).map_err(|_| D::Error::custom("expected text"))
}

pub(super) fn limit<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    // The database stores sums of credits as i64.
    units::whole::<_, _, 0, { i64::MAX as u64 }>(d)
}

pub(super) fn database_url<'de, D: Deserializer<'de>>(d: D) -> Result<DatabaseUrl, D::Error> {
    DatabaseUrl::parse(&text(d)?).map_err(D::Error::custom)
}

pub(super) fn pushgateway<'de, D: Deserializer<'de>>(d: D) -> Result<Option<HttpUrl>, D::Error> {
    let text = text(d)?;
    if text.is_empty() { Ok(None) } else { HttpUrl::parse(&text).map(Some).map_err(D::Error::custom) }
}

pub(super) fn proxy<'de, D: Deserializer<'de>>(d: D) -> Result<Option<HttpUrl>, D::Error> {
    let text = text(d)?;
    if text.is_empty() {
        return Ok(None);
    }
    let url = HttpUrl::parse(&text);
    url.ok().filter(|url| matches!(url.expose().path(), "" | "/")).map(Some).ok_or_else(|| {
        D::Error::custom("expected the URL of a proxy, for instance \"http://proxy.internal:3128\", or \"\"")
    })
}

pub(super) fn textfile<'de, D: Deserializer<'de>>(d: D) -> Result<Option<PathBuf>, D::Error> {
    let path = units::path_or_none(d)?;
    match &path {
        Some(path) if path.extension().is_none_or(|e| e != "prom") => {
            Err(D::Error::custom("expected a file name that ends in \".prom\"; node_exporter reads no other"))
        }
        Some(_) | None => Ok(path),
    }
}

pub(super) fn listen<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = text(d)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        D::Error::custom(
            "expected an address and a port, for instance \"127.0.0.1:9464\" or \"[::]:9464\", or \"\"",
        )
    })
}

pub(super) fn job<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let job = text(d)?;
    if ["", ".", ".."].contains(&job.trim()) {
        Err(D::Error::custom("expected a name, for instance \"makegood\""))
    } else {
        Ok(job)
    }
}

pub(super) fn time_zone<'de, D: Deserializer<'de>>(d: D) -> Result<chrono_tz::Tz, D::Error> {
    text(d)?.parse().map_err(|_| {
        D::Error::custom("expected the name of an IANA time zone, for instance \"UTC\" or \"Europe/Berlin\"")
    })
}

pub(super) fn storage_url<'de, D: Deserializer<'de>>(d: D) -> Result<Url, D::Error> {
    const HELP: &str = "expected \"file:./directory\", \"s3://bucket/prefix\", \"gs://bucket/prefix\" or \
                        \"az://container/prefix\"";
    let wrong = |why: &str| D::Error::custom(format!("{HELP}{why}"));
    let url = Url::parse(&text(d)?).map_err(|e| wrong(&format!(" ({e})")))?;
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(wrong("; credentials and options come from the environment, not from the URL"));
    }
    match url.scheme() {
        "file" if url.has_host() => {
            Err(wrong("; an absolute path has three slashes: \"file:///var/outputs\""))
        }
        "file" => Ok(url),
        "s3" | "gs" | "az" if url.host_str().is_some_and(|h| !h.is_empty()) => Ok(url),
        "s3" | "gs" | "az" => Err(wrong("; the bucket's name is missing")),
        _ => Err(wrong("")),
    }
}

/// Makes a relative `file:DIR` absolute; otherwise `Url::parse` would read `file:./x` as `/x`.
///
/// Returns none for anything else; [`storage_url`] checks it later.
pub(super) fn absolute_storage(text: &str, working_dir: &Path) -> Option<String> {
    let path = text.strip_prefix("file:")?;
    if path.starts_with('/') || path.is_empty() {
        return None;
    }
    let mut absolute = working_dir.to_path_buf();
    // Drop `./`; otherwise it would appear in every stored output's URI.
    absolute.extend(Path::new(path).components().filter(|c| !matches!(c, std::path::Component::CurDir)));
    Url::from_file_path(absolute).ok().map(Into::into)
}
