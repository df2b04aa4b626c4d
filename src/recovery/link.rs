//! Decides which URLs are followed. Every rule is checked for the first URL and for every redirect.
//!
//! One parser reads the URL, and the request is sent to its result, so a second parser cannot
//! disagree with the first. It is the WHATWG parser, as in browsers: it also normalizes every
//! spelling of an IPv4 address (`0x7f.1`, `2130706433`, `0177.0.0.1`). Host, port and scheme are
//! checked here against the provider's lists (`egress`); the addresses of a host name are checked
//! by `address`.

use std::fmt;

use url::{Host, Url};

use super::address::{AddressRefusal, Loopback, refuse};
use crate::egress::{Hosts, Unlisted, is_loopback};

/// The longest URL accepted, in bytes. Signed URLs have some 2,000.
pub(super) const MAX_URL_BYTES: usize = 16 * 1024;

/// Why a URL is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UrlRefusal {
    /// Not a valid URL: unreadable, too long, without a host, with control characters or
    /// backslashes.
    NotAUrl,
    /// Neither `http` nor `https`.
    Scheme,
    /// It carries a user name or password.
    UserInfo,
    /// Its host is not in the provider's `output_hosts`.
    Host,
    /// Its host is in that list with another port.
    Port,
    /// The scheme is `http`, and its host is in that list without `http://`.
    PlainHttp,
    /// Its address is not a public one.
    Address(AddressRefusal),
    /// The file needs the provider's key, and the URL would send the key unencrypted.
    KeyInClear,
    /// The file needs the provider's key, and host and port are not in `download.key_hosts`.
    KeyHost,
    /// A redirect from `https` to `http`.
    Downgrade,
    /// More redirects than allowed.
    TooManyRedirects,
}

impl UrlRefusal {
    /// The stored word, as events and logs spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAUrl => "not_a_url",
            Self::Scheme => "scheme_not_allowed",
            Self::UserInfo => "user_info_in_url",
            Self::Host => "host_not_listed",
            Self::Port => "port_not_listed",
            Self::PlainHttp => "plain_http_not_listed",
            Self::Address(address) => address.as_str(),
            Self::KeyInClear => "key_in_clear",
            Self::KeyHost => "key_host_not_listed",
            Self::Downgrade => "downgraded_to_http",
            Self::TooManyRedirects => "too_many_redirects",
        }
    }
}

impl fmt::Display for UrlRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Parses the URL of an offer.
pub(super) fn parse(text: &str) -> Result<Url, UrlRefusal> {
    check_characters(text)?;
    Url::parse(text).map_err(|_| UrlRefusal::NotAUrl)
}

/// Parses the `Location` of a redirect, which may be relative to `from`.
pub(super) fn redirect(from: &Url, location: &str) -> Result<Url, UrlRefusal> {
    check_characters(location)?;
    let to = from.join(location).map_err(|_| UrlRefusal::NotAUrl)?;
    if from.scheme() == "https" && to.scheme() == "http" {
        return Err(UrlRefusal::Downgrade);
    }
    Ok(to)
}

/// Refuses control characters and backslashes. The parser would drop tabs and line ends and read
/// `\` as `/`; no valid URL needs that.
fn check_characters(text: &str) -> Result<(), UrlRefusal> {
    if text.len() > MAX_URL_BYTES || text.contains(|c: char| c.is_control() || c == '\\') {
        return Err(UrlRefusal::NotAUrl);
    }
    Ok(())
}

/// All checks that need no DNS lookup.
pub(super) fn check(url: &Url, listed: &Hosts, loopback: Loopback) -> Result<(), UrlRefusal> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(UrlRefusal::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlRefusal::UserInfo);
    }
    let host = url.host().ok_or(UrlRefusal::NotAUrl)?;
    let address = match &host {
        Host::Ipv4(address) => Some((*address).into()),
        Host::Ipv6(address) => Some((*address).into()),
        Host::Domain(_) => None,
    };
    if let Some(refusal) = address.and_then(|address| refuse(address, loopback)) {
        return Err(UrlRefusal::Address(refusal));
    }
    listed.check(url).map_err(|unlisted| match unlisted {
        Unlisted::Host => UrlRefusal::Host,
        Unlisted::Scheme => UrlRefusal::PlainHttp,
        Unlisted::Port => UrlRefusal::Port,
    })
}

/// Checks that the provider's key may be sent to `url`.
pub(super) fn check_key(url: &Url, listed: &Hosts, loopback: Loopback) -> Result<(), UrlRefusal> {
    if !may_carry_key(url, loopback) {
        return Err(UrlRefusal::KeyInClear);
    }
    listed.check(url).map_err(|_| UrlRefusal::KeyHost)
}

/// The host for messages, with its port unless that is the scheme's default.
pub(super) fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether scheme, host and port are the same. Credentials are not sent to another origin.
pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host() == b.host() && a.port_or_known_default() == b.port_or_known_default()
}

/// Whether a secret may be sent to `url`: over https, or to a loopback address where that is
/// allowed.
fn may_carry_key(url: &Url, loopback: Loopback) -> bool {
    let local = || url.host().is_some_and(|host| is_loopback(&host));
    url.scheme() == "https" || (loopback == Loopback::Allowed && local())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::List;

    const LISTED: [&str; 6] = [
        "files.example.com",
        "*.cdn.example.com",
        "1.1.1.1",
        "[2606:4700::1111]",
        "files.example.com:8443",
        "http://plain.example.com",
    ];

    fn check_url(text: &str) -> Result<(), UrlRefusal> {
        let listed = Hosts::parse(List::Outputs, &LISTED).unwrap();
        parse(text).and_then(|url| check(&url, &listed, Loopback::Refused))
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table with one attack in each row")]
    fn hostile_urls_are_refused_with_their_reason() {
        use AddressRefusal as No;
        use UrlRefusal::{Address, Host, NotAUrl, PlainHttp, Port, Scheme, UserInfo};
        let table = [
            // No URL at all.
            ("", NotAUrl),
            ("files.example.com/a.png", NotAUrl),
            ("//files.example.com/a.png", NotAUrl),
            ("/etc/passwd", NotAUrl),
            ("http://", NotAUrl),
            ("https://:443/", NotAUrl),
            ("http://files.example.com:99999/", NotAUrl),
            ("http://files.exa mple.com/", NotAUrl),
            ("http://[fe80::1%25eth0]/", NotAUrl),
            ("http://[::1", NotAUrl),
            ("http://1.2.3.4.5/", NotAUrl),
            ("http://256.256.256.256/", NotAUrl),
            ("https://files.example.com/\r\nHost: evil.example", NotAUrl),
            ("https://files.example.com/a\0.png", NotAUrl),
            ("ht\ntps://files.example.com/", NotAUrl),
            ("https://files.example.com\\@evil.example/", NotAUrl),
            ("https:\\\\files.example.com\\a.png", NotAUrl),
            // Other schemes.
            ("file:///etc/passwd", Scheme),
            ("ftp://files.example.com/a.png", Scheme),
            ("gopher://files.example.com/_GET", Scheme),
            ("data:image/png;base64,AAAA", Scheme),
            ("javascript:alert(1)", Scheme),
            ("gs://bucket/object", Scheme),
            ("s3://bucket/object", Scheme),
            ("unix:/run/docker.sock", Scheme),
            ("blob:https://files.example.com/1", Scheme),
            ("ws://files.example.com/", Scheme),
            // User names.
            ("https://user@files.example.com/", UserInfo),
            ("https://user:password@files.example.com/", UserInfo),
            ("https://:password@files.example.com/", UserInfo),
            ("https://files.example.com@evil.example/", UserInfo),
            ("https://files.example.com%40@evil.example/", UserInfo),
            ("https://files.example.com:80@127.0.0.1/", UserInfo),
            // Hosts of others.
            ("https://evil.example/", Host),
            ("https://files.example.com.evil.example/", Host),
            ("https://evilfiles.example.com/", Host),
            ("https://sub.files.example.com/", Host),
            ("https://cdn.example.com/", Host),
            ("https://evilcdn.example.com/", Host),
            ("https://.cdn.example.com/", Host),
            ("https://files.example.com./", Host),
            ("https://evil.example/?https://files.example.com/", Host),
            ("https://evil.example#files.example.com", Host),
            ("https://localhost/", Host),
            ("https://metadata.google.internal/computeMetadata/v1/", Host),
            ("https://127.0.0.1.nip.io/", Host),
            ("https://kubernetes.default.svc/", Host),
            ("https://fıles.example.com/", Host),
            ("https://8.8.8.8/", Host),
            ("https://[2606:4700::1112]/", Host),
            // Plain http, and ports, that are not listed.
            ("http://files.example.com/", PlainHttp),
            ("http://files.example.com:443/", PlainHttp),
            ("http://eu.cdn.example.com/", PlainHttp),
            ("https://files.example.com:8444/", Port),
            ("https://files.example.com:22/", Port),
            ("https://eu.cdn.example.com:8443/", Port),
            ("https://1.1.1.1:6379/", Port),
            ("http://plain.example.com:8080/", Port),
            ("https://plain.example.com/", Port),
            // Loopback, in many spellings.
            ("http://127.0.0.1/", Address(No::Loopback)),
            ("http://127.0.0.1:6379/", Address(No::Loopback)),
            ("http://2130706433/", Address(No::Loopback)),
            ("http://0x7f000001/", Address(No::Loopback)),
            ("http://0x7f.1/", Address(No::Loopback)),
            ("http://0177.0.0.1/", Address(No::Loopback)),
            ("http://017700000001/", Address(No::Loopback)),
            ("http://127.1/", Address(No::Loopback)),
            ("http://127.0.0.1./", Address(No::Loopback)),
            ("http://%31%32%37.0.0.1/", Address(No::Loopback)),
            ("http://１２７.０.０.１/", Address(No::Loopback)),
            ("http://127。0。0。1/", Address(No::Loopback)),
            ("http://[::1]/", Address(No::Loopback)),
            ("http://[0:0:0:0:0:0:0:1]/", Address(No::Loopback)),
            // Everything else that is not public.
            ("http://[::ffff:127.0.0.1]/", Address(No::Translated)),
            ("http://[::ffff:7f00:1]/", Address(No::Translated)),
            ("http://[::ffff:a9fe:a9fe]/", Address(No::Translated)),
            ("http://[64:ff9b::7f00:1]/", Address(No::Translated)),
            ("http://[2002:7f00:1::]/", Address(No::Translated)),
            ("http://0.0.0.0/", Address(No::Unspecified)),
            ("http://0/", Address(No::Unspecified)),
            ("http://[::]/", Address(No::Unspecified)),
            ("http://169.254.169.254/latest/meta-data/", Address(No::Metadata)),
            ("http://2852039166/", Address(No::Metadata)),
            ("http://0xa9fea9fe/", Address(No::Metadata)),
            ("http://[fd00:ec2::254]/", Address(No::Metadata)),
            ("http://168.63.129.16/", Address(No::Metadata)),
            ("http://169.254.1.1/", Address(No::LinkLocal)),
            ("http://[fe80::1]/", Address(No::LinkLocal)),
            ("http://10.0.0.1/", Address(No::Private)),
            ("http://0xa.1/", Address(No::Private)),
            ("http://172.16.0.1/", Address(No::Private)),
            ("http://192.168.0.1/", Address(No::Private)),
            ("http://[fd12:3456::1]/", Address(No::Private)),
            ("http://100.64.0.1/", Address(No::SharedNat)),
            ("http://224.0.0.1/", Address(No::Multicast)),
            ("http://[ff02::1]/", Address(No::Multicast)),
            ("http://255.255.255.255/", Address(No::Multicast)),
            ("http://192.0.2.1/", Address(No::Documentation)),
            ("http://[2001:db8::1]/", Address(No::Documentation)),
            ("http://240.0.0.1/", Address(No::Reserved)),
            ("http://198.18.0.1/", Address(No::Reserved)),
        ];
        assert!(table.len() >= 40);
        for (url, reason) in table {
            assert_eq!(check_url(url), Err(reason), "{url:?}");
        }
        assert_eq!(check_url(&format!("https://files.example.com/{}", "a".repeat(20_000))), Err(NotAUrl));
    }

    #[test]
    fn listed_urls_are_allowed() {
        for url in [
            "https://files.example.com/a.png?X-Amz-Signature=00&b=%2F..#t=1",
            "http://plain.example.com/",
            "HTTPS://FILES.EXAMPLE.COM:443/",
            "https://files.example.com:8443/a b.png",
            "https://eu.cdn.example.com/",
            "https://a.b.CDN.example.com/",
            "https://1.1.1.1/",
            "https://[2606:4700::1111]/",
        ] {
            assert_eq!(check_url(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn an_empty_list_allows_no_url() {
        let url = parse("https://files.example.com/").unwrap();
        for listed in [&[][..], &["*.files.example.com"]] {
            let listed = Hosts::parse(List::Outputs, listed).unwrap();
            assert_eq!(check(&url, &listed, Loopback::Refused), Err(UrlRefusal::Host), "{listed:?}");
        }
    }

    #[test]
    fn redirects_are_parsed_like_first_urls_and_never_downgrade_to_http() {
        let from = parse("https://files.example.com/a/b").unwrap();
        assert_eq!(redirect(&from, "../c?d").unwrap().as_str(), "https://files.example.com/c?d");
        assert_eq!(redirect(&from, "//evil.example/").unwrap().host_str(), Some("evil.example"));
        assert_eq!(redirect(&from, "http://files.example.com/"), Err(UrlRefusal::Downgrade));
        assert_eq!(redirect(&from, "/a\\b"), Err(UrlRefusal::NotAUrl));
        assert_eq!(redirect(&from, "https://["), Err(UrlRefusal::NotAUrl));
    }

    #[test]
    fn the_key_is_sent_to_its_origin_only_and_never_unencrypted() {
        let url = |text: &str| parse(text).unwrap();
        let home = url("https://files.example.com/a");
        assert!(same_origin(&home, &url("https://files.example.com:443/b")));
        for other in
            ["https://x.cdn.example.com/", "http://files.example.com/", "https://files.example.com:8443/"]
        {
            assert!(!same_origin(&home, &url(other)), "{other}");
        }
        assert!(may_carry_key(&home, Loopback::Refused));
        assert!(!may_carry_key(&url("http://files.example.com/"), Loopback::Allowed));
        assert!(!may_carry_key(&url("http://127.0.0.1/"), Loopback::Refused));
        assert!(may_carry_key(&url("http://127.0.0.1:9/"), Loopback::Allowed));

        let listed = Hosts::parse(List::Keys, &["files.example.com", "127.0.0.1"]).unwrap();
        for (text, expected) in [
            ("https://files.example.com/a", Ok(())),
            ("https://files.example.com:8443/a", Err(UrlRefusal::KeyHost)),
            ("https://x.cdn.example.com/a", Err(UrlRefusal::KeyHost)),
            ("http://files.example.com/a", Err(UrlRefusal::KeyInClear)),
            ("http://127.0.0.1:9/a", Err(UrlRefusal::KeyInClear)),
        ] {
            assert_eq!(check_key(&url(text), &listed, Loopback::Refused), expected, "{text}");
        }
        assert_eq!(check_key(&url("http://127.0.0.1:9/a"), &listed, Loopback::Allowed), Ok(()));
        assert_eq!(host_and_port(&url("https://files.example.com:8443/a")), "files.example.com:8443");
        assert_eq!(host_and_port(&url("https://files.example.com:443/a")), "files.example.com");
    }
}
