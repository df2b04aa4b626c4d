//! URLs that may hold a password.
//!
//! Nothing here prints a password, even if the text is not a valid URL. Only
//! [`DatabaseUrl::expose`] and [`HttpUrl::expose`] return the whole text, for the code that opens
//! the connection.

use std::fmt;
use std::path::PathBuf;

use url::Url;

/// The kind of database that a URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    /// `PostgreSQL`, for production.
    Postgres,
    /// `SQLite`, the embedded default.
    Sqlite,
}

/// The URL of the database, with its password. Debug and Display omit the password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    text: String,
    kind: DatabaseKind,
}

impl DatabaseUrl {
    /// The file of a SQLite database; none for PostgreSQL.
    pub fn file(&self) -> Option<PathBuf> {
        let path = self.text.strip_prefix("sqlite:")?;
        let path = path.strip_prefix("//").unwrap_or(path);
        let path = path.split('?').next().unwrap_or_default();
        Some(PathBuf::from(&*percent_encoding::percent_decode_str(path).decode_utf8_lossy()))
    }

    /// Reads `sqlite://FILE`, `postgres://…` or `postgresql://…`.
    ///
    /// # Errors
    /// The expected format. The message never quotes the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let kind = if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            let file = path.split('?').next().unwrap_or_default();
            if file.is_empty() {
                return Err("expected the name of a file, for instance \"sqlite://makegood.db\"".to_owned());
            }
            if path.contains(":memory:") || path.contains("mode=memory") {
                return Err(
                    "a database in memory would lose the record of refunds; expected a file, for instance \
                            \"sqlite://makegood.db\""
                        .to_owned(),
                );
            }
            DatabaseKind::Sqlite
        } else if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            // The parser's message says what is wrong and never quotes the text.
            Url::parse(text).map_err(|e| {
                format!(
                    "this is not a URL ({e}); expected \"postgres://user:password@host:5432/name\", with the \
                     characters / ? # @ : of a password percent-encoded"
                )
            })?;
            DatabaseKind::Postgres
        } else {
            return Err("expected a URL that begins with \"sqlite://\" or \"postgres://\"".to_owned());
        };
        Ok(Self { text: text.to_owned(), kind })
    }

    /// The kind of database.
    pub const fn kind(&self) -> DatabaseKind {
        self.kind
    }

    /// The whole text with the password, to open the connection. Never print it.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(&self.text))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An HTTP URL that may hold a user and a password. Debug and Display omit the password.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl(Url);

impl HttpUrl {
    /// Reads `http://…` or `https://…`, without query or fragment.
    ///
    /// # Errors
    /// The expected format. The message never quotes the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        const HELP: &str = "expected a URL such as \"http://pushgateway:9091\"";
        let url = Url::parse(text).map_err(|e| format!("{HELP} ({e})"))?;
        let plain = url.query().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !plain {
            return Err(format!("{HELP}: http or https, with a host, without query and fragment"));
        }
        Ok(Self(url))
    }

    /// The whole URL with the password, to send the request. Never print it.
    pub const fn expose(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(self.0.as_str()))
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Removes everything that may be a password from a URL.
///
/// It removes what is between the user's name and the last `@`, and the values of query parameters
/// (drivers accept `?password=`). If a `?` or `#` precedes an `@`, the text is ambiguous, and only
/// the scheme is kept.
pub fn redact(text: &str) -> String {
    let (scheme, rest) = text.split_at(text.find("://").map_or(0, |at| at + 3));
    let (credentials, place) = rest.rsplit_once('@').map_or((None, rest), |(c, p)| (Some(c), p));
    if credentials.is_some_and(|c| c.contains(['?', '#']) || scheme.is_empty()) {
        return format!("{scheme}***");
    }
    let user = credentials.map_or_else(String::new, |c| match c.split_once(':') {
        Some((user, _)) => format!("{user}:***@"),
        None => format!("{c}@"),
    });
    let (place, query) = place.split_once('?').map_or((place, None), |(p, q)| (p, Some(q)));
    let query = query.map_or_else(String::new, |query| {
        let pairs: Vec<String> = query
            .split('&')
            .map(|pair| {
                pair.split_once('=').map_or_else(|| "***".to_owned(), |(key, _)| format!("{key}=***"))
            })
            .collect();
        format!("?{}", pairs.join("&"))
    });
    format!("{scheme}{user}{place}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_printed_however_the_url_is_broken() {
        for text in [
            "postgres://ada:hunter2@db/credits",
            "postgres://ada:hunter2@db/credits?sslmode=require",
            "postgres://ada:hun/hunter2@db/credits",
            "postgres://ada:hun?hunter2@db/credits",
            "postgres://ada:x@hunter2@db/credits",
            "postgres://db/credits?user=ada&password=hunter2",
            "postgres://db/credits?password=a@hunter2",
            "ada:hunter2@db",
            "http://ada:hunter2@push:9091",
        ] {
            let shown = redact(text);
            assert!(!shown.contains("hunter2"), "{text} shows as {shown}");
        }
        assert_eq!(redact("postgres://ada:hunter2@db/credits"), "postgres://ada:***@db/credits");
        assert_eq!(redact("sqlite://makegood.db"), "sqlite://makegood.db");
        let url = DatabaseUrl::parse("postgres://ada:hunter2@db/credits").unwrap();
        assert_eq!(format!("{url} {url:?}"), "postgres://ada:***@db/credits postgres://ada:***@db/credits");
        assert_eq!(url.expose(), "postgres://ada:hunter2@db/credits");
    }

    #[test]
    fn the_scheme_decides_the_kind_of_database() {
        assert_eq!(DatabaseUrl::parse("sqlite://a.db").unwrap().kind(), DatabaseKind::Sqlite);
        assert_eq!(DatabaseUrl::parse("sqlite:a.db").unwrap().kind(), DatabaseKind::Sqlite);
        for text in ["postgres://h/d", "postgresql:///d?host=/run"] {
            assert_eq!(DatabaseUrl::parse(text).unwrap().kind(), DatabaseKind::Postgres);
        }
        for text in
            ["", "mysql://h/d", "sqlite://", "sqlite::memory:", "sqlite://x?mode=memory", "postgres://h:x/d"]
        {
            assert!(DatabaseUrl::parse(text).is_err(), "{text:?}");
        }
    }
}
