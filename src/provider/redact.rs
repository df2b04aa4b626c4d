//! What may be kept of an answer: its beginning, without keys and without signed URLs.
//!
//! Promise: no secret that is handed in, and no query, fragment or user part of a URL, is left in the
//! text. The path of a URL stays, because support needs it.

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
        let longest = secrets.iter().map(|secret| secret.len()).max().unwrap_or(0);
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
            text = text.replace(secret, "[secret]");
        }
    }
    // PostgreSQL text cannot hold it.
    text.replace('\0', " ")
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

/// Replaces the user part, query and fragment of every URL by `…`.
fn without_url_queries(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = [rest.find(":/"), rest.find(":\\/")].into_iter().flatten().min() {
        // Some encoders write `https:\/\/`. Everything up to a character that no URL holds is the URL.
        let (before, tail) = rest.split_at(at);
        let slashes = ["://", ":\\/\\/"].into_iter().find(|slashes| tail.starts_with(slashes));
        let Some(slashes) = slashes else {
            let (skip, tail) = tail.split_at(2);
            out.push_str(before);
            out.push_str(skip);
            rest = tail;
            continue;
        };
        let tail = &tail[slashes.len()..];
        let end = tail
            .find(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '<' | '>' | '`'))
            .unwrap_or(tail.len());
        let (url, after) = tail.split_at(end);
        out.push_str(before);
        out.push_str(slashes);
        let host_end = url.find(['/', '\\', '?', '#']).unwrap_or(url.len());
        let shown = match url[..host_end].rfind('@') {
            Some(user_end) => {
                out.push('…');
                &url[user_end..]
            }
            None => url,
        };
        match shown.find(['?', '#']) {
            Some(query) => {
                out.push_str(&shown[..=query]);
                out.push('…');
                // An escaped quote ends the URL, and what follows is the answer's own again.
                if shown.ends_with('\\') {
                    out.push('\\');
                }
            }
            None => out.push_str(shown),
        }
        rest = after;
    }
    out.push_str(rest);
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

    #[test]
    fn what_is_kept_is_short_whole_text() {
        let long = "é".repeat(100_000);
        assert!(excerpt(long.as_bytes(), &[]).len() <= EXCERPT_BYTES + 3);
        assert!(message(&long, &[]).len() <= MESSAGE_BYTES + 3);
        assert_eq!(message("a\nb\0c", &[]), "a b c");
        assert_eq!(excerpt(b"\xff\xfe", &[]), "\u{fffd}\u{fffd}");
    }
}
