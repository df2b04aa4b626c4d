//! Reads and checks the sections `[auth]` and `[download]` of a provider file.
//!
//! Every `kind` has its own keys. A missing key and a key of another kind are rejected by name. If
//! such a key were ignored, the provider would reject the requests later.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use serde::Deserialize;
use url::Url;

use super::super::duration::DurationText;
use super::super::file::headers;
use super::super::file_error::{FileError, invalid};
use super::super::hosts;
use super::super::secret::{SecretCache, SecretReader, SecretSource};
use super::oauth::{ClientAuth, TokenSource};
use super::{Auth, AuthMethod, DownloadOptions, HeaderTemplate};

/// The default lifetime of a signed token.
const JWT_LIFETIME: Duration = Duration::from_mins(30);
/// The default lifetime of an OAuth token whose answer has no `expires_in`.
const OAUTH_LIFETIME: Duration = Duration::from_mins(5);

/// The section `[auth]` in TOML.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct AuthToml {
    #[serde(default)]
    kind: Kind,
    header: Option<String>,
    value: Option<String>,
    secret: Option<SecretSource>,
    access_key: Option<SecretSource>,
    session_token: Option<SecretSource>,
    lifetime: Option<DurationText>,
    parameter: Option<String>,
    region: Option<String>,
    service: Option<String>,
    token_url: Option<String>,
    client_auth: Option<ClientAuth>,
    scope: Option<String>,
    audience: Option<String>,
    #[serde(default)]
    also: Vec<AuthToml>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// The key itself, in a header.
    #[default]
    Header,
    /// The key in the query of the URL.
    Query,
    /// User and password.
    Basic,
    /// A token signed with HMAC-SHA256, made from an access key and a secret key.
    JwtHs256,
    /// A token that the provider issues for a client's id and secret.
    Oauth2,
    /// A request signed with AWS Signature Version 4.
    AwsSigv4,
    /// A request signed with Tencent Cloud's signature v3.
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

    /// The keys that it may have in addition to `kind` and `also`.
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

impl AuthToml {
    pub(in super::super) fn check(self, section: &str) -> Result<Auth, FileError> {
        let mut methods = Vec::new();
        let mut written = vec![(section.to_owned(), self)];
        for (nth, also) in std::mem::take(&mut written[0].1.also).into_iter().enumerate() {
            let section = format!("{section}.also[{nth}]");
            if !also.also.is_empty() {
                return invalid(
                    format!("{section}.also"),
                    format!("removed: add another `[[{}.also]]` instead", written[0].0),
                );
            }
            written.push((section, also));
        }
        for (section, one) in written {
            let method = one.method(&section)?;
            let whole =
                |method: &AuthMethod| matches!(method, AuthMethod::Aws { .. } | AuthMethod::Tencent { .. });
            // A signature would not cover a key that is added after it.
            if let Some(first) = methods.first()
                && (whole(&method) || whole(first))
            {
                return invalid(
                    format!("{section}.kind"),
                    "one that does not sign the request: a signature cannot be combined with another key",
                );
            }
            if let Some(name) = header_of(&method)
                && methods.iter().any(|other| header_of(other) == Some(name))
            {
                return invalid(section, format!("in another header than `{name}`, which already has a key"));
            }
            methods.push(method);
        }
        Ok(Auth { methods })
    }

    fn method(self, section: &str) -> Result<AuthMethod, FileError> {
        let key = |name: &str| format!("{section}.{name}");
        self.check_foreign_keys(section)?;
        let kind = self.kind;
        let reader = |name: &str, source: Option<SecretSource>| match source {
            Some(source) => Ok(SecretReader::new(source)),
            None => invalid(
                key(name),
                format!(
                    "the source of the key, for instance {{ env = \"NAME\" }}: kind = \"{}\" needs it",
                    kind.name()
                ),
            ),
        };
        let word = |name: &str, text: Option<String>, example: &str| match text {
            Some(text) if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != '/') => {
                Ok(text)
            }
            _ => invalid(key(name), format!("a word, for instance `{example}`")),
        };
        Ok(match kind {
            Kind::Header => AuthMethod::Header {
                template: header_template(section, self.header, self.value, None)?,
                secret: reader("secret", self.secret)?,
            },
            Kind::Query => AuthMethod::Query {
                parameter: word("parameter", self.parameter, "api_key")?,
                value: value(section, self.value.or_else(|| Some("{secret}".to_owned())))?,
                secret: reader("secret", self.secret)?,
            },
            Kind::Basic => {
                if self.secret.is_none() && self.access_key.is_none() {
                    return invalid(
                        key("secret"),
                        "the source of the password, or `access_key` the source of the user, or both",
                    );
                }
                AuthMethod::Basic {
                    user: self.access_key.map(SecretReader::new),
                    password: self.secret.map(SecretReader::new),
                }
            }
            Kind::JwtHs256 => AuthMethod::Jwt {
                template: header_template(section, self.header, self.value, None)?,
                issuer: reader("access_key", self.access_key)?,
                secret: reader("secret", self.secret)?,
                lifetime: lifetime(section, self.lifetime, JWT_LIFETIME)?,
            },
            Kind::Oauth2 => AuthMethod::OAuth {
                template: header_template(
                    section,
                    self.header,
                    self.value,
                    Some(("Authorization", "Bearer {secret}")),
                )?,
                tokens: TokenSource {
                    url: token_url(section, self.token_url.as_deref())?,
                    client_id: reader("access_key", self.access_key)?,
                    client_secret: reader("secret", self.secret)?,
                    client_auth: self.client_auth.unwrap_or_default(),
                    scope: self.scope,
                    audience: self.audience,
                    lifetime: lifetime(section, self.lifetime, OAUTH_LIFETIME)?,
                    cache: SecretCache::default(),
                },
            },
            Kind::AwsSigv4 => AuthMethod::Aws {
                access: reader("access_key", self.access_key)?,
                secret: reader("secret", self.secret)?,
                session: self.session_token.map(SecretReader::new),
                region: word("region", self.region, "us-east-1")?,
                service: word("service", self.service, "bedrock")?,
            },
            Kind::Tc3HmacSha256 => AuthMethod::Tencent {
                access: reader("access_key", self.access_key)?,
                secret: reader("secret", self.secret)?,
                service: word("service", self.service, "vclm")?,
            },
        })
    }

    /// Rejects keys of other kinds.
    fn check_foreign_keys(&self, section: &str) -> Result<(), FileError> {
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
            Some((name, _)) => invalid(
                format!("{section}.{name}"),
                format!(
                    "removed: kind = \"{}\" has the keys {}",
                    self.kind.name(),
                    self.kind.keys().join(", ")
                ),
            ),
            None => Ok(()),
        }
    }
}

/// The header that a method sets.
fn header_of(method: &AuthMethod) -> Option<&HeaderName> {
    match method {
        AuthMethod::Header { template, .. }
        | AuthMethod::Jwt { template, .. }
        | AuthMethod::OAuth { template, .. } => Some(&template.header),
        AuthMethod::Basic { .. } => Some(&AUTHORIZATION),
        AuthMethod::Query { .. } | AuthMethod::Aws { .. } | AuthMethod::Tencent { .. } => None,
    }
}

fn header_template(
    section: &str,
    header: Option<String>,
    written: Option<String>,
    otherwise: Option<(&str, &str)>,
) -> Result<HeaderTemplate, FileError> {
    let or = |given: Option<String>, otherwise: Option<&str>| given.or_else(|| otherwise.map(str::to_owned));
    let header = or(header, otherwise.map(|(header, _)| header)).unwrap_or_default();
    let Ok(header) = HeaderName::try_from(&header) else {
        return invalid(format!("{section}.header"), "the name of a header, for instance `Authorization`");
    };
    Ok(HeaderTemplate { header, value: value(section, or(written, otherwise.map(|(_, value)| value)))? })
}

fn value(section: &str, written: Option<String>) -> Result<String, FileError> {
    let written = written.unwrap_or_default();
    if written.matches("{secret}").count() != 1 || HeaderValue::try_from(&written).is_err() {
        return invalid(
            format!("{section}.value"),
            "printable text that contains `{secret}` once, for instance `Bearer {secret}`",
        );
    }
    Ok(written)
}

fn lifetime(section: &str, span: Option<DurationText>, otherwise: Duration) -> Result<Duration, FileError> {
    match span {
        None => Ok(otherwise),
        Some(DurationText(span)) if span >= Duration::from_mins(1) => Ok(span),
        Some(_) => invalid(format!("{section}.lifetime"), "1m or more"),
    }
}

fn token_url(section: &str, text: Option<&str>) -> Result<Url, FileError> {
    let url = text.and_then(|text| Url::parse(text).ok());
    let url = url
        .filter(|url| hosts::plain(url).is_ok() && (url.scheme() == "https" || hosts::is_loopback_http(url)));
    match url {
        Some(url) => Ok(url),
        None => invalid(
            format!("{section}.token_url"),
            "the https URL of the token endpoint, for instance `https://auth.example.com/oauth/token`",
        ),
    }
}

/// The section `[download]` in TOML.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct DownloadToml {
    #[serde(default)]
    headers: BTreeMap<String, String>,
    auth: Option<AuthToml>,
    /// The hosts that the key of a download may be sent to; `None`: the hosts of questions.
    pub(in super::super) key_hosts: Option<Vec<String>>,
}

impl DownloadToml {
    pub(in super::super) fn check(self) -> Result<DownloadOptions, FileError> {
        let auth = self.auth.map(|auth| auth.check("download.auth")).transpose()?;
        if auth.as_ref().is_some_and(|auth| !auth.is_headers_only()) {
            return invalid(
                "download.auth.kind",
                "one of `header`, `basic`, `jwt_hs256` and `oauth2`: downloads cannot be signed or have a key in the URL",
            );
        }
        Ok(DownloadOptions { headers: headers("download.headers", &self.headers)?, auth })
    }
}
