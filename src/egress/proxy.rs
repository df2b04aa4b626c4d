//! The egress proxy of the settings (`network.proxy`), for questions, tokens and downloads.
//!
//! https goes through a `CONNECT` tunnel, so that the proxy sees host and port and nothing else;
//! plain http, which only a provider's file can allow, is sent to the proxy as it is. Promise: with
//! a proxy, nothing is sent to a provider past it; this machine (tests, the demo) and Google's
//! metadata service, for the token of a bucket, are reached directly. Without one, no proxy is
//! used: the variables that other programs take one from are only looked at to say so
//! ([`ignored_variable`]).

use hyper_util::client::proxy::matcher::Matcher;
use object_store::ClientOptions;

use crate::config::HttpUrl;

/// What is reached without the proxy.
const DIRECT: &str = "localhost,127.0.0.0/8,::1";
/// Where a machine of Google's gets its own token: behind no proxy.
const METADATA: &str = "169.254.169.254,metadata,metadata.google.internal";

/// The variables of the environment that other programs take a proxy from. makegood ignores them
/// for providers.
const PROXY_VARIABLES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"];

/// The variable that names a proxy which is ignored, because `network.proxy` is empty.
pub fn ignored_variable() -> Option<&'static str> {
    PROXY_VARIABLES.into_iter().find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// Says of each URL that it is reached through `proxy`, or, on this machine, directly.
pub fn matcher(proxy: &HttpUrl) -> Matcher {
    Matcher::builder().all(proxy.expose().as_str()).no(DIRECT).build()
}

/// The same in the options of the client of a bucket that a provider leaves files in.
pub fn proxied_bucket(options: ClientOptions, proxy: Option<&HttpUrl>) -> ClientOptions {
    match proxy {
        None => options,
        Some(proxy) => options
            .with_proxy_url(proxy.expose().as_str())
            .with_proxy_excludes(format!("{DIRECT},{METADATA}")),
    }
}
