//! Checks URLs that are not written in the provider file against `ask_hosts`.
//!
//! A stored polling URL comes from the platform, and the URL of a next request comes from an
//! answer. The key is sent with both, so they must not go to any other host. A URL that passes
//! [`check`] is https, to a host and port of the list (`egress`), and has no user part. IP
//! addresses cannot be listed. The exception is this machine, for tests and the demo: it may also
//! be listed, and then http and any port are permitted.

use url::Url;

use crate::egress::{Hosts, Unlisted, is_loopback};

/// Checks whether a request may go to `url`. The error says why not.
pub(super) fn check(hosts: &Hosts, url: &Url) -> Result<(), String> {
    let host = url.host_str().ok_or("it has no host")?;
    hosts.check(url).map_err(|unlisted| match unlisted {
        Unlisted::Host => format!("it goes to {host}, which is not in `ask_hosts`"),
        Unlisted::Scheme => format!("its scheme must be https, not `{}`", url.scheme()),
        Unlisted::Port => format!(
            "it goes to port {} of {host}, but `ask_hosts` lists that host with another port",
            url.port_or_known_default().unwrap_or_default()
        ),
    })?;
    plain(url)
}

/// Rejects a URL with a user, a password or a fragment.
pub(super) fn plain(url: &Url) -> Result<(), String> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL must not contain a user or password: use [auth]".into());
    }
    if url.fragment().is_some() {
        return Err("a URL must not contain a `#`".into());
    }
    Ok(())
}

/// Whether a URL is http on this machine. Only tests and the demo use such URLs.
pub(super) fn is_loopback_http(url: &Url) -> bool {
    url.scheme() == "http" && url.host().is_some_and(|host| is_loopback(&host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::List;

    #[test]
    fn a_url_must_be_listed_and_have_no_user_and_no_fragment() {
        let hosts = Hosts::parse(List::Asked, &["api.acme.example"]).unwrap();
        for (url, expected) in [
            ("https://api.acme.example/v1?id=1", None),
            ("https://evil.example/", Some("goes to evil.example, which is not in `ask_hosts`")),
            ("http://api.acme.example/", Some("must be https, not `http`")),
            ("https://api.acme.example:8443/", Some("it goes to port 8443 of api.acme.example")),
            ("https://user@api.acme.example/", Some("user or password")),
            ("https://api.acme.example/#x", Some("must not contain a `#`")),
            ("data:text/plain,x", Some("has no host")),
        ] {
            let error = check(&hosts, &Url::parse(url).unwrap()).err();
            assert_eq!(error.is_some(), expected.is_some(), "{url}");
            assert!(error.unwrap_or_default().contains(expected.unwrap_or_default()), "{url}");
        }
    }
}
