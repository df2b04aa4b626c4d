//! Makes connections: DNS lookup, TCP, an optional HTTP proxy, TLS, and the flood limit around the
//! stream.
//!
//! Server certificates are checked against the system's trusted roots. A proxy receives plain http
//! requests as they are. For https it opens a `CONNECT` tunnel, and TLS is established with the
//! host through it.

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

use super::flood::LimitedStream;
use super::{BoxError, Options};
use crate::egress::matcher;

/// How long a connection is idle before TCP keepalive probes are sent.
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
        // The connect timeout is divided among the addresses of a name.
        tcp.set_connect_timeout(Some(options.connect_timeout));
        Ok(Self {
            direct: HttpsConnector::from((tcp, Arc::clone(&tls))),
            tls,
            proxies: options.proxy.as_ref().map(|proxy| Arc::new(matcher(proxy))),
            timeout: options.connect_timeout,
        })
    }

    /// `Proxy-Authorization` for a plain http request, which the proxy reads itself. `None` for
    /// https: the tunnel has its own.
    pub(super) fn proxy_authorization(&self, to: &Uri) -> Option<HeaderValue> {
        let is_plain = to.scheme_str() == Some("http");
        self.proxies.as_ref().filter(|_| is_plain)?.intercept(to)?.basic_auth().cloned()
    }

    async fn connect(mut self, to: Uri) -> Result<LimitedStream, BoxError> {
        let Some(proxy) = self.proxies.as_ref().and_then(|proxies| proxies.intercept(&to)) else {
            return Ok(LimitedStream::new(self.direct.call(to).await?, false));
        };
        if to.scheme_str() != Some("https") {
            return Ok(LimitedStream::new(self.direct.call(proxy.uri().clone()).await?, true));
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.direct);
        if let Some(authorization) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let host = to.host().ok_or("the URL has no host")?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        let stream = tunnel.call(to).await?;
        Ok(LimitedStream::new(start_tls(self.tls, host, stream).await?, false))
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

/// Establishes TLS with `host` over an open connection.
async fn start_tls<T: Read + Write + Send + Unpin>(
    tls: Arc<ClientConfig>,
    host: String,
    stream: T,
) -> Result<TokioIo<tokio_rustls::client::TlsStream<TokioIo<T>>>, BoxError> {
    let connector = tokio_rustls::TlsConnector::from(tls);
    Ok(TokioIo::new(connector.connect(ServerName::try_from(host)?, TokioIo::new(stream)).await?))
}

impl Service<Uri> for Connector {
    type Response = LimitedStream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<LimitedStream, BoxError>> + Send>>;

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

/// Resolves names with the given resolver, or with the system's.
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
