//! The host lists of a provider's file: `ask_hosts`, `output_hosts` and `download.key_hosts`.
//!
//! An entry is a host name (https, port 443), optionally with a port. Only `output_hosts` may also
//! contain plain http, a bucket or a public address. Promise: a URL that passes [`Hosts::check`]
//! goes to a listed host on a listed port, by https unless the entry begins with `http://`. The
//! exception is a loopback host (tests, the demo), which is listed without port: there http and
//! every port are allowed.

use url::{Host, Origin, Url};

/// The port of https.
const HTTPS: u16 = 443;
/// The port of http.
const HTTP: u16 = 80;
const BUCKET: &str = "gs://";

/// The lists of a provider's file. They allow different entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// `ask_hosts`: hosts by name, https only.
    Asked,
    /// `output_hosts`: also public addresses, `http://…` and `gs://…`.
    Outputs,
    /// `download.key_hosts`: hosts by name, https only.
    Keys,
}

/// A host list of a provider's file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    written: String,
    target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// A bucket of Google Cloud Storage. `None`: every bucket.
    Bucket(Option<String>),
    /// A loopback name or address, with every port.
    Loopback(Host),
    Host {
        name: NamePattern,
        plain_http: bool,
        port: u16,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum NamePattern {
    /// Exactly this host.
    Exact(Host),
    /// `*.example.com`: all subdomains. Holds the suffix with its dot.
    Subdomains(String),
    /// `*-cdn.example.com`: names whose first label ends in `-cdn`. Holds the suffix with its
    /// hyphen.
    HyphenSuffix(String),
}

/// Why a URL does not match a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unlisted {
    /// Its host is not listed.
    Host,
    /// Its host is listed for https only.
    Scheme,
    /// Its host is listed with another port.
    Port,
}

impl Hosts {
    /// Parses a list.
    ///
    /// # Errors
    /// Names the invalid entry and the allowed forms.
    pub fn parse<T: AsRef<str>>(list: List, written: &[T]) -> Result<Self, String> {
        let entry = |text: &T| {
            let written = text.as_ref().to_owned();
            let target = parse_entry(list, &written).ok_or_else(|| invalid_entry(list, &written))?;
            Ok(Entry { written, target })
        };
        written.iter().map(entry).collect::<Result<_, _>>().map(Self)
    }

    /// A list with the host of an origin. Empty for plain http to another machine: no key is sent
    /// there.
    pub fn of_origin(origin: &Origin) -> Self {
        let Origin::Tuple(scheme, host, port) = origin else { return Self::default() };
        let target = if is_loopback(host) {
            Target::Loopback(host.clone())
        } else if scheme == "https" {
            Target::Host { name: NamePattern::Exact(host.clone()), plain_http: false, port: *port }
        } else {
            return Self::default();
        };
        Self(vec![Entry { written: origin.ascii_serialization(), target }])
    }

    /// This list and another one together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Whether the list has no entries.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries as written in the file.
    pub fn written(&self) -> Vec<&str> {
        self.0.iter().map(|entry| entry.written.as_str()).collect()
    }

    /// Checks whether the list allows `url`.
    ///
    /// # Errors
    /// The closest mismatch: host, then scheme, then port.
    pub fn check(&self, url: &Url) -> Result<(), Unlisted> {
        let host = url.host().ok_or(Unlisted::Host)?.to_owned();
        let mut why = Unlisted::Host;
        for entry in &self.0 {
            match &entry.target {
                Target::Loopback(listed) if *listed == host => match url.scheme() {
                    "https" | "http" => return Ok(()),
                    _ => why = why.max(Unlisted::Scheme),
                },
                Target::Host { name, plain_http, port } if name.matches(&host) => match url.scheme() {
                    "http" if !plain_http => why = why.max(Unlisted::Scheme),
                    "https" if *plain_http => why = why.max(Unlisted::Port),
                    "http" | "https" if url.port_or_known_default() == Some(*port) => return Ok(()),
                    "http" | "https" => why = Unlisted::Port,
                    _ => why = why.max(Unlisted::Scheme),
                },
                Target::Loopback(_) | Target::Host { .. } | Target::Bucket(_) => {}
            }
        }
        Err(why)
    }

    /// Whether a bucket of Google Cloud Storage is listed.
    pub fn lists_bucket(&self, name: &str) -> bool {
        self.0.iter().any(|entry| match &entry.target {
            Target::Bucket(listed) => listed.as_ref().is_none_or(|listed| listed == name),
            Target::Loopback(_) | Target::Host { .. } => false,
        })
    }
}

impl NamePattern {
    fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exact(listed), host) => listed == host,
            (Self::Subdomains(ending), Host::Domain(name)) => {
                name.strip_suffix(ending.as_str()).is_some_and(|left| !left.is_empty())
            }
            (Self::HyphenSuffix(ending), Host::Domain(name)) => {
                name.strip_suffix(ending.as_str()).is_some_and(|left| !left.is_empty() && !left.contains('.'))
            }
            (Self::Subdomains(_) | Self::HyphenSuffix(_), Host::Ipv4(_) | Host::Ipv6(_)) => false,
        }
    }
}

/// Whether a host is `localhost` or a loopback address.
pub fn is_loopback<S: AsRef<str>>(host: &Host<S>) -> bool {
    match host {
        Host::Domain(name) => name.as_ref() == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

/// The error for an invalid entry: the allowed forms.
fn invalid_entry(list: List, text: &str) -> String {
    let also = match list {
        List::Asked | List::Keys => "",
        List::Outputs => ", `http://cdn.example.com` for plain http, or buckets like `gs://name`",
    };
    format!(
        "host names like `cdn.example.com`, `*.example.com`, `*-cdn.example.com` or `cdn.example.com:8443`{also}, not `{text}`"
    )
}

/// Parses an entry. `None`: it is not allowed in this list.
fn parse_entry(list: List, text: &str) -> Option<Target> {
    if let Some(bucket) = text.strip_prefix(BUCKET) {
        // `gs://*` allows every bucket that makegood's own account may read.
        let name = if bucket == "*" { None } else { Some(bucket.to_owned()) };
        let is_valid = list == List::Outputs && name.as_deref().is_none_or(crate::recovery::is_bucket_name);
        return is_valid.then_some(Target::Bucket(name));
    }
    let (text, plain_http) = match text.strip_prefix("http://") {
        Some(rest) if list == List::Outputs => (rest, true),
        Some(_) => return None,
        None => (text, false),
    };
    let (text, port) = match text.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            let digits = port.bytes().all(|b| b.is_ascii_digit()) && !port.starts_with('0');
            (name, Some(port.parse().ok().filter(|_| digits)?))
        }
        _ => (text, None),
    };
    let (star, name) = match text.strip_prefix('*') {
        Some(rest) if rest.starts_with(['.', '-']) => (true, &rest[1..]),
        Some(_) => return None,
        None => (false, text),
    };
    // URLs are compared with the parser's result, so the entry must equal it.
    let host = Host::parse(name).ok()?;
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "-.:[]".contains(c));
    if host.to_string() != name || name.contains(odd) || name.starts_with('.') {
        return None;
    }
    if is_loopback(&host) {
        return (!star && !plain_http && port.is_none()).then_some(Target::Loopback(host));
    }
    let name = match (host, star) {
        (host @ Host::Domain(_), false) => NamePattern::Exact(host),
        // Addresses are allowed for files only, where each one is checked before connecting: an
        // address may change hands.
        (host, false) if list == List::Outputs => NamePattern::Exact(host),
        // A wildcard directly below a top-level domain would allow everybody, so a dot is required.
        (Host::Domain(name), true) if name.contains('.') => {
            if text.starts_with("*.") {
                NamePattern::Subdomains(format!(".{name}"))
            } else {
                NamePattern::HyphenSuffix(format!("-{name}"))
            }
        }
        (Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_), _) => return None,
    };
    Some(Target::Host { name, plain_http, port: port.unwrap_or(if plain_http { HTTP } else { HTTPS }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(list: List, written: &[&str], url: &str) -> Result<(), Unlisted> {
        Hosts::parse(list, written).unwrap().check(&Url::parse(url).unwrap())
    }

    #[test]
    fn only_listed_hosts_are_allowed_by_https_on_port_443() {
        let listed = ["api.acme.example", "*.bfl.ai", "*-aiplatform.googleapis.com"];
        for (url, expected) in [
            ("https://api.acme.example/v1?id=1", Ok(())),
            ("https://API.ACME.EXAMPLE/v1", Ok(())),
            ("https://api.us.bfl.ai/x", Ok(())),
            ("https://us-central1-aiplatform.googleapis.com/v1/x", Ok(())),
            ("https://api.acme.example:443/", Ok(())),
            ("https://a.us-aiplatform.googleapis.com/", Err(Unlisted::Host)),
            ("https://-aiplatform.googleapis.com/", Err(Unlisted::Host)),
            ("https://storage.googleapis.com/", Err(Unlisted::Host)),
            ("https://bfl.ai/", Err(Unlisted::Host)),
            ("https://evilbfl.ai/", Err(Unlisted::Host)),
            ("https://api.acme.example.evil.example/", Err(Unlisted::Host)),
            ("https://evil.example/?api.acme.example", Err(Unlisted::Host)),
            ("https://api.acme.example@evil.example/", Err(Unlisted::Host)),
            ("https://api.acme.example./", Err(Unlisted::Host)),
            ("https://api.acme.example:8443/", Err(Unlisted::Port)),
            ("http://api.acme.example/", Err(Unlisted::Scheme)),
            ("http://api.acme.example:443/", Err(Unlisted::Scheme)),
            ("ftp://api.acme.example/", Err(Unlisted::Scheme)),
            ("file:///etc/passwd", Err(Unlisted::Host)),
            ("data:text/plain,x", Err(Unlisted::Host)),
            ("https://127.0.0.1/", Err(Unlisted::Host)),
            ("https://10.0.0.1/", Err(Unlisted::Host)),
            ("https://169.254.169.254/latest/meta-data", Err(Unlisted::Host)),
            ("https://[::1]/", Err(Unlisted::Host)),
            ("https://localhost/", Err(Unlisted::Host)),
        ] {
            for list in [List::Asked, List::Outputs, List::Keys] {
                assert_eq!(check(list, &listed, url), expected, "{url}");
            }
        }
    }

    #[test]
    fn other_ports_and_plain_http_are_allowed_only_if_listed() {
        let listed =
            ["a.example:8443", "*.b.example:8443", "http://c.example", "http://d.example:8080", "d.example"];
        for (url, expected) in [
            ("https://a.example:8443/x", Ok(())),
            ("https://a.example/x", Err(Unlisted::Port)),
            ("https://a.example:443/x", Err(Unlisted::Port)),
            ("http://a.example:8443/x", Err(Unlisted::Scheme)),
            ("https://x.b.example:8443/", Ok(())),
            ("https://x.b.example/", Err(Unlisted::Port)),
            ("http://c.example/", Ok(())),
            ("http://c.example:80/", Ok(())),
            ("https://c.example/", Err(Unlisted::Port)),
            ("http://c.example:8080/", Err(Unlisted::Port)),
            ("http://d.example:8080/", Ok(())),
            ("https://d.example/", Ok(())),
            ("https://d.example:8080/", Err(Unlisted::Port)),
            ("http://d.example/", Err(Unlisted::Port)),
        ] {
            assert_eq!(check(List::Outputs, &listed, url), expected, "{url}");
        }
    }

    #[test]
    fn this_machine_passes_only_where_the_file_names_it() {
        let listed = ["127.0.0.1", "localhost", "[::1]"];
        for url in ["http://127.0.0.1:9/x", "http://localhost:9/", "https://[::1]:9/", "http://0x7f.1/"] {
            assert_eq!(check(List::Asked, &listed, url), Ok(()), "{url}");
        }
        for url in ["http://127.0.0.2/", "http://10.0.0.1/", "http://evil.example/"] {
            assert_eq!(check(List::Asked, &listed, url), Err(Unlisted::Host), "{url}");
        }
    }

    #[test]
    fn buckets_and_addresses_are_allowed_for_outputs_only() {
        let outputs =
            Hosts::parse(List::Outputs, &["gs://acme-videos", "1.1.1.1", "[2606:4700::1111]"]).unwrap();
        assert!(outputs.lists_bucket("acme-videos") && !outputs.lists_bucket("acme"));
        assert!(Hosts::parse(List::Outputs, &["gs://*"]).unwrap().lists_bucket("any-other"));
        for url in ["https://1.1.1.1/", "https://[2606:4700::1111]/"] {
            assert_eq!(outputs.check(&Url::parse(url).unwrap()), Ok(()), "{url}");
        }
        assert_eq!(outputs.written(), ["gs://acme-videos", "1.1.1.1", "[2606:4700::1111]"]);
        for text in ["gs://acme-videos", "1.1.1.1", "http://a.example", "[2606:4700::1111]"] {
            for list in [List::Asked, List::Keys] {
                assert!(Hosts::parse(list, &[text]).is_err(), "{text}");
            }
        }
    }

    #[test]
    fn invalid_entries_and_wildcards_that_allow_everybody_are_refused() {
        for text in [
            "",
            "*",
            "*.",
            "*.com",
            "*com",
            "*acme.example",
            "a.*.example",
            "*.127.0.0.1",
            "*.localhost",
            "API.example",
            "https://api.example",
            "api.example/",
            "a b.example",
            "0x7f.1",
            "api.example:",
            "api.example:0",
            "api.example:99999",
            "api.example:+1",
            "api.example:0443",
            "127.0.0.1:80",
            "http://localhost",
            ".api.example",
            "gs://",
            "gs://a/b",
            "http://",
            "http://http://a.example",
            "me@api.example",
        ] {
            for list in [List::Asked, List::Outputs, List::Keys] {
                let problem = Hosts::parse(list, &[text]).unwrap_err();
                assert!(problem.contains(&format!("not `{text}`")), "{problem}");
            }
        }
    }

    #[test]
    fn the_list_of_an_origin_allows_its_host_and_port() {
        let of = |url: &str| Hosts::of_origin(&Url::parse(url).unwrap().origin());
        let check = |hosts: &Hosts, url: &str| hosts.check(&Url::parse(url).unwrap());
        let hosts = of("https://api.example:8443/v1");
        assert_eq!(check(&hosts, "https://api.example:8443/x"), Ok(()));
        assert_eq!(check(&hosts, "https://api.example/x"), Err(Unlisted::Port));
        assert_eq!(check(&of("http://127.0.0.1:1/"), "http://127.0.0.1:2/"), Ok(()));
        assert!(of("http://api.example/").is_empty() && of("data:x").is_empty());
        let both = hosts.and(of("https://b.example/"));
        assert_eq!(check(&both, "https://b.example/x"), Ok(()));
    }
}
