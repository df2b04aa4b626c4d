//! Connections: name to address, TCP, a proxy where the settings name one, TLS, and a gate around
//! it all.
//!
//! Certificates are those that the system trusts. An HTTP proxy gets plain requests as they are and
//! opens a tunnel for the others, inside of which TLS goes to the host itself.

use std::pin::Pin;
use std::str::FromStr as _;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::rt::{Read, Write};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use reqwest::dns::{Addrs, Resolve, Resolving};
use reqwest::header::HeaderValue;
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tower_service::Service;

use super::gate::Gated;
use super::{BoxError, Options};
use crate::egress::matcher;

/// How long a connection is silent before TCP asks whether anybody is there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    direct: HttpsConnector<HttpConnector<Resolver>>,
    tls: Arc<ClientConfig>,
    proxies: Option<Arc<Matcher>>,
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(options: &Options) -> Result<Self, BoxError> {
        let tls = tls()?;
        let mut tcp = HttpConnector::new_with_resolver(Resolver(options.resolver.clone()));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        // Of several addresses each gets its part.
        tcp.set_connect_timeout(Some(options.connect_timeout));
        Ok(Self {
            direct: HttpsConnector::from((tcp, Arc::clone(&tls))),
            tls,
            proxies: options.proxy.as_ref().map(|proxy| Arc::new(matcher(proxy))),
            timeout: options.connect_timeout,
        })
    }

    /// The key for a proxy that sees the request itself.
    pub(super) fn proxy_key(&self, to: &Uri) -> Option<HeaderValue> {
        let is_plain = to.scheme_str() == Some("http");
        self.proxies.as_ref().filter(|_| is_plain)?.intercept(to)?.basic_auth().cloned()
    }

    async fn connect(mut self, to: Uri) -> Result<Gated, BoxError> {
        let Some(proxy) = self.proxies.as_ref().and_then(|proxies| proxies.intercept(&to)) else {
            return Ok(Gated::new(self.direct.call(to).await?, false));
        };
        if to.scheme_str() != Some("https") {
            return Ok(Gated::new(self.direct.call(proxy.uri().clone()).await?, true));
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.direct);
        if let Some(key) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(key.clone());
        }
        let host = to.host().ok_or("the URL has no host")?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        let inside = tunnel.call(to).await?;
        Ok(Gated::new(secured(self.tls, host, inside).await?, false))
    }
}

/// The TLS configuration of all clients of this process. It is made once, because reading the CA
/// certificates takes milliseconds. A changed set of certificates is read by the next process.
fn tls() -> Result<Arc<ClientConfig>, BoxError> {
    static MADE: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(made) = MADE.get() {
        return Ok(Arc::clone(made));
    }
    let crypto = CryptoProvider::get_default().ok_or("no TLS provider is installed")?;
    let mut tls = ClientConfig::builder_with_provider(Arc::clone(crypto))
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::clone(MADE.get_or_init(|| Arc::new(tls))))
}

/// TLS to `host` over a connection that stands.
async fn secured<T: Read + Write + Send + Unpin>(
    tls: Arc<ClientConfig>,
    host: String,
    inside: T,
) -> Result<TokioIo<tokio_rustls::client::TlsStream<TokioIo<T>>>, BoxError> {
    let connector = tokio_rustls::TlsConnector::from(tls);
    Ok(TokioIo::new(connector.connect(ServerName::try_from(host)?, TokioIo::new(inside)).await?))
}

impl Service<Uri> for Connector {
    type Response = Gated;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Gated, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let (timeout, connector) = (self.timeout, self.clone());
        Box::pin(async move {
            let connected = tokio::time::timeout(timeout, connector.connect(to)).await;
            connected.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
        })
    }
}

/// Looks names up, the system's way or another.
#[derive(Clone)]
struct Resolver(Option<Arc<dyn Resolve>>);

impl Service<Name> for Resolver {
    type Response = Addrs;
    type Error = BoxError;
    type Future = Resolving;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Resolving {
        let Some(resolver) = &self.0 else {
            let looked_up = GaiResolver::new().call(name);
            return Box::pin(async move { Ok(Box::new(looked_up.await?) as Addrs) });
        };
        match reqwest::dns::Name::from_str(name.as_str()) {
            Ok(name) => resolver.resolve(name),
            Err(error) => Box::pin(async move { Err(error.into()) }),
        }
    }
}
