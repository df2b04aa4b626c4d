//! The egress proxy of the settings (`network.proxy`), for requests to providers, tokens and
//! downloads.
//!
//! https uses a `CONNECT` tunnel, so the proxy sees only host and port. Plain http, which only a
//! provider's file can allow, is sent to the proxy as it is. Promise: with a proxy, no request to a
//! provider bypasses it. Loopback addresses (tests, the demo) and Google's metadata service (for
//! the token of a bucket) are reached directly. Without `network.proxy` no proxy is used: the proxy
//! variables of the environment are only read for a warning ([`ignored_variable`]).

use hyper_util::client::proxy::matcher::Matcher;
use object_store::ClientOptions;

use crate::config::HttpUrl;

/// Hosts that are reached without the proxy.
const DIRECT: &str = "localhost,127.0.0.0/8,::1";
/// Google's metadata service, which issues a machine's access token. A proxy cannot reach it.
const METADATA: &str = "169.254.169.254,metadata,metadata.google.internal";

/// Environment variables with which other programs configure a proxy. makegood ignores them for
/// providers.
const PROXY_VARIABLES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"];

/// The first of these variables that is set. Its proxy is ignored if `network.proxy` is empty.
pub fn ignored_variable() -> Option<&'static str> {
    PROXY_VARIABLES.into_iter().find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// Matches the URLs that go through `proxy`: all but loopback.
pub fn matcher(proxy: &HttpUrl) -> Matcher {
    Matcher::builder().all(proxy.expose().as_str()).no(DIRECT).build()
}

/// Adds the proxy to the options of a client that reads a provider's bucket.
pub fn proxied_bucket(options: ClientOptions, proxy: Option<&HttpUrl>) -> ClientOptions {
    match proxy {
        None => options,
        Some(proxy) => options
            .with_proxy_url(proxy.expose().as_str())
            .with_proxy_excludes(format!("{DIRECT},{METADATA}")),
    }
}
