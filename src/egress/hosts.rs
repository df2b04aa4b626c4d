//! The host lists of a provider's file: `ask_hosts`, `output_hosts` and `download.key_hosts`.
//!
//! An entry is a host (https, port 443) or names its own port; only `output_hosts` may also name
//! plain http, a bucket or a public address. Promise: a URL that passes [`Hosts::check`] goes to a
//! listed host, on a listed port, by https unless the list says `http://`. The one exception is
//! this machine, which is listed by its name or its address alone (tests, the demo): there http and
//! every port pass.

use url::{Host, Origin, Url};

/// The port of https.
const HTTPS: u16 = 443;
/// The port of http.
const HTTP: u16 = 80;
const BUCKET: &str = "gs://";

/// Which list it is: what may stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// `ask_hosts`: hosts by name, https only.
    Asked,
    /// `output_hosts`: also addresses, `http://…` and `gs://…`.
    Outputs,
    /// `download.key_hosts`: hosts by name, https only.
    Keys,
}

/// Hosts that a provider's file lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    written: String,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A bucket of Google Cloud Storage; none: every bucket.
    Bucket(Option<String>),
    /// This machine.
    Loopback(Host),
    Host {
        name: Name,
        plain_http: bool,
        port: u16,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    /// This very host.
    Exact(Host),
    /// All names below: what follows the star, with its dot.
    Below(String),
    /// All names whose first label ends like this: what follows the star, with its hyphen.
    Ending(String),
}

/// Why a list does not let a URL pass.
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
    /// Reads a list; an error says which entry is wrong and what would be right.
    pub fn parse<T: AsRef<str>>(list: List, written: &[T]) -> Result<Self, String> {
        let entry = |text: &T| {
            let written = text.as_ref().to_owned();
            Ok(Entry { place: place(list, &written).ok_or_else(|| wrong(list, &written))?, written })
        };
        written.iter().map(entry).collect::<Result<_, _>>().map(Self)
    }

    /// The host of an origin; none for plain http to another machine, where no key goes.
    pub fn of_origin(origin: &Origin) -> Self {
        let Origin::Tuple(scheme, host, port) = origin else { return Self::default() };
        let place = if is_loopback(host) {
            Place::Loopback(host.clone())
        } else if scheme == "https" {
            Place::Host { name: Name::Exact(host.clone()), plain_http: false, port: *port }
        } else {
            return Self::default();
        };
        Self(vec![Entry { written: origin.ascii_serialization(), place }])
    }

    /// This list and another.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries as they were written.
    pub fn written(&self) -> Vec<&str> {
        self.0.iter().map(|entry| entry.written.as_str()).collect()
    }

    /// Whether the list lets `url` pass, or what keeps it from that.
    pub fn check(&self, url: &Url) -> Result<(), Unlisted> {
        let host = url.host().ok_or(Unlisted::Host)?.to_owned();
        let mut why = Unlisted::Host;
        for entry in &self.0 {
            match &entry.place {
                Place::Loopback(listed) if *listed == host => match url.scheme() {
                    "https" | "http" => return Ok(()),
                    _ => why = why.max(Unlisted::Scheme),
                },
                Place::Host { name, plain_http, port } if name.matches(&host) => match url.scheme() {
                    "http" if !plain_http => why = why.max(Unlisted::Scheme),
                    "https" if *plain_http => why = why.max(Unlisted::Port),
                    "http" | "https" if url.port_or_known_default() == Some(*port) => return Ok(()),
                    "http" | "https" => why = Unlisted::Port,
                    _ => why = why.max(Unlisted::Scheme),
                },
                Place::Loopback(_) | Place::Host { .. } | Place::Bucket(_) => {}
            }
        }
        Err(why)
    }

    /// Whether a bucket of Google Cloud Storage is listed.
    pub fn lists_bucket(&self, name: &str) -> bool {
        self.0.iter().any(|entry| match &entry.place {
            Place::Bucket(listed) => listed.as_ref().is_none_or(|listed| listed == name),
            Place::Loopback(_) | Place::Host { .. } => false,
        })
    }
}

impl Name {
    fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exact(listed), host) => listed == host,
            (Self::Below(ending), Host::Domain(name)) => {
                name.strip_suffix(ending.as_str()).is_some_and(|left| !left.is_empty())
            }
            (Self::Ending(ending), Host::Domain(name)) => {
                name.strip_suffix(ending.as_str()).is_some_and(|left| !left.is_empty() && !left.contains('.'))
            }
            (Self::Below(_) | Self::Ending(_), Host::Ipv4(_) | Host::Ipv6(_)) => false,
        }
    }
}

/// Whether a host is this machine.
pub fn is_loopback<S: AsRef<str>>(host: &Host<S>) -> bool {
    match host {
        Host::Domain(name) => name.as_ref() == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

/// What would be right instead of an entry.
fn wrong(list: List, text: &str) -> String {
    let also = match list {
        List::Asked | List::Keys => "",
        List::Outputs => ", `http://cdn.example.com` for plain http, or buckets like `gs://name`",
    };
    format!(
        "host names like `cdn.example.com`, `*.example.com`, `*-cdn.example.com` or `cdn.example.com:8443`{also}, not `{text}`"
    )
}

/// What an entry means; none: nothing that may stand in this list.
fn place(list: List, text: &str) -> Option<Place> {
    if let Some(bucket) = text.strip_prefix(BUCKET) {
        // A bucket, or all of them: what may be read is then up to the rights of makegood's own
        // account.
        let name = if bucket == "*" { None } else { Some(bucket.to_owned()) };
        let fine = list == List::Outputs && name.as_deref().is_none_or(crate::recovery::is_bucket);
        return fine.then_some(Place::Bucket(name));
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
    // What the parser gives back is what URLs will be compared with.
    let host = Host::parse(name).ok()?;
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "-.:[]".contains(c));
    if host.to_string() != name || name.contains(odd) || name.starts_with('.') {
        return None;
    }
    if is_loopback(&host) {
        return (!star && !plain_http && port.is_none()).then_some(Place::Loopback(host));
    }
    let name = match (host, star) {
        (host @ Host::Domain(_), false) => Name::Exact(host),
        // An address could be anybody's tomorrow; where files are fetched, it is judged before it
        // is dialled.
        (host, false) if list == List::Outputs => Name::Exact(host),
        // A star below a whole top-level domain lets everybody in.
        (Host::Domain(name), true) if name.contains('.') => {
            if text.starts_with("*.") {
                Name::Below(format!(".{name}"))
            } else {
                Name::Ending(format!("-{name}"))
            }
        }
        (Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_), _) => return None,
    };
    Some(Place::Host { name, plain_http, port: port.unwrap_or(if plain_http { HTTP } else { HTTPS }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(list: List, written: &[&str], url: &str) -> Result<(), Unlisted> {
        Hosts::parse(list, written).unwrap().check(&Url::parse(url).unwrap())
    }

    #[test]
    fn only_listed_hosts_pass_by_https_on_their_usual_port() {
        let listed = ["api.acme.example", "*.bfl.ai", "*-aiplatform.googleapis.com"];
        for (url, told) in [
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
                assert_eq!(judge(list, &listed, url), told, "{url}");
            }
        }
    }

    #[test]
    fn another_port_and_plain_http_pass_only_where_the_list_names_them() {
        let listed =
            ["a.example:8443", "*.b.example:8443", "http://c.example", "http://d.example:8080", "d.example"];
        for (url, told) in [
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
            assert_eq!(judge(List::Outputs, &listed, url), told, "{url}");
        }
    }

    #[test]
    fn this_machine_passes_only_where_the_file_names_it() {
        let listed = ["127.0.0.1", "localhost", "[::1]"];
        for url in ["http://127.0.0.1:9/x", "http://localhost:9/", "https://[::1]:9/", "http://0x7f.1/"] {
            assert_eq!(judge(List::Asked, &listed, url), Ok(()), "{url}");
        }
        for url in ["http://127.0.0.2/", "http://10.0.0.1/", "http://evil.example/"] {
            assert_eq!(judge(List::Asked, &listed, url), Err(Unlisted::Host), "{url}");
        }
    }

    #[test]
    fn buckets_and_addresses_are_listed_for_outputs_alone() {
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
    fn a_list_that_would_let_everybody_in_is_refused() {
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
    fn an_origin_is_its_host_and_port() {
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
