//! How a provider wants its keys: in headers, in the query, as a signed token, as a token of its
//! own, or as a signature of the whole request.
//!
//! Questions and downloads may have keys of their own (`[auth]`, `[download.auth]`), and
//! `[[auth.also]]` adds further ones to the first. A header with a key is marked sensitive, and
//! every word of a key is handed to whoever cleans answers. A key in the query is put into the URL
//! that goes out ([`Outgoing`]) and never into the one that is shown. `auth/token` signs tokens,
//! `auth/oauth` asks for them, `auth/sign` signs requests.

mod oauth;
mod sign;
mod token;
mod written;

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use url::form_urlencoded;

use self::oauth::Tokens;
use self::sign::Keys;
use super::outgoing::{Caller, Outgoing};
use super::secret::{Held, Secret, SecretError, SecretSource};

pub(super) use self::written::{WrittenAuth, WrittenDownload};

/// What is sent along with the download of a file that needs the key.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) headers: HeaderMap,
    /// None: as when asking.
    pub(super) auth: Option<Auth>,
}

/// How keys are sent: the ways in turn.
#[derive(Debug)]
pub(super) struct Auth {
    ways: Vec<Way>,
}

/// Where a key stands in a header.
#[derive(Debug)]
struct Place {
    header: HeaderName,
    /// Holds `{secret}` once.
    value: String,
}

/// How one key is sent.
#[derive(Debug)]
enum Way {
    /// As it is.
    Header { place: Place, secret: Held },
    /// As a parameter of the URL; `value` holds `{secret}` once.
    Query { parameter: String, value: String, secret: Held },
    /// User and password (RFC 7617), either of which may be missing.
    Basic { user: Option<Held>, password: Option<Held> },
    /// A token signed with the secret (RFC 7519).
    Jwt { place: Place, issuer: Held, secret: Held, lifetime: Duration },
    /// A token that the provider gives for a client's id and secret (RFC 6749).
    OAuth { place: Place, tokens: Tokens },
    /// AWS Signature Version 4.
    Aws { access: Held, secret: Held, session: Option<Held>, region: String, service: String },
    /// Tencent Cloud's signature.
    Tencent { access: Held, secret: Held, service: String },
}

/// Keys that were put into a request.
#[derive(Debug, Default)]
pub(super) struct Applied {
    words: Vec<Secret>,
    /// Which run of each key's command or token endpoint it comes from, in the order of the ways.
    runs: Vec<u64>,
}

impl Applied {
    /// All that must not be kept of an answer that repeats it.
    pub(super) fn words(&self) -> Vec<&str> {
        self.words.iter().map(Secret::expose).collect()
    }

    /// Reads a key and notes it.
    async fn take(&mut self, held: &Held, provider: &str) -> Result<Secret, SecretError> {
        let (secret, run) = held.get(provider).await?;
        self.runs.push(run);
        self.note(secret.clone());
        Ok(secret)
    }

    fn note(&mut self, secret: Secret) {
        // As a URL or a form would repeat it.
        let encoded: String = form_urlencoded::byte_serialize(secret.expose().as_bytes()).collect();
        if encoded != secret.expose() {
            self.words.push(Secret::new(encoded));
        }
        self.words.push(secret);
    }
}

impl Place {
    /// Puts the key into its header, replacing one of that name.
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
        caller: &Caller<'_>,
        out: &mut Outgoing,
    ) -> Result<Applied, SecretError> {
        let mut applied = Applied::default();
        for way in &self.ways {
            way.apply(caller, out, &mut applied).await?;
        }
        Ok(applied)
    }

    /// The provider has refused these keys: whether asking again would bring others.
    pub(super) async fn refused(&self, applied: &Applied) -> bool {
        let mut runs = applied.runs.iter();
        let mut renewed = false;
        for way in &self.ways {
            for held in way.helds() {
                let Some(run) = runs.next() else { return renewed };
                renewed |= held.refused(*run).await;
            }
            if let Way::OAuth { tokens, .. } = way {
                let Some(run) = runs.next() else { return renewed };
                renewed |= tokens.kept.refused(*run).await;
            }
        }
        renewed
    }

    /// The provider has refused the keys that were last given out.
    pub(super) async fn refused_now(&self) {
        for way in &self.ways {
            for held in way.helds() {
                held.refused(held.run().await).await;
            }
            if let Way::OAuth { tokens, .. } = way {
                tokens.kept.refused(tokens.kept.run().await).await;
            }
        }
    }

    /// Whether the keys are there, as far as that can be told without running or asking anything.
    pub(super) fn present(&self, provider: &str) -> Result<(), SecretError> {
        for way in &self.ways {
            way.helds().into_iter().try_for_each(|held| held.read(provider).map(drop))?;
            if let Way::OAuth { tokens, .. } = way {
                tokens.client_id.read(provider)?;
                tokens.client_secret.read(provider)?;
            }
        }
        Ok(())
    }

    /// Where the first key is looked for.
    pub(super) fn source(&self) -> Option<&SecretSource> {
        self.ways.first().and_then(Way::main).map(Held::source)
    }

    /// Whether it can go with a download, of which only the headers are ours.
    pub(super) fn is_headers_only(&self) -> bool {
        self.ways.iter().all(|way| match way {
            Way::Header { .. } | Way::Basic { .. } | Way::Jwt { .. } | Way::OAuth { .. } => true,
            Way::Query { .. } | Way::Aws { .. } | Way::Tencent { .. } => false,
        })
    }
}

impl Way {
    async fn apply(
        &self,
        caller: &Caller<'_>,
        out: &mut Outgoing,
        applied: &mut Applied,
    ) -> Result<(), SecretError> {
        let provider = caller.provider;
        let unsendable = || SecretError::NotAHeader { provider: provider.to_owned() };
        match self {
            Self::Header { place, secret } => {
                let secret = applied.take(secret, provider).await?;
                place.fill(secret.expose(), provider, &mut out.headers)
            }
            Self::Query { parameter, value, secret } => {
                let secret = applied.take(secret, provider).await?;
                let value = value.replace("{secret}", secret.expose());
                out.url.query_pairs_mut().append_pair(parameter, &value);
                Ok(())
            }
            Self::Basic { user, password } => {
                let mut words = Vec::new();
                for held in [user, password] {
                    words.push(match held {
                        Some(held) => applied.take(held, provider).await?.expose().to_owned(),
                        None => String::new(),
                    });
                }
                let pair = BASE64_STANDARD.encode(words.join(":"));
                let mut value = HeaderValue::try_from(format!("Basic {pair}")).map_err(|_| unsendable())?;
                value.set_sensitive(true);
                out.headers.insert(AUTHORIZATION, value);
                applied.note(Secret::new(pair));
                Ok(())
            }
            Self::Jwt { place, issuer, secret, lifetime } => {
                let secret = applied.take(secret, provider).await?;
                let issuer = applied.take(issuer, provider).await?;
                let token = token::signed(issuer.expose(), secret.expose(), caller.now, *lifetime);
                place.fill(&token, provider, &mut out.headers)?;
                applied.note(Secret::new(token));
                Ok(())
            }
            Self::OAuth { place, tokens } => {
                let (token, run, client) = tokens.get(caller).await?;
                applied.runs.push(run);
                for word in client {
                    applied.note(word);
                }
                place.fill(token.expose(), provider, &mut out.headers)?;
                applied.note(token);
                Ok(())
            }
            Self::Aws { access, secret, session, region, service } => {
                let secret = applied.take(secret, provider).await?;
                let access = applied.take(access, provider).await?;
                let session = match session {
                    Some(held) => Some(applied.take(held, provider).await?),
                    None => None,
                };
                let keys = Keys {
                    access: access.expose(),
                    secret: secret.expose(),
                    session: session.as_ref().map(Secret::expose),
                };
                let signed = sign::aws(out, &keys, region, service, caller.now);
                if signed { Ok(()) } else { Err(unsendable()) }
            }
            Self::Tencent { access, secret, service } => {
                let secret = applied.take(secret, provider).await?;
                let access = applied.take(access, provider).await?;
                let keys = Keys { access: access.expose(), secret: secret.expose(), session: None };
                let signed = sign::tencent(out, &keys, service, caller.now);
                if signed { Ok(()) } else { Err(unsendable()) }
            }
        }
    }

    /// Its keys in the order in which they are taken, apart from a client's id and secret.
    fn helds(&self) -> Vec<&Held> {
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

    /// The key that people are told about.
    fn main(&self) -> Option<&Held> {
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
        toml::from_str::<WrittenAuth>(text).unwrap().check("auth").unwrap()
    }

    /// The headers that a GET would have.
    async fn apply(auth: &Auth, name: &str) -> Result<(Applied, HeaderMap), SecretError> {
        let caller = Caller { provider: name, now: NOW, client: Err("none here".to_owned()) };
        let mut out = Outgoing::of_download(HeaderMap::new()).unwrap();
        auth.apply(&caller, &mut out).await.map(|applied| (applied, out.headers))
    }

    const NOW: Timestamp = Timestamp::from_micros(1_764_000_000_000_000);

    #[tokio::test]
    async fn a_key_is_read_anew_each_time_and_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let auth = auth(&format!(
            "header = \"Authorization\"\nvalue = \"Bearer {{secret}}\"\nsecret = {{ file = {path:?} }}"
        ));
        for key in ["first-key", "second-key"] {
            std::fs::write(&path, format!("{key}\n")).unwrap();
            let (applied, headers) = apply(&auth, "acme").await.unwrap();
            assert_eq!(headers["authorization"].to_str().unwrap(), format!("Bearer {key}"));
            assert_eq!(applied.words(), [key]);
            let shown = format!("{applied:?} {auth:?} {:?}", headers["authorization"]);
            assert!(shown.contains("[secret]") && shown.contains("Sensitive"), "{shown}");
            assert!(!shown.contains("-key\""), "{shown}");
        }
        std::fs::write(&path, "two\nlines").unwrap();
        let error = apply(&auth, "acme").await.unwrap_err();
        assert!(!error.to_string().contains("lines"), "{error}");
    }

    #[tokio::test]
    async fn a_token_says_who_and_until_when_and_both_its_keys_are_cleaned_out_of_answers() {
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
            assert!(applied.words().contains(&word), "{word}");
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
