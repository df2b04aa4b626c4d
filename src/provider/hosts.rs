//! Where else a provider may be asked: `ask_hosts`, for URLs that are not written in its file.
//!
//! A stored polling URL is the platform's text, a further step's comes out of an answer; the key goes with
//! both. Promise: a URL that passes [`check`] is https, to a host and port of the list (`egress`),
//! without a user. Addresses cannot be listed, so that none is ever asked; only this machine's can,
//! by a file that is meant for it (tests, the demo), and then also over http and on any port.

use url::Url;

use crate::egress::{Hosts, Unlisted, is_loopback};

/// Whether `url` may be asked, or what forbids it.
pub(super) fn check(hosts: &Hosts, url: &Url) -> Result<(), String> {
    let host = url.host_str().ok_or("it names no host")?;
    hosts.check(url).map_err(|unlisted| match unlisted {
        Unlisted::Host => format!("it goes to {host}, which is not among `ask_hosts`"),
        Unlisted::Scheme => format!("`{}` cannot be asked there, only https", url.scheme()),
        Unlisted::Port => format!(
            "it goes to port {} of {host}, and `ask_hosts` lists that host with another",
            url.port_or_known_default().unwrap_or_default()
        ),
    })?;
    plain(url)
}

/// Refuses what no URL that is asked may hold.
pub(super) fn plain(url: &Url) -> Result<(), String> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL must not hold a user or password: use [auth]".into());
    }
    if url.fragment().is_some() {
        return Err("a URL that is asked has no `#`".into());
    }
    Ok(())
}

/// Whether a URL is on this machine and unencrypted: for tests and the demo.
pub(super) fn is_loopback_http(url: &Url) -> bool {
    url.scheme() == "http" && url.host().is_some_and(|host| is_loopback(&host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::List;

    #[test]
    fn what_is_asked_is_listed_and_holds_no_user_and_no_fragment() {
        let hosts = Hosts::parse(List::Asked, &["api.acme.example"]).unwrap();
        for (url, told) in [
            ("https://api.acme.example/v1?id=1", None),
            ("https://evil.example/", Some("goes to evil.example, which is not among `ask_hosts`")),
            ("http://api.acme.example/", Some("`http` cannot be asked there")),
            ("https://api.acme.example:8443/", Some("it goes to port 8443 of api.acme.example")),
            ("https://user@api.acme.example/", Some("user or password")),
            ("https://api.acme.example/#x", Some("no `#`")),
            ("data:text/plain,x", Some("names no host")),
        ] {
            let refused = check(&hosts, &Url::parse(url).unwrap()).err();
            assert_eq!(refused.is_some(), told.is_some(), "{url}");
            assert!(refused.unwrap_or_default().contains(told.unwrap_or_default()), "{url}");
        }
    }
}
