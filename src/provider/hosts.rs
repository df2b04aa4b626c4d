//! Where else a provider may be asked: `ask_hosts`, for URLs that are not written in its file.
//!
//! A stored polling URL is the platform's text, a further step's comes out of an answer; the key goes with
//! both. Promise: a URL that passes [`Hosts::check`] is https, to a host of the list, on its usual port,
//! without a user. Addresses cannot be listed, so that none is ever asked; only this machine's can,
//! by a file that is meant for it (tests, the demo), and then also over http and on any port.

use url::{Host, Url};

/// The hosts of a provider's file.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// This very name.
    Name(String),
    /// All names below: what follows the star, with its dot.
    Below(String),
    /// All names whose first label ends like this: what follows the star, with its hyphen.
    Ending(String),
    /// This machine.
    Loopback(Host),
}

impl Hosts {
    /// Reads the list; an error says which entry is wrong and what would be right.
    pub(super) fn parse(written: &[String]) -> Result<Self, String> {
        written.iter().map(|text| pattern(text)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is none.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of them are this machine.
    pub(super) fn all_loopback(&self) -> bool {
        self.0.iter().all(|pattern| matches!(pattern, Pattern::Loopback(_)))
    }

    /// Whether `url` may be asked, or what forbids it.
    pub(super) fn check(&self, url: &Url) -> Result<(), String> {
        let host = url.host().ok_or("it names no host")?.to_owned();
        let local = self.0.iter().any(|pattern| *pattern == Pattern::Loopback(host.clone()));
        if !local && !self.0.iter().any(|pattern| pattern.matches(&host)) {
            return Err(format!("it goes to {host}, which is not among `ask_hosts`"));
        }
        match url.scheme() {
            "https" => {}
            "http" if local => {}
            other => return Err(format!("`{other}` cannot be asked there, only https")),
        }
        if url.port().is_some() && !local {
            return Err(format!("it goes to a port of {host} that is not the usual one"));
        }
        plain(url)
    }
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
    url.scheme() == "http"
        && match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
}

impl Pattern {
    fn matches(&self, host: &Host) -> bool {
        let Host::Domain(name) = host else { return false };
        match self {
            Self::Name(listed) => name == listed,
            Self::Below(ending) => name.strip_suffix(ending.as_str()).is_some_and(|left| !left.is_empty()),
            Self::Ending(ending) => {
                name.strip_suffix(ending.as_str()).is_some_and(|left| !left.is_empty() && !left.contains('.'))
            }
            Self::Loopback(_) => false,
        }
    }
}

fn pattern(text: &str) -> Result<Pattern, String> {
    let wrong = || {
        Err(format!(
            "host names like `api.example.com`, `*.example.com` or `*-api.example.com`, not `{text}`"
        ))
    };
    let (star, name) = match text.strip_prefix('*') {
        Some(rest) if rest.starts_with(['.', '-']) => (true, &rest[1..]),
        Some(_) => return wrong(),
        None => (false, text),
    };
    // What the parser gives back is what URLs will be compared with.
    let Ok(host) = Host::parse(name) else { return wrong() };
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "-.:[]".contains(c));
    if host.to_string() != name || name.contains(odd) {
        return wrong();
    }
    let loopback = match &host {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    match (host, loopback, star) {
        (host, true, false) => Ok(Pattern::Loopback(host)),
        (Host::Domain(name), false, false) => Ok(Pattern::Name(name)),
        // A star below a whole top-level domain lets everybody in.
        (Host::Domain(name), false, true) if name.contains('.') => Ok(if text.starts_with("*.") {
            Pattern::Below(format!(".{name}"))
        } else {
            Pattern::Ending(format!("-{name}"))
        }),
        (Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_), _, _) => wrong(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(list: &[&str]) -> Hosts {
        Hosts::parse(&list.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn only_listed_hosts_are_asked_and_only_over_https() {
        let hosts = hosts(&["api.acme.example", "*.bfl.ai", "*-aiplatform.googleapis.com"]);
        for (url, fine) in [
            ("https://api.acme.example/v1?id=1", true),
            ("https://API.ACME.EXAMPLE/v1", true),
            ("https://api.us.bfl.ai/x", true),
            ("https://us-central1-aiplatform.googleapis.com/v1/x", true),
            ("https://a.us-aiplatform.googleapis.com/", false),
            ("https://-aiplatform.googleapis.com/", false),
            ("https://storage.googleapis.com/", false),
            ("https://bfl.ai/", false),
            ("https://evilbfl.ai/", false),
            ("https://api.acme.example.evil.example/", false),
            ("https://evil.example/?api.acme.example", false),
            ("https://api.acme.example:8443/", false),
            ("https://api.acme.example:443/", true),
            ("https://user@api.acme.example/", false),
            ("https://api.acme.example@evil.example/", false),
            ("https://api.acme.example/#x", false),
            ("https://api.acme.example./", false),
            ("http://api.acme.example/", false),
            ("ftp://api.acme.example/", false),
            ("file:///etc/passwd", false),
            ("data:text/plain,x", false),
            ("http://127.0.0.1/", false),
            ("https://127.0.0.1/", false),
            ("https://10.0.0.1/", false),
            ("https://169.254.169.254/latest/meta-data", false),
            ("https://[::1]/", false),
            ("https://[fd00:ec2::254]/", false),
            ("https://localhost/", false),
        ] {
            assert_eq!(hosts.check(&Url::parse(url).unwrap()).is_ok(), fine, "{url}");
        }
    }

    #[test]
    fn this_machine_is_asked_only_where_the_file_names_it() {
        let hosts = hosts(&["127.0.0.1", "localhost", "[::1]"]);
        for url in ["http://127.0.0.1:9/x", "http://localhost:9/", "http://[::1]:9/", "http://0x7f.1/"] {
            assert_eq!(hosts.check(&Url::parse(url).unwrap()), Ok(()), "{url}");
        }
        for url in ["http://127.0.0.2/", "http://10.0.0.1/", "http://user@127.0.0.1/", "http://evil.example/"]
        {
            assert!(hosts.check(&Url::parse(url).unwrap()).is_err(), "{url}");
        }
        assert!(hosts.all_loopback());
    }

    #[test]
    fn a_list_that_would_let_everybody_in_is_refused() {
        for text in [
            "",
            "*",
            "*.",
            "*.com",
            "*com",
            "*acme.example",
            "a.*.example",
            "10.0.0.1",
            "169.254.169.254",
            "[fd00::1]",
            "*.127.0.0.1",
            "*.localhost",
            "API.example",
            "api.example:443",
            "https://api.example",
            "api.example/",
            "a b.example",
            "0x7f.1",
        ] {
            assert!(Hosts::parse(&[text.to_owned()]).is_err(), "{text:?} was taken");
        }
    }
}
