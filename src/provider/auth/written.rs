//! `[auth]` and `[download]` as a provider file writes them, checked.
//!
//! Each kind has keys of its own. One that is missing, and one that belongs to another kind, is
//! refused by name: a key that is silently ignored would be a request that is silently refused.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use serde::Deserialize;
use url::Url;

use super::super::file::{Flaw, flaw, headers};
use super::super::hosts;
use super::super::secret::{Held, Kept, SecretSource};
use super::super::span::Span;
use super::oauth::{ClientAuth, Tokens};
use super::{Auth, Download, Place, Way};

/// How long a signed token is good for, unless the file says otherwise.
const LIFETIME: Duration = Duration::from_mins(30);
/// How long a token of a provider's is used that does not say how long it is good for.
const TOKEN_LIFETIME: Duration = Duration::from_mins(5);

/// `[auth]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct WrittenAuth {
    #[serde(default)]
    kind: Kind,
    header: Option<String>,
    value: Option<String>,
    secret: Option<SecretSource>,
    access_key: Option<SecretSource>,
    session_token: Option<SecretSource>,
    lifetime: Option<Span>,
    parameter: Option<String>,
    region: Option<String>,
    service: Option<String>,
    token_url: Option<String>,
    client_auth: Option<ClientAuth>,
    scope: Option<String>,
    audience: Option<String>,
    #[serde(default)]
    also: Vec<WrittenAuth>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// The key as it is.
    #[default]
    Header,
    /// The key in the URL.
    Query,
    /// User and password.
    Basic,
    /// A token signed with HMAC-SHA256, from an access key and a secret key.
    JwtHs256,
    /// A token of the provider's, for a client's id and secret.
    Oauth2,
    /// A signed request, as AWS wants it.
    AwsSigv4,
    /// A signed request, as Tencent Cloud wants it.
    Tc3HmacSha256,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Query => "query",
            Self::Basic => "basic",
            Self::JwtHs256 => "jwt_hs256",
            Self::Oauth2 => "oauth2",
            Self::AwsSigv4 => "aws_sigv4",
            Self::Tc3HmacSha256 => "tc3_hmac_sha256",
        }
    }

    /// The keys that it may have beside `kind` and `also`.
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Header => &["header", "value", "secret"],
            Self::Query => &["parameter", "value", "secret"],
            Self::Basic => &["access_key", "secret"],
            Self::JwtHs256 => &["header", "value", "secret", "access_key", "lifetime"],
            Self::Oauth2 => &[
                "header",
                "value",
                "secret",
                "access_key",
                "lifetime",
                "token_url",
                "client_auth",
                "scope",
                "audience",
            ],
            Self::AwsSigv4 => &["secret", "access_key", "session_token", "region", "service"],
            Self::Tc3HmacSha256 => &["secret", "access_key", "service"],
        }
    }
}

impl WrittenAuth {
    pub(in super::super) fn check(self, section: &str) -> Result<Auth, Flaw> {
        let mut ways = Vec::new();
        let mut written = vec![(section.to_owned(), self)];
        for (nth, also) in std::mem::take(&mut written[0].1.also).into_iter().enumerate() {
            let section = format!("{section}.also[{nth}]");
            if !also.also.is_empty() {
                return flaw(
                    format!("{section}.also"),
                    format!("left out: write `[[{}.also]]` again", written[0].0),
                );
            }
            written.push((section, also));
        }
        for (section, one) in written {
            let way = one.way(&section)?;
            let whole = |way: &Way| matches!(way, Way::Aws { .. } | Way::Tencent { .. });
            // What comes after a signature would not be covered by it.
            if let Some(first) = ways.first()
                && (whole(&way) || whole(first))
            {
                return flaw(
                    format!("{section}.kind"),
                    "one that does not sign the request: a signature goes with no other key",
                );
            }
            if let Some(name) = header_of(&way)
                && ways.iter().any(|other| header_of(other) == Some(name))
            {
                return flaw(section, format!("in another header than `{name}`, which has a key already"));
            }
            ways.push(way);
        }
        Ok(Auth { ways })
    }

    fn way(self, section: &str) -> Result<Way, Flaw> {
        let key = |name: &str| format!("{section}.{name}");
        self.only_its_own(section)?;
        let kind = self.kind;
        let held = |name: &str, source: Option<SecretSource>| match source {
            Some(source) => Ok(Held::new(source)),
            None => flaw(
                key(name),
                format!(
                    "where it is, for instance {{ env = \"NAME\" }}: kind = \"{}\" needs it",
                    kind.name()
                ),
            ),
        };
        let word = |name: &str, text: Option<String>, example: &str| match text {
            Some(text) if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != '/') => {
                Ok(text)
            }
            _ => flaw(key(name), format!("a word, for instance `{example}`")),
        };
        Ok(match kind {
            Kind::Header => Way::Header {
                place: place(section, self.header, self.value, None)?,
                secret: held("secret", self.secret)?,
            },
            Kind::Query => Way::Query {
                parameter: word("parameter", self.parameter, "api_key")?,
                value: value(section, self.value.or_else(|| Some("{secret}".to_owned())))?,
                secret: held("secret", self.secret)?,
            },
            Kind::Basic => {
                if self.secret.is_none() && self.access_key.is_none() {
                    return flaw(
                        key("secret"),
                        "where the password is, or `access_key` where the user is, or both",
                    );
                }
                Way::Basic { user: self.access_key.map(Held::new), password: self.secret.map(Held::new) }
            }
            Kind::JwtHs256 => Way::Jwt {
                place: place(section, self.header, self.value, None)?,
                issuer: held("access_key", self.access_key)?,
                secret: held("secret", self.secret)?,
                lifetime: lifetime(section, self.lifetime, LIFETIME)?,
            },
            Kind::Oauth2 => Way::OAuth {
                place: place(section, self.header, self.value, Some(("Authorization", "Bearer {secret}")))?,
                tokens: Tokens {
                    url: token_url(section, self.token_url.as_deref())?,
                    client_id: held("access_key", self.access_key)?,
                    client_secret: held("secret", self.secret)?,
                    client_auth: self.client_auth.unwrap_or_default(),
                    scope: self.scope,
                    audience: self.audience,
                    lifetime: lifetime(section, self.lifetime, TOKEN_LIFETIME)?,
                    kept: Kept::default(),
                },
            },
            Kind::AwsSigv4 => Way::Aws {
                access: held("access_key", self.access_key)?,
                secret: held("secret", self.secret)?,
                session: self.session_token.map(Held::new),
                region: word("region", self.region, "us-east-1")?,
                service: word("service", self.service, "bedrock")?,
            },
            Kind::Tc3HmacSha256 => Way::Tencent {
                access: held("access_key", self.access_key)?,
                secret: held("secret", self.secret)?,
                service: word("service", self.service, "vclm")?,
            },
        })
    }

    /// Refuses keys of other kinds.
    fn only_its_own(&self, section: &str) -> Result<(), Flaw> {
        let given = [
            ("header", self.header.is_some()),
            ("value", self.value.is_some()),
            ("secret", self.secret.is_some()),
            ("access_key", self.access_key.is_some()),
            ("session_token", self.session_token.is_some()),
            ("lifetime", self.lifetime.is_some()),
            ("parameter", self.parameter.is_some()),
            ("region", self.region.is_some()),
            ("service", self.service.is_some()),
            ("token_url", self.token_url.is_some()),
            ("client_auth", self.client_auth.is_some()),
            ("scope", self.scope.is_some()),
            ("audience", self.audience.is_some()),
        ];
        let foreign = given.into_iter().find(|(name, given)| *given && !self.kind.keys().contains(name));
        match foreign {
            Some((name, _)) => flaw(
                format!("{section}.{name}"),
                format!(
                    "left out: kind = \"{}\" has the keys {}",
                    self.kind.name(),
                    self.kind.keys().join(", ")
                ),
            ),
            None => Ok(()),
        }
    }
}

/// The header that a way fills.
fn header_of(way: &Way) -> Option<&HeaderName> {
    match way {
        Way::Header { place, .. } | Way::Jwt { place, .. } | Way::OAuth { place, .. } => Some(&place.header),
        Way::Basic { .. } => Some(&AUTHORIZATION),
        Way::Query { .. } | Way::Aws { .. } | Way::Tencent { .. } => None,
    }
}

fn place(
    section: &str,
    header: Option<String>,
    written: Option<String>,
    otherwise: Option<(&str, &str)>,
) -> Result<Place, Flaw> {
    let or = |given: Option<String>, otherwise: Option<&str>| given.or_else(|| otherwise.map(str::to_owned));
    let header = or(header, otherwise.map(|(header, _)| header)).unwrap_or_default();
    let Ok(header) = HeaderName::try_from(&header) else {
        return flaw(format!("{section}.header"), "a header's name, for instance `Authorization`");
    };
    Ok(Place { header, value: value(section, or(written, otherwise.map(|(_, value)| value)))? })
}

fn value(section: &str, written: Option<String>) -> Result<String, Flaw> {
    let written = written.unwrap_or_default();
    if written.matches("{secret}").count() != 1 || HeaderValue::try_from(&written).is_err() {
        return flaw(
            format!("{section}.value"),
            "printable text with `{secret}` in it once, for instance `Bearer {secret}`",
        );
    }
    Ok(written)
}

fn lifetime(section: &str, span: Option<Span>, otherwise: Duration) -> Result<Duration, Flaw> {
    match span {
        None => Ok(otherwise),
        Some(Span(span)) if span >= Duration::from_mins(1) => Ok(span),
        Some(_) => flaw(format!("{section}.lifetime"), "1m or more"),
    }
}

fn token_url(section: &str, text: Option<&str>) -> Result<Url, Flaw> {
    let url = text.and_then(|text| Url::parse(text).ok());
    let url = url
        .filter(|url| hosts::plain(url).is_ok() && (url.scheme() == "https" || hosts::is_loopback_http(url)));
    match url {
        Some(url) => Ok(url),
        None => flaw(
            format!("{section}.token_url"),
            "where tokens are given, for instance `https://auth.example.com/oauth/token`; https only",
        ),
    }
}

/// `[download]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct WrittenDownload {
    #[serde(default)]
    headers: BTreeMap<String, String>,
    auth: Option<WrittenAuth>,
    /// Where its key may go; none: where questions go.
    pub(in super::super) key_hosts: Option<Vec<String>>,
}

impl WrittenDownload {
    pub(in super::super) fn check(self) -> Result<Download, Flaw> {
        let auth = self.auth.map(|auth| auth.check("download.auth")).transpose()?;
        if auth.as_ref().is_some_and(|auth| !auth.is_headers_only()) {
            return flaw(
                "download.auth.kind",
                "one of `header`, `basic`, `jwt_hs256` and `oauth2`: a download has no key in its URL and no signature",
            );
        }
        Ok(Download { headers: headers("download.headers", &self.headers)?, auth })
    }
}
