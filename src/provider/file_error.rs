//! Errors in provider files: the line, the key, and what the value must be.
//!
//! The messages of the parsers contain Rust types and repeat the text of the file. These messages
//! do neither: a text in the wrong place may be a secret that somebody wrote into the file. Numbers
//! are repeated. `file` and others check the values; `ProviderError` adds the name of the file.

use toml::de::{DeTable, DeValue};

/// An error in a provider file.
#[derive(Debug)]
pub(super) struct FileError {
    pub(super) key: String,
    pub(super) problem: String,
    /// The line of the file, from 1, if the parser reported it.
    pub(super) line: Option<usize>,
    /// The line within the value of the key, from 1: for an error in a filter.
    pub(super) line_of_value: Option<usize>,
}

impl FileError {
    pub(super) fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into(), line: None, line_of_value: None }
    }

    /// The error for a filter that does not compile.
    pub(super) fn of_filter(key: impl Into<String>, problem: &str) -> Self {
        // Take the line out of the message. It is converted to a line of the file later.
        let problem = problem.split_whitespace().collect::<Vec<_>>().join(" ");
        let split = problem.strip_prefix("line ").and_then(|rest| rest.split_once(": "));
        let (line, problem) = match split.and_then(|(line, rest)| Some((line.parse().ok()?, rest))) {
            Some((line, rest)) => (Some(line), rest),
            None => (None, problem.as_str()),
        };
        Self { line_of_value: line, ..Self::new(key, format!("must be a jq filter: {problem}")) }
    }

    /// The error for a file that is not TOML.
    pub(super) fn of_toml(text: &str, error: &toml::de::Error) -> Self {
        let line = error.span().map(|span| line_at(text, span.start));
        Self { line, ..Self::new("(the file)", format!("is not TOML: {}", first_line(error.message()))) }
    }

    /// The error for a value of the wrong type.
    pub(super) fn of_type(key: String, message: &str) -> Self {
        Self::new(key, describe(message, "table"))
    }

    /// Returns the line of the file that the error refers to.
    pub(super) fn line_in(&self, text: &str) -> Option<usize> {
        self.line.or_else(|| {
            let found = find(text, &self.key)?;
            let line = line_at(text, found.start);
            match (self.line_of_value, found.value) {
                (Some(nth), Some(value)) => Some(line_of_value(text, value, nth)),
                _ => Some(line),
            }
        })
    }
}

/// Returns the error that the value of `key` must be something else.
pub(super) fn invalid<T>(key: impl Into<String>, problem: impl Into<String>) -> Result<T, FileError> {
    Err(FileError::new(key, format!("must be {}", problem.into())))
}

/// Rewrites the message of a parser without Rust types and without the text of the file. `map`: the
/// word for a set of keys.
pub(super) fn describe(message: &str, map: &str) -> String {
    let message = first_line(message);
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        return format!("unknown word {rest}");
    }
    for start in ["invalid type: ", "invalid value: "] {
        let split = message.strip_prefix(start).and_then(|rest| rest.split_once(", expected "));
        if let Some((found, expected)) = split {
            return format!("must be {}, not {}", expected_type(expected, map), found_type(found, map));
        }
    }
    match message.strip_prefix("missing field ") {
        Some(name) => format!("the key {name} is missing"),
        None => message.to_owned(),
    }
}

fn first_line(message: &str) -> &str {
    message.trim().lines().next().unwrap_or_default()
}

/// Describes the value that was found by its type. Only numbers and booleans are repeated.
fn found_type(found: &str, map: &str) -> String {
    match found.split_once(' ') {
        Some(("integer" | "boolean", value)) => value.to_owned(),
        Some(("floating", value)) => value.trim_start_matches("point ").to_owned(),
        Some(("string" | "character", _)) => "text".to_owned(),
        _ => expected_type(found, map),
    }
}

/// Translates serde's name of a type into plain words.
fn expected_type(expected: &str, map: &str) -> String {
    let plain = match expected {
        "usize" | "u64" | "u32" | "u16" | "u8" => "a whole number, 0 or more",
        "i64" | "i32" | "i16" | "i8" | "isize" => "a whole number",
        "f64" | "f32" => "a number",
        "a string" | "string" | "str" => "text",
        "path string" => "a path",
        "a boolean" => "`true` or `false`",
        "a sequence" | "sequence" => "a list",
        "null" | "unit value" | "Option value" => "nothing",
        "a map" | "map" => return format!("a {map}").replace("a obj", "an obj"),
        other if other.starts_with("struct ") || other.starts_with("enum ") => {
            return format!("a {map}").replace("a obj", "an obj");
        }
        other => other,
    };
    plain.to_owned()
}

/// The position of a key.
struct KeyPosition {
    start: usize,
    /// The start of its value, if the complete key was found.
    value: Option<usize>,
}

/// Finds a key like `models."a/b".grace` or `provider.output_hosts[0]`. If it does not exist, the
/// result is the closest table around it.
fn find(text: &str, key: &str) -> Option<KeyPosition> {
    let table = DeTable::parse(text).ok()?;
    let mut table = table.get_ref();
    let mut rest = key;
    let mut found = None;
    loop {
        // Take the longest matching name, because a name may contain dots.
        let fitting = table.iter().filter_map(|(name, value)| {
            let plain = name.get_ref().as_ref();
            let quoted = format!("{plain:?}");
            [plain, &quoted]
                .into_iter()
                .filter_map(|name| rest.strip_prefix(name))
                .filter(|left| left.is_empty() || left.starts_with(['.', '[']))
                .map(|left| (left.len(), name, value))
                .min_by_key(|(left, ..)| *left)
        });
        let Some((left, name, value)) = fitting.min_by_key(|(left, ..)| *left) else { return found };
        rest = &rest[rest.len() - left..];
        found = Some(KeyPosition {
            start: name.span().start,
            value: rest.is_empty().then(|| value.span().start),
        });
        let mut value = value;
        while let Some((nth, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let element = nth.parse::<usize>().ok().and_then(|nth| value.get_ref().as_array()?.get(nth));
            let Some(element) = element else { return found };
            (value, rest) = (element, after);
            found = Some(KeyPosition { start: value.span().start, value: None });
        }
        match (rest.strip_prefix('.'), value.get_ref()) {
            (Some(after), DeValue::Table(inner)) => (table, rest) = (inner, after),
            _ => return found,
        }
    }
}

/// Converts line `nth` of a text that begins at `start` to a line of the file.
fn line_of_value(text: &str, start: usize, nth: usize) -> usize {
    let first = line_at(text, start);
    let value = text.get(start..).unwrap_or_default();
    // A line break directly after the opening quotes does not belong to the text.
    let below = ["'''", "\"\"\""]
        .iter()
        .find_map(|quotes| value.strip_prefix(quotes))
        .map(|value| usize::from(value.starts_with('\n') || value.starts_with("\r\n")));
    match below {
        Some(below) => first + below + nth - 1,
        None => first,
    }
}

/// The line of a byte, from 1.
fn line_at(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::super::file;

    const FILE: &str = r#"[provider]
name = "acme"
output_hosts = [
  "cdn.acme.example",
  "*.acme.example",
]
[models."acme/video.v1"]
grace = "10m"
[auth]
header = "x-key"
value = "{secret}"
secret = { env = "ACME_KEY" }
[ask]
request = "GET https://acme.example/{job}"
read = '''
if .status == 200
then {verdict: "running"}
else {verdict: "unreadable"} end
'''
"#;

    #[test]
    fn an_error_has_a_line_and_the_expected_value_but_no_rust_type_and_no_secret() {
        for (from, to, line, says) in [
            ("name = \"acme\"", "name = 7", 2, "must be text, not `7`"),
            ("name = \"acme\"", "name = \"A\"", 2, "must be 1 to 64"),
            ("name = \"acme\"", "name = \"acme\"\nretries = -1", 3, "must be a whole number, 0 or more"),
            (
                "name = \"acme\"",
                "name = \"acme\"\nmax_concurrency = 1.5",
                3,
                "whole number, 0 or more, not `1.5`",
            ),
            ("name = \"acme\"", "name = \"acme\"\ntimeout = \"soon\"", 3, "a duration"),
            ("\"*.acme.example\"", "\"*acme\"", 3, "host names like"),
            ("\"*.acme.example\"", "5", 5, "must be text"),
            ("output_hosts", "hosts", 3, "unknown field"),
            (
                "grace = \"10m\"",
                "grace = true",
                8,
                "must be a duration, for instance `20s`, `10m` or `1h`, not `true`",
            ),
            ("{ env = \"ACME_KEY\" }", "\"sk-private\"", 12, "the source of the key"),
            ("{ env = \"ACME_KEY\" }", "{ env = \"A\", \"sk-private\" = 1 }", 12, "unknown"),
            ("[provider]\n", "download = \"sk-private\"\n[provider]\n", 1, "a table"),
            ("[auth]\n", "[auth]\nkind = \"basik\"\n", 10, "unknown word"),
            ("then {", "then foo {", 17, "must be a jq filter: "),
            ("then {", "thn {", 17, "must be a jq filter: "),
            ("read = '''\n", "read_all = 1\nread = '''\n", 15, "must be `true` or `false`"),
            ("secret = { env", "secret = sk-private { env", 12, "is not TOML"),
            ("[ask]\nrequest", "[ask]\nrequst", 14, "unknown field"),
            ("request = \"GET https://acme.example/{job}\"\n", "", 13, "the key `request` is missing"),
            (
                "if .status == 200\nthen {verdict: \"running\"}",
                "if .body.state = 200\nthen {verdict: \"failed\"}",
                15,
                "unreadable",
            ),
        ] {
            let text = FILE.replacen(from, to, 1);
            assert_ne!(text, FILE, "{from}");
            let error = super::super::load_text("acme.toml", "acme", &text).unwrap_err().to_string();
            assert!(error.contains(&format!("acme.toml, line {line}: ")), "{to}: {error}");
            assert!(error.contains(says), "{to}: {error}");
            if !to.contains("\"sk-private\" = 1") {
                assert!(!error.contains("sk-private"), "{error}");
            }
            for rust in ["usize", "u32", "f64", "struct", "Toml", "variant", "sequence", "i64"] {
                assert!(!error.contains(rust), "{to}: {error}");
            }
        }
        assert!(file::read(FILE).is_ok());
    }
}
