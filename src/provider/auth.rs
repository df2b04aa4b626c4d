//! Authentication: puts the keys of a provider into a request.
//!
//! A key is sent in a header, in the query, as a signed token, as an OAuth token, or as a signature
//! of the whole request. Questions use `[auth]`, downloads `[download.auth]`, and `[[auth.also]]`
//! adds further keys. A header with a key is marked as sensitive. All secrets of a request are
//! returned, so that the caller can remove them from the answer. A key in the query is only in the
//! URL that is sent ([`OutgoingRequest`]), never in the one that is stored or displayed.
//! `auth/config` checks the TOML, `auth/token` signs tokens, `auth/oauth` requests tokens, and
//! `auth/sign` signs requests.

mod config;
mod oauth;
mod sign;
mod token;

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use url::form_urlencoded;

use self::oauth::TokenSource;
use self::sign::SigningKeys;
use super::outgoing::{AuthContext, OutgoingRequest};
use super::secret::{Secret, SecretError, SecretReader, SecretSource};

pub(super) use self::config::{AuthToml, DownloadToml};

/// The section `[download]`: the headers and the key for downloads of files that need a key.
#[derive(Debug)]
pub(super) struct DownloadOptions {
    pub(super) headers: HeaderMap,
    /// `None`: the same key as for questions.
    pub(super) auth: Option<Auth>,
}

/// How the keys are sent: all methods are applied in this order.
#[derive(Debug)]
pub(super) struct Auth {
    methods: Vec<AuthMethod>,
}

/// A header that contains a key.
#[derive(Debug)]
struct HeaderTemplate {
    header: HeaderName,
    /// Contains `{secret}` once.
    value: String,
}

/// How one key is sent.
#[derive(Debug)]
enum AuthMethod {
    /// The key itself, in a header.
    Header { template: HeaderTemplate, secret: SecretReader },
    /// The key as a parameter of the URL; `value` contains `{secret}` once.
    Query { parameter: String, value: String, secret: SecretReader },
    /// User and password (RFC 7617), either of which may be missing.
    Basic { user: Option<SecretReader>, password: Option<SecretReader> },
    /// A token signed with the secret (RFC 7519).
    Jwt { template: HeaderTemplate, issuer: SecretReader, secret: SecretReader, lifetime: Duration },
    /// A token that the provider issues for a client's id and secret (RFC 6749).
    OAuth { template: HeaderTemplate, tokens: TokenSource },
    /// AWS Signature Version 4.
    Aws {
        access: SecretReader,
        secret: SecretReader,
        session: Option<SecretReader>,
        region: String,
        service: String,
    },
    /// Tencent Cloud's signature.
    Tencent { access: SecretReader, secret: SecretReader, service: String },
}

/// The keys that were put into a request.
#[derive(Debug, Default)]
pub(super) struct AppliedKeys {
    secrets: Vec<Secret>,
    /// The run that each key comes from ([`SecretReader::get`]), in the order of the methods.
    runs: Vec<u64>,
}

impl AppliedKeys {
    /// All texts that must be removed from an answer before it is stored.
    pub(super) fn secrets(&self) -> Vec<&str> {
        self.secrets.iter().map(Secret::expose).collect()
    }

    /// Reads a key and records it.
    async fn read(&mut self, reader: &SecretReader, provider: &str) -> Result<Secret, SecretError> {
        let (secret, run) = reader.get(provider).await?;
        self.runs.push(run);
        self.add_secret(secret.clone());
        Ok(secret)
    }

    fn add_secret(&mut self, secret: Secret) {
        // An answer may also repeat it in the encoding of a URL or a form.
        let encoded: String = form_urlencoded::byte_serialize(secret.expose().as_bytes()).collect();
        if encoded != secret.expose() {
            self.secrets.push(Secret::new(encoded));
        }
        self.secrets.push(secret);
    }
}

impl HeaderTemplate {
    /// Sets the header with the key. It replaces a header of the same name.
    fn fill(&self, secret: &str, provider: &str, headers: &mut HeaderMap) -> Result<(), SecretError> {
        let mut value = HeaderValue::try_from(self.value.replace("{secret}", secret))
            .map_err(|_| SecretError::NotAHeader { provider: provider.to_owned() })?;
        value.set_sensitive(true);
        headers.insert(self.header.clone(), value);
        Ok(())
    }
}

impl Auth {
    /// Reads the keys and puts them into the request.
    pub(super) async fn apply(
        &self,
        context: &AuthContext<'_>,
        out: &mut OutgoingRequest,
    ) -> Result<AppliedKeys, SecretError> {
        let mut applied = AppliedKeys::default();
        for method in &self.methods {
            method.apply(context, out, &mut applied).await?;
        }
        Ok(applied)
    }

    /// Reports that the provider rejected these keys. Returns whether new keys may be available.
    pub(super) async fn rejected(&self, applied: &AppliedKeys) -> bool {
        let mut runs = applied.runs.iter();
        let mut renewed = false;
        for method in &self.methods {
            for reader in method.readers() {
                let Some(run) = runs.next() else { return renewed };
                renewed |= reader.rejected(*run).await;
            }
            if let AuthMethod::OAuth { tokens, .. } = method {
                let Some(run) = runs.next() else { return renewed };
                renewed |= tokens.cache.rejected(*run).await;
            }
        }
        renewed
    }

    /// Reports that the provider rejected the latest keys.
    pub(super) async fn latest_rejected(&self) {
        for method in &self.methods {
            for reader in method.readers() {
                reader.rejected(reader.run().await).await;
            }
            if let AuthMethod::OAuth { tokens, .. } = method {
                tokens.cache.rejected(tokens.cache.run().await).await;
            }
        }
    }

    /// Checks that the keys exist, as far as this is possible without running commands or sending
    /// requests.
    pub(super) fn present(&self, provider: &str) -> Result<(), SecretError> {
        for method in &self.methods {
            method.readers().into_iter().try_for_each(|reader| reader.read(provider).map(drop))?;
            if let AuthMethod::OAuth { tokens, .. } = method {
                tokens.client_id.read(provider)?;
                tokens.client_secret.read(provider)?;
            }
        }
        Ok(())
    }

    /// Where the first key comes from.
    pub(super) fn source(&self) -> Option<&SecretSource> {
        self.methods.first().and_then(AuthMethod::main).map(SecretReader::source)
    }

    /// Whether the keys can be sent with a download, which permits only headers.
    pub(super) fn is_headers_only(&self) -> bool {
        self.methods.iter().all(|method| match method {
            AuthMethod::Header { .. }
            | AuthMethod::Basic { .. }
            | AuthMethod::Jwt { .. }
            | AuthMethod::OAuth { .. } => true,
            AuthMethod::Query { .. } | AuthMethod::Aws { .. } | AuthMethod::Tencent { .. } => false,
        })
    }
}

impl AuthMethod {
    async fn apply(
        &self,
        context: &AuthContext<'_>,
        out: &mut OutgoingRequest,
        applied: &mut AppliedKeys,
    ) -> Result<(), SecretError> {
        let provider = context.provider;
        let unsendable = || SecretError::NotAHeader { provider: provider.to_owned() };
        match self {
            Self::Header { template, secret } => {
                let secret = applied.read(secret, provider).await?;
                template.fill(secret.expose(), provider, &mut out.headers)
            }
            Self::Query { parameter, value, secret } => {
                let secret = applied.read(secret, provider).await?;
                let value = value.replace("{secret}", secret.expose());
                out.url.query_pairs_mut().append_pair(parameter, &value);
                Ok(())
            }
            Self::Basic { user, password } => {
                let mut words = Vec::new();
                for reader in [user, password] {
                    words.push(match reader {
                        Some(reader) => applied.read(reader, provider).await?.expose().to_owned(),
                        None => String::new(),
                    });
                }
                let pair = BASE64_STANDARD.encode(words.join(":"));
                let mut value = HeaderValue::try_from(format!("Basic {pair}")).map_err(|_| unsendable())?;
                value.set_sensitive(true);
                out.headers.insert(AUTHORIZATION, value);
                applied.add_secret(Secret::new(pair));
                Ok(())
            }
            Self::Jwt { template, issuer, secret, lifetime } => {
                let secret = applied.read(secret, provider).await?;
                let issuer = applied.read(issuer, provider).await?;
                let token = token::signed(issuer.expose(), secret.expose(), context.now, *lifetime);
                template.fill(&token, provider, &mut out.headers)?;
                applied.add_secret(Secret::new(token));
                Ok(())
            }
            Self::OAuth { template, tokens } => {
                let (token, run, client) = tokens.get(context).await?;
                applied.runs.push(run);
                for word in client {
                    applied.add_secret(word);
                }
                template.fill(token.expose(), provider, &mut out.headers)?;
                applied.add_secret(token);
                Ok(())
            }
            Self::Aws { access, secret, session, region, service } => {
                let secret = applied.read(secret, provider).await?;
                let access = applied.read(access, provider).await?;
                let session = match session {
                    Some(reader) => Some(applied.read(reader, provider).await?),
                    None => None,
                };
                let keys = SigningKeys {
                    access: access.expose(),
                    secret: secret.expose(),
                    session: session.as_ref().map(Secret::expose),
                };
                let signed = sign::aws(out, &keys, region, service, context.now);
                if signed { Ok(()) } else { Err(unsendable()) }
            }
            Self::Tencent { access, secret, service } => {
                let secret = applied.read(secret, provider).await?;
                let access = applied.read(access, provider).await?;
                let keys = SigningKeys { access: access.expose(), secret: secret.expose(), session: None };
                let signed = sign::tencent(out, &keys, service, context.now);
                if signed { Ok(()) } else { Err(unsendable()) }
            }
        }
    }

    /// Its keys in the order in which `apply` reads them, except the client's id and secret of
    /// OAuth.
    fn readers(&self) -> Vec<&SecretReader> {
        match self {
            Self::Header { secret, .. } | Self::Query { secret, .. } => vec![secret],
            Self::Basic { user, password } => user.iter().chain(password).collect(),
            Self::Jwt { issuer, secret, .. } => vec![secret, issuer],
            Self::OAuth { .. } => Vec::new(),
            Self::Aws { access, secret, session, .. } => {
                [secret, access].into_iter().chain(session).collect()
            }
            Self::Tencent { access, secret, .. } => vec![secret, access],
        }
    }

    /// The key whose source is displayed.
    fn main(&self) -> Option<&SecretReader> {
        match self {
            Self::Basic { user, password } => password.as_ref().or(user.as_ref()),
            Self::OAuth { tokens, .. } => Some(&tokens.client_secret),
            Self::Header { secret, .. }
            | Self::Query { secret, .. }
            | Self::Jwt { secret, .. }
            | Self::Aws { secret, .. }
            | Self::Tencent { secret, .. } => Some(secret),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::clock::Timestamp;

    fn auth(text: &str) -> Auth {
        toml::from_str::<AuthToml>(text).unwrap().check("auth").unwrap()
    }

    /// Applies the keys to a GET request and returns its headers.
    async fn apply(auth: &Auth, name: &str) -> Result<(AppliedKeys, HeaderMap), SecretError> {
        let context = AuthContext { provider: name, now: NOW, client: Err("none here".to_owned()) };
        let mut out = OutgoingRequest::of_download(HeaderMap::new()).unwrap();
        auth.apply(&context, &mut out).await.map(|applied| (applied, out.headers))
    }

    const NOW: Timestamp = Timestamp::from_micros(1_764_000_000_000_000);

    #[tokio::test]
    async fn a_key_file_is_read_again_for_each_request_and_the_key_is_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let auth = auth(&format!(
            "header = \"Authorization\"\nvalue = \"Bearer {{secret}}\"\nsecret = {{ file = {path:?} }}"
        ));
        for key in ["first-key", "second-key"] {
            std::fs::write(&path, format!("{key}\n")).unwrap();
            let (applied, headers) = apply(&auth, "acme").await.unwrap();
            assert_eq!(headers["authorization"].to_str().unwrap(), format!("Bearer {key}"));
            assert_eq!(applied.secrets(), [key]);
            let shown = format!("{applied:?} {auth:?} {:?}", headers["authorization"]);
            assert!(shown.contains("[secret]") && shown.contains("Sensitive"), "{shown}");
            assert!(!shown.contains("-key\""), "{shown}");
        }
        std::fs::write(&path, "two\nlines").unwrap();
        let error = apply(&auth, "acme").await.unwrap_err();
        assert!(!error.to_string().contains("lines"), "{error}");
    }

    #[tokio::test]
    async fn a_jwt_has_issuer_and_expiry_and_both_its_keys_are_removed_from_answers() {
        let dir = tempfile::tempdir().unwrap();
        for (name, key) in [("access", "ak-1"), ("secret", "sk-1")] {
            std::fs::write(dir.path().join(name), key).unwrap();
        }
        let path = dir.path().display();
        let auth = auth(&format!(
            "kind = \"jwt_hs256\"\nheader = \"Authorization\"\nvalue = \"Bearer {{secret}}\"\n\
             access_key = {{ file = \"{path}/access\" }}\nsecret = {{ file = \"{path}/secret\" }}"
        ));
        let (applied, headers) = apply(&auth, "kling").await.unwrap();
        let sent = headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
        for word in ["sk-1", "ak-1", sent] {
            assert!(applied.secrets().contains(&word), "{word}");
        }
        let claims = sent.split('.').nth(1).unwrap();
        let claims: serde_json::Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        assert_eq!(claims, serde_json::json!({"iss": "ak-1", "exp": 1_764_001_800, "nbf": 1_763_999_995}));
        std::fs::remove_file(dir.path().join("access")).unwrap();
        assert!(auth.present("kling").is_err());
        assert!(apply(&auth, "kling").await.is_err());
    }
}
