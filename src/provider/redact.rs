//! Removes keys and signed URLs from what is kept of an answer, and bounds its length.
//!
//! Promise: no secret that is handed in is left in the text, whether it is written plainly, with
//! JSON escapes, percent-encoded or in base64; nor is the query, fragment or user part of a URL, in
//! the same spellings and without a scheme (`//host/…`). The path of a URL stays, because support
//! needs it. What is encoded twice in different ways is not recognised.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::NON_ALPHANUMERIC;

/// How much of an answer is kept, in bytes.
const EXCERPT_BYTES: usize = 4 * 1024;
/// How much of a message is kept, in bytes.
const MESSAGE_BYTES: usize = 500;
/// How much of an answer is looked at for its excerpt, in bytes.
const WINDOW_BYTES: usize = 64 * 1024;

/// The beginning of a body, cleaned.
pub(super) fn excerpt(body: &[u8], secrets: &[&str]) -> String {
    let window = &body[..body.len().min(WINDOW_BYTES)];
    let mut text = clean(&String::from_utf8_lossy(window), secrets);
    if window.len() < body.len() {
        // A secret that the window cuts in two would not be found: drop what could be its first half.
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

/// Words for people, cleaned, on one line, cut.
pub(super) fn message(text: &str, secrets: &[&str]) -> String {
    let mut text = clean(text, secrets);
    if text.len() > MESSAGE_BYTES {
        cut(&mut text, MESSAGE_BYTES);
        text.push('…');
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Takes secrets and the private parts of URLs out.
pub(super) fn clean(text: &str, secrets: &[&str]) -> String {
    let mut text = without_url_queries(text);
    for secret in secrets {
        // A very short "secret" would turn every text into stars, and hides nothing.
        if secret.len() >= 4 {
            for spelling in spellings(secret) {
                if text.contains(&spelling) {
                    text = text.replace(&spelling, "[secret]");
                }
            }
        }
    }
    // PostgreSQL text cannot hold it.
    text.replace('\0', " ")
}

/// A secret as an answer may repeat it.
fn spellings(secret: &str) -> Vec<String> {
    let mut spellings = vec![secret.to_owned()];
    if secret.contains('/') {
        spellings.extend(["\\/", "\\u002f", "\\u002F"].map(|slash| secret.replace('/', slash)));
    }
    let percent = percent_encoding::utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
    let unreserved = [("%2D", "-"), ("%2E", "."), ("%5F", "_"), ("%7E", "~")];
    let usual = unreserved.iter().fold(percent.clone(), |text, (code, plain)| text.replace(code, plain));
    spellings.extend([percent.to_ascii_lowercase(), usual.to_ascii_lowercase(), percent, usual]);
    // A few characters of base64 would be found in any text.
    if secret.len() >= 8 {
        spellings.extend((0..3).flat_map(|before| inside_base64(secret, before)));
    }
    spellings.dedup();
    spellings
}

/// The characters that stand for a secret and nothing else in base64 where `before` bytes, modulo
/// 3, come before it: in the usual alphabet and in that of URLs.
fn inside_base64(secret: &str, before: usize) -> [String; 2] {
    let bytes = [&[0; 2][..before], secret.as_bytes()].concat();
    // Six bits a character: the first ones may hold bits of what comes before, the last one of what
    // comes after.
    let (first, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)].map(|text| text[first..end].to_owned())
}

/// Parts of a parameter's name that say that its value is a key, a signature or part of one.
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
/// A longer value from an answer may be a signature, whatever its name.
const QUERY_VALUE_BYTES: usize = 64;

/// The query of a URL with the values taken out that may be keys or signatures. `foreign`: it came
/// out of an answer or was stored.
pub(super) fn query(query: &str, foreign: bool, secrets: &[&str]) -> String {
    let shown = query.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let lower = name.to_ascii_lowercase();
        let decoded = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
        let named_private = PRIVATE_NAMES.iter().any(|part| lower.contains(part));
        let long = foreign && pair.len() > QUERY_VALUE_BYTES;
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

/// Cuts at a character's border, at or before `len`.
fn cut(text: &mut String, len: usize) {
    let len = (0..=len.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(len);
}

/// How a URL may be spelled: as text or with JSON escapes, percent-encoded once, and twice. In a
/// plain URL `%3f` is part of the path.
struct Spelling {
    /// The two slashes before a host.
    slashes: &'static [&'static str],
    host_ends: &'static [&'static str],
    /// What begins a query or a fragment.
    query_begins: &'static [&'static str],
    user_ends: &'static [&'static str],
}

const URL_SPELLINGS: [Spelling; 3] = [
    Spelling {
        slashes: &["//", "\\/\\/", "\\u002f\\u002f"],
        host_ends: &["/", "\\", "?", "#"],
        query_begins: &["?", "#", "\\u003f", "\\u0023"],
        user_ends: &["@", "\\u0040"],
    },
    Spelling {
        slashes: &["%2f%2f"],
        host_ends: &["%2f", "%3f", "%23", "?", "#"],
        query_begins: &["%3f", "%23", "?", "#"],
        user_ends: &["%40", "@"],
    },
    Spelling {
        slashes: &["%252f%252f"],
        host_ends: &["%252f", "%253f", "%2523", "?", "#"],
        query_begins: &["%253f", "%2523", "?", "#"],
        user_ends: &["%2540", "@"],
    },
];

/// The first place in `text`, which is in lower case, that holds one of `needles`: where it begins
/// and ends.
fn first_of(text: &str, needles: &[&str]) -> Option<(usize, usize)> {
    needles.iter().filter_map(|needle| text.find(needle).map(|at| (at, at + needle.len()))).min()
}

/// Replaces the user part, query and fragment of every URL by `…`.
fn without_url_queries(text: &str) -> String {
    // Of the same length, byte by byte.
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    loop {
        let next = URL_SPELLINGS
            .iter()
            .filter_map(|spelling| Some((first_of(&lower[done..], spelling.slashes)?, spelling)));
        let Some(((_, begins), spelling)) = next.min_by_key(|(at, _)| *at) else { break };
        let begins = done + begins;
        out.push_str(&text[done..begins]);
        // Everything up to a character that no URL holds is the URL.
        let ends = text[begins..]
            .find(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '<' | '>' | '`'))
            .map_or(text.len(), |length| begins + length);
        let host_ends =
            first_of(&lower[begins..ends], spelling.host_ends).map_or(ends, |(at, _)| begins + at);
        let user = spelling.user_ends.iter().filter_map(|end| lower[begins..host_ends].rfind(end)).max();
        let shown = user.map_or(begins, |at| {
            out.push('…');
            begins + at
        });
        match first_of(&lower[shown..ends], spelling.query_begins) {
            Some((_, query)) => {
                out.push_str(&text[shown..shown + query]);
                out.push('…');
                // An escaped quote ends the URL, and what follows is the answer's own again.
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
    fn queries_fragments_and_users_of_urls_are_taken_out() {
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
    fn a_query_is_shown_without_what_may_be_a_key() {
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
    fn secrets_are_taken_out_of_excerpts_also_at_the_end_of_the_window() {
        let secret = "sk-0123456789";
        assert_eq!(excerpt(format!("key {secret}!").as_bytes(), &[secret]), "key [secret]!");
        // The window ends in the middle of the secret, and nearly all before it is a query that goes.
        let mut body = format!("https://h/?{} ", "q".repeat(WINDOW_BYTES - 17)).into_bytes();
        body.extend_from_slice(secret.as_bytes());
        body.extend_from_slice(b" tail");
        assert!(!excerpt(&body, &[secret]).contains("sk-"), "{}", excerpt(&body, &[secret]));
    }

    /// Each of these was kept.
    #[test]
    fn secrets_are_taken_out_in_every_spelling() {
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
    fn what_is_kept_is_short_whole_text() {
        let long = "é".repeat(100_000);
        assert!(excerpt(long.as_bytes(), &[]).len() <= EXCERPT_BYTES + 3);
        assert!(message(&long, &[]).len() <= MESSAGE_BYTES + 3);
        assert_eq!(message("a\nb\0c", &[]), "a b c");
        assert_eq!(excerpt(b"\xff\xfe", &[]), "\u{fffd}\u{fffd}");
    }
}
