//! Removes secrets and signed URLs from text that is stored or displayed, and limits its length.
//!
//! It removes the given secrets in plain text, with JSON escapes, percent-encoded and in base64. It
//! also removes the query, the fragment and the user part of every URL, in the same encodings and
//! without a scheme (`//host/…`). The path of a URL is kept, because support needs it. Text that is
//! encoded twice in different ways is not recognized.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::NON_ALPHANUMERIC;

/// The longest excerpt of an answer, in bytes.
const EXCERPT_BYTES: usize = 4 * 1024;
/// The longest message, in bytes.
const MESSAGE_BYTES: usize = 500;
/// The length of the part of an answer from which the excerpt is made, in bytes.
const WINDOW_BYTES: usize = 64 * 1024;

/// Returns the beginning of a body without secrets.
pub(super) fn excerpt(body: &[u8], secrets: &[&str]) -> String {
    let window = &body[..body.len().min(WINDOW_BYTES)];
    let mut text = clean(&String::from_utf8_lossy(window), secrets);
    if window.len() < body.len() {
        // A secret that crosses the end of the window is not found. Drop its possible first part.
        let spellings = secrets.iter().flat_map(|secret| spellings(secret));
        let longest = spellings.map(|spelling| spelling.len()).max().unwrap_or(0);
        let kept = text.len().saturating_sub(longest);
        cut(&mut text, kept);
    }
    if text.len() > EXCERPT_BYTES {
        cut(&mut text, EXCERPT_BYTES);
        text.push('…');
    }
    text
}

/// Returns a message on one line without secrets, truncated.
pub(super) fn message(text: &str, secrets: &[&str]) -> String {
    let mut text = clean(text, secrets);
    if text.len() > MESSAGE_BYTES {
        cut(&mut text, MESSAGE_BYTES);
        text.push('…');
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Removes secrets and the private parts of URLs.
pub(super) fn clean(text: &str, secrets: &[&str]) -> String {
    let mut text = without_url_queries(text);
    for secret in secrets {
        // A shorter "secret" occurs by chance in many texts, and protects nothing.
        if secret.len() >= 4 {
            for spelling in spellings(secret) {
                if text.contains(&spelling) {
                    text = text.replace(&spelling, "[secret]");
                }
            }
        }
    }
    // PostgreSQL cannot store this character in text.
    text.replace('\0', " ")
}

/// Returns a secret in all encodings in which an answer may repeat it.
fn spellings(secret: &str) -> Vec<String> {
    let mut spellings = vec![secret.to_owned()];
    if secret.contains('/') {
        spellings.extend(["\\/", "\\u002f", "\\u002F"].map(|slash| secret.replace('/', slash)));
    }
    let percent = percent_encoding::utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
    let unreserved = [("%2D", "-"), ("%2E", "."), ("%5F", "_"), ("%7E", "~")];
    let usual = unreserved.iter().fold(percent.clone(), |text, (code, plain)| text.replace(code, plain));
    spellings.extend([percent.to_ascii_lowercase(), usual.to_ascii_lowercase(), percent, usual]);
    // A few characters of base64 occur by chance in many texts.
    if secret.len() >= 8 {
        spellings.extend((0..3).flat_map(|before| inside_base64(secret, before)));
    }
    spellings.dedup();
    spellings
}

/// Returns the base64 characters that depend only on the secret if `before` bytes (modulo 3)
/// precede it, in the standard and in the URL-safe alphabet.
fn inside_base64(secret: &str, before: usize) -> [String; 2] {
    let bytes = [&[0; 2][..before], secret.as_bytes()].concat();
    // A character encodes 6 bits. The first characters may contain bits of the text before, and the
    // last one bits of the text after.
    let (first, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)].map(|text| text[first..end].to_owned())
}

/// Parts of a parameter's name that indicate that its value is a key or a part of a signature.
const PRIVATE_NAMES: [&str; 14] = [
    "sig",
    "token",
    "key",
    "secret",
    "credential",
    "password",
    "passwd",
    "auth",
    "policy",
    "hmac",
    "hash",
    "jwt",
    "hdn",
    "session",
];
/// A longer parameter of a foreign URL may be a signature, whatever its name.
const QUERY_VALUE_BYTES: usize = 64;

/// Removes the values from the query of a URL that may be keys or signatures. `is_foreign`: the URL
/// comes from an answer or from the platform.
pub(super) fn query(query: &str, is_foreign: bool, secrets: &[&str]) -> String {
    let shown = query.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let lower = name.to_ascii_lowercase();
        let decoded = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
        let named_private = PRIVATE_NAMES.iter().any(|part| lower.contains(part));
        let long = is_foreign && pair.len() > QUERY_VALUE_BYTES;
        let known = clean(&decoded, secrets) != decoded || clean(pair, secrets) != pair;
        match pair.split_once('=') {
            None if !(long || known) => pair.to_owned(),
            None => "[secret]".to_owned(),
            Some(_) if named_private || long || known => format!("{}=[secret]", clean(name, secrets)),
            Some(_) => pair.to_owned(),
        }
    });
    shown.collect::<Vec<_>>().join("&")
}

/// Truncates at a character boundary, at or before `len`.
fn cut(text: &mut String, len: usize) {
    let len = (0..=len.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(len);
}

/// One encoding of a URL: the texts that delimit its parts.
///
/// The encodings are kept apart because in a plain URL, `%3f` belongs to the path.
struct UrlEncoding {
    /// The two slashes before the host.
    slashes: &'static [&'static str],
    host_ends: &'static [&'static str],
    /// The start of the query or the fragment.
    query_begins: &'static [&'static str],
    user_ends: &'static [&'static str],
}

/// Plain or with JSON escapes, percent-encoded once, and percent-encoded twice.
const URL_ENCODINGS: [UrlEncoding; 3] = [
    UrlEncoding {
        slashes: &["//", "\\/\\/", "\\u002f\\u002f"],
        host_ends: &["/", "\\", "?", "#"],
        query_begins: &["?", "#", "\\u003f", "\\u0023"],
        user_ends: &["@", "\\u0040"],
    },
    UrlEncoding {
        slashes: &["%2f%2f"],
        host_ends: &["%2f", "%3f", "%23", "?", "#"],
        query_begins: &["%3f", "%23", "?", "#"],
        user_ends: &["%40", "@"],
    },
    UrlEncoding {
        slashes: &["%252f%252f"],
        host_ends: &["%252f", "%253f", "%2523", "?", "#"],
        query_begins: &["%253f", "%2523", "?", "#"],
        user_ends: &["%2540", "@"],
    },
];

/// Finds the first occurrence of any of `needles` in `text`, which must be in lower case. Returns
/// its start and end.
fn first_of(text: &str, needles: &[&str]) -> Option<(usize, usize)> {
    needles.iter().filter_map(|needle| text.find(needle).map(|at| (at, at + needle.len()))).min()
}

/// Replaces the user part, the query and the fragment of every URL by `…`.
fn without_url_queries(text: &str) -> String {
    // The lower-case text has the same length, so positions in it are valid in `text`.
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    loop {
        let next = URL_ENCODINGS
            .iter()
            .filter_map(|encoding| Some((first_of(&lower[done..], encoding.slashes)?, encoding)));
        let Some(((_, begins), encoding)) = next.min_by_key(|(at, _)| *at) else { break };
        let begins = done + begins;
        out.push_str(&text[done..begins]);
        // The URL ends before a character that is invalid in a URL.
        let ends = text[begins..]
            .find(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '<' | '>' | '`'))
            .map_or(text.len(), |length| begins + length);
        let host_ends =
            first_of(&lower[begins..ends], encoding.host_ends).map_or(ends, |(at, _)| begins + at);
        let user = encoding.user_ends.iter().filter_map(|end| lower[begins..host_ends].rfind(end)).max();
        let shown = user.map_or(begins, |at| {
            out.push('…');
            begins + at
        });
        match first_of(&lower[shown..ends], encoding.query_begins) {
            Some((_, query)) => {
                out.push_str(&text[shown..shown + query]);
                out.push('…');
                // The URL ended with an escaped quote: keep its backslash, which is not part of the
                // URL.
                if text[..ends].ends_with('\\') {
                    out.push('\\');
                }
            }
            None => out.push_str(&text[shown..ends]),
        }
        done = ends;
    }
    out.push_str(&text[done..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_fragments_and_users_of_urls_are_removed() {
        for (given, kept) in [
            (
                r#"{"url":"https://cdn.example/a/b.png?sig=abc&exp=1","n":1}"#,
                r#"{"url":"https://cdn.example/a/b.png?…","n":1}"#,
            ),
            (
                r#"{"url":"https:\/\/cdn.example\/a.png?sig=abc\u0026exp=1"}"#,
                r#"{"url":"https:\/\/cdn.example\/a.png?…"}"#,
            ),
            ("see https://me:pw@host/x#frag now", "see https://…@host/x#… now"),
            (r#""{\"u\":\"http://h/p?s=1\"}""#, r#""{\"u\":\"http://h/p?…\"}""#),
            (
                r#"{"u":"https:\u002f\u002fcdn.example\u002Fa\u003Fsig=1","n":1}"#,
                r#"{"u":"https:\u002f\u002fcdn.example\u002Fa\u003F…","n":1}"#,
            ),
            ("r=https%3A%2F%2Fh%2Fa.png%3Fsig%3D1&n=1", "r=https%3A%2F%2Fh%2Fa.png%3F…"),
            ("https%253A%252F%252Fme%2540h%252Fa%253Fsig", "https%253A%252F%252F…%2540h%252Fa%253F…"),
            (r#"{"u":"//cdn.example/a.png?sig=1","n":1}"#, r#"{"u":"//cdn.example/a.png?…","n":1}"#),
            ("GET https://h/x%3Fy%23z and more", "GET https://h/x%3Fy%23z and more"),
            ("https://h/a?to=https://g/b?s=1 x", "https://h/a?… x"),
            ("gs://bucket/key and a:/b", "gs://bucket/key and a:/b"),
            ("no url ?a=b", "no url ?a=b"),
        ] {
            assert_eq!(clean(given, &[]), kept);
        }
    }

    #[test]
    fn values_that_may_be_keys_are_removed_from_a_query() {
        for (given, foreign, kept) in [
            ("task_id=7&v=2", true, "task_id=7&v=2"),
            (
                "task_id=7&X-Amz-Signature=abc&X-Amz-Credential=a%2Fb",
                true,
                "task_id=7&X-Amz-Signature=[secret]&X-Amz-Credential=[secret]",
            ),
            ("api_key=abc", false, "api_key=[secret]"),
            ("a=sk-0123%2F4&b", false, "a=[secret]&b"),
            ("sk-0123/4", true, "[secret]"),
            ("u=https%3A%2F%2Fh%2Fp%3Fsig%3D1", true, "u=[secret]"),
        ] {
            assert_eq!(query(given, foreign, &["sk-0123/4"]), kept, "{given}");
        }
        let long = format!("v={}", "x".repeat(100));
        assert_eq!(query(&long, true, &[]), "v=[secret]");
        assert_eq!(query(&long, false, &[]), long);
    }

    #[test]
    fn secrets_are_removed_from_excerpts_also_at_the_end_of_the_window() {
        let secret = "sk-0123456789";
        assert_eq!(excerpt(format!("key {secret}!").as_bytes(), &[secret]), "key [secret]!");
        // The window ends inside the secret, and nearly all text before it is a query that is
        // removed.
        let mut body = format!("https://h/?{} ", "q".repeat(WINDOW_BYTES - 17)).into_bytes();
        body.extend_from_slice(secret.as_bytes());
        body.extend_from_slice(b" tail");
        assert!(!excerpt(&body, &[secret]).contains("sk-"), "{}", excerpt(&body, &[secret]));
    }

    /// Regression test: each of these encodings was not recognized once.
    #[test]
    fn secrets_are_removed_in_every_encoding() {
        let secret = "sk-live/a+b=c~0123456789";
        for given in [
            secret.to_owned(),
            secret.replace('/', "\\/"),
            secret.replace('/', "\\u002F"),
            "sk-live%2Fa%2Bb%3Dc~0123456789".to_owned(),
            "sk%2dlive%2fa%2bb%3dc%7e0123456789".to_owned(),
        ] {
            assert_eq!(clean(&format!("key={given}!"), &[secret]), "key=[secret]!");
        }
        for user in ["", "u", "me", "key", "user", "user:"] {
            for after in ["", "1", "22"] {
                let bytes = format!("{user}{secret}{after}");
                for text in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
                    let cleaned = clean(&format!("Basic {text}"), &[secret]);
                    let left = cleaned.replace("[secret]", "").len() - "Basic ".len();
                    let around = (user.len() + after.len()) * 8 / 6 + 2;
                    assert!(cleaned.contains("[secret]") && left <= around, "{user} {after}: {cleaned}");
                }
            }
        }
    }

    #[test]
    fn excerpts_and_messages_are_truncated_at_character_boundaries() {
        let long = "é".repeat(100_000);
        assert!(excerpt(long.as_bytes(), &[]).len() <= EXCERPT_BYTES + 3);
        assert!(message(&long, &[]).len() <= MESSAGE_BYTES + 3);
        assert_eq!(message("a\nb\0c", &[]), "a b c");
        assert_eq!(excerpt(b"\xff\xfe", &[]), "\u{fffd}\u{fffd}");
    }
}
