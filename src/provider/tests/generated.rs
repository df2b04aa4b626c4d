//! Tests with answers that are generated from the specifications of the providers.
//!
//! `specifications/NAME.json` summarizes the specification of a provider: every status word with
//! its meaning, its fields and which of them are required, and the answers without a status word.
//! The rules below generate about 200 answers for each provider from it, deterministically:
//!
//! - A word that means waiting, failure or "unknown job" keeps its meaning whatever fields the
//!   answer has.
//! - A success without its files is unreadable.
//! - A word that is not in the specification, a wrong path, and the answers of an API that was shut
//!   down are unreadable. Only words of the specification lead to a refund.

use super::examples::{in_words, verdict};
use super::*;

/// One endpoint with its own schema.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Surface {
    name: String,
    job: String,
    model: String,
    #[serde(default = "one")]
    items: usize,
    #[serde(default = "one")]
    step: usize,
    /// The position of the status word, as a JSON pointer.
    word_at: Option<String>,
    /// The reading of an answer without a status word.
    #[serde(default = "unreadable")]
    absent: String,
    /// The fields of every answer.
    body: Value,
    words: Vec<Meaning>,
    answers: Vec<Answer>,
}

/// A status word of the specification.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meaning {
    word: Value,
    reads: String,
    class: Option<FailureClass>,
    #[serde(default = "ok")]
    status: u16,
    /// The fields that come with it. They are merged into the body.
    #[serde(default)]
    with: Value,
    /// The files that the answer offers.
    files: Option<Vec<String>>,
    /// Required fields: if one is missing or null, the answer is unreadable.
    #[serde(default)]
    needs: Vec<String>,
    /// Typed fields: if one is a number, an empty text or an object, the answer is unreadable.
    #[serde(default)]
    kinds: Vec<String>,
    /// Optional fields: if one is missing or null, the reading is the same.
    #[serde(default)]
    may_lack: Vec<String>,
}

/// A complete answer with its reading.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    what: String,
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    items: Option<usize>,
    body: Value,
    reads: String,
    class: Option<FailureClass>,
    files: Option<Vec<String>>,
}

fn one() -> usize {
    1
}

fn ok() -> u16 {
    200
}

fn unreadable() -> String {
    "unreadable".to_owned()
}

/// Merges `with` into `body`, recursively for objects.
fn merged(mut body: Value, with: &Value) -> Value {
    fn merge(into: &mut Value, from: &Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from.clone(),
        }
    }
    if !with.is_null() {
        merge(&mut body, with);
    }
    body
}

/// Sets the value at a pointer, or removes it.
fn put(mut body: Value, pointer: &str, value: Option<Value>) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match (body.pointer_mut(parent), value) {
        (Some(Value::Object(map)), Some(value)) => drop(map.insert(key.to_owned(), value)),
        (Some(Value::Object(map)), None) => drop(map.remove(key)),
        (parent, _) => panic!("{pointer} is not a key of an object: {parent:?}"),
    }
    body
}

/// Reads the generated answers of one endpoint and collects the wrong readings.
struct EndpointTest<'a> {
    provider: &'a str,
    surface: &'a Surface,
    count: usize,
    wrong: Vec<String>,
}

impl EndpointTest<'_> {
    /// Reads an answer. `wanted`: the readings that are permitted.
    fn read(&mut self, what: &str, status: u16, body: &Value, wanted: &[&str]) -> Reading {
        self.read_with(what, status, &BTreeMap::new(), body, self.surface.items, wanted)
    }

    fn read_with(
        &mut self,
        what: &str,
        status: u16,
        headers: &BTreeMap<String, String>,
        body: &Value,
        items: usize,
        wanted: &[&str],
    ) -> Reading {
        let surface = self.surface;
        let asked = question(self.provider, &surface.job, &surface.model, items);
        let reading = providers().read(&asked, surface.step, &received(status, headers, body)).unwrap();
        self.count += 1;
        if !wanted.contains(&verdict(&reading)) {
            self.complain(what, &format!("HTTP {status} {body}: {wanted:?} expected, read as {reading:?}"));
        }
        reading
    }

    fn complain(&mut self, what: &str, why: &str) {
        self.wrong.push(format!("{}, {}: {what}: {why}", self.provider, self.surface.name));
    }

    /// Compares the class of failure and the files of a reading.
    fn compare(
        &mut self,
        what: &str,
        reading: &Reading,
        class: Option<FailureClass>,
        files: Option<&[String]>,
    ) {
        let Reading::Judged(evidence) = reading else { return };
        if evidence.class != class {
            self.complain(what, &format!("{class:?} expected, classified as {:?}", evidence.class));
        }
        let mut offered: Vec<String> = evidence.outputs.iter().map(|offer| in_words(&offer.source)).collect();
        offered.sort();
        if files.is_some_and(|files| files != offered) {
            self.complain(what, &format!("{files:?} expected, offered are {offered:?}"));
        }
    }

    /// Tests all answers with a status word.
    fn words(&mut self) {
        let surface = self.surface;
        let Some(at) = &surface.word_at else { return };
        let of = |word: &Meaning| put(merged(surface.body.clone(), &word.with), at, Some(word.word.clone()));
        for word in &surface.words {
            let name = word.word.to_string();
            let body = of(word);
            let reading = self.read(&name, word.status, &body, &[&word.reads]);
            self.compare(&name, &reading, word.class, word.files.as_deref());
            self.missing_fields(word, &body);
            self.error_statuses(word, &body);
            // The fields of another word do not change the reading. The exception: a wait may
            // become unreadable, which also waits.
            let wanted: &[&str] = match word.reads.as_str() {
                "succeeded" | "ask_result" => continue,
                reads @ ("queued" | "running") => &[reads, "unreadable"],
                reads => &[reads],
            };
            for other in &surface.words {
                let both = put(merged(body.clone(), &other.with), at, Some(word.word.clone()));
                let what = format!("{name} with the fields of {}", other.word);
                self.read(&what, word.status, &both, wanted);
            }
        }
        self.unknown_words(at, &surface.words.iter().map(of).collect::<Vec<_>>());
    }

    /// Tests missing fields: a success without its files is unreadable, but a failure without its
    /// reason is a failure.
    fn missing_fields(&mut self, word: &Meaning, body: &Value) {
        for (pointers, wanted) in [(&word.needs, "unreadable"), (&word.may_lack, word.reads.as_str())] {
            for pointer in pointers {
                for (change, to) in [("without", None), ("with null at", Some(Value::Null))] {
                    let what = format!("{} {change} {pointer}", word.word);
                    self.read(&what, word.status, &put(body.clone(), pointer, to), &[wanted]);
                }
            }
        }
        for pointer in &word.kinds {
            for to in [Value::from(7), Value::from(""), serde_json::json!({"a": 1}), Value::from(true)] {
                let what = format!("{} with {to} at {pointer}", word.word);
                self.read(&what, word.status, &put(body.clone(), pointer, Some(to)), &["unreadable"]);
            }
        }
    }

    /// Tests error statuses: with one of them, a status word says nothing about the job.
    fn error_statuses(&mut self, word: &Meaning, body: &Value) {
        if word.reads == "unknown" {
            return;
        }
        for (status, wanted) in [
            (400, "unreadable"),
            (404, "unreadable"),
            (410, "unreadable"),
            (401, "unauthorized"),
            (403, "unauthorized"),
            (429, "retry_later"),
            (500, "unreachable"),
            (503, "unreachable"),
        ] {
            self.read(&format!("{} with HTTP {status}", word.word), status, body, &[wanted]);
        }
    }

    /// Tests words that are not in the specification in place of each word that is.
    fn unknown_words(&mut self, at: &str, bodies: &[Value]) {
        let known: Vec<&Value> = self.surface.words.iter().map(|word| &word.word).collect();
        for (word, body) in self.surface.words.iter().zip(bodies) {
            let mut others = vec![Value::from("a_new_word"), Value::from(""), Value::from(7)];
            if let Some(text) = word.word.as_str() {
                others.extend(
                    [text.to_uppercase(), text.to_lowercase(), format!("{text} "), format!("{text}_2")]
                        .map(Value::from),
                );
            }
            others.retain(|other| !known.contains(&other));
            for other in others {
                let what = format!("{other} instead of {}", word.word);
                self.read(&what, word.status, &put(body.clone(), at, Some(other)), &["unreadable"]);
            }
            if word.reads != "unknown" {
                let absent = self.surface.absent.as_str();
                for to in [None, Some(Value::Null)] {
                    let what = format!("{to:?} instead of {}", word.word);
                    self.read(&what, word.status, &put(body.clone(), at, to), &[absent]);
                }
            }
        }
    }

    /// Tests the complete answers.
    fn answers(&mut self) {
        for answer in &self.surface.answers {
            let items = answer.items.unwrap_or(self.surface.items);
            let reading = self.read_with(
                &answer.what,
                answer.status,
                &answer.headers,
                &answer.body,
                items,
                &[&answer.reads],
            );
            self.compare(&answer.what, &reading, answer.class, answer.files.as_deref());
        }
    }

    /// Tests the answers of gateways, wrong paths and APIs that were shut down: they say nothing
    /// about a job.
    fn wrong_paths(&mut self) {
        const WITHOUT_VERDICT: [&str; 4] = ["unreadable", "unreachable", "unauthorized", "retry_later"];
        if self.surface.step > 1 {
            return;
        }
        for body in [
            serde_json::json!({"detail": "Not Found"}),
            serde_json::json!({"message": "Not Found"}),
            serde_json::json!({"message": "no Route matched with those values"}),
            serde_json::json!({"error": {"message": "Invalid URL", "type": "invalid_request_error"}}),
            serde_json::json!({"error": {"code": 404, "message": "Method not found.", "status": "NOT_FOUND"}}),
            serde_json::json!({"error": "This API has been shut down. See the url of our documentation."}),
            serde_json::json!({}),
            serde_json::json!([]),
            Value::Null,
            Value::from("Not Found"),
            // <html>gone</html>
            serde_json::json!({"$base64": "PGh0bWw+Z29uZTwvaHRtbD4="}),
            serde_json::json!({"$base64": ""}),
        ] {
            for status in [200, 301, 403, 404, 410, 451, 500, 503] {
                self.read("no answer about a job", status, &body, &WITHOUT_VERDICT);
            }
        }
    }
}

/// Reads all specifications. Returns them with the name of the provider.
fn specifications() -> Vec<(&'static str, Vec<Surface>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/provider/tests/specifications");
    let read = |name: &'static str| {
        let path = folder.join(format!("{name}.json"));
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (name, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}")))
    };
    SHIPPED.iter().map(|(name, _)| read(name)).collect()
}

#[test]
fn every_status_word_is_read_as_specified_and_no_other_word_refunds() {
    let mut wrong = Vec::new();
    let mut total = 0;
    for (provider, surfaces) in specifications() {
        let mut of_provider = 0;
        for surface in &surfaces {
            let mut test = EndpointTest { provider, surface, count: 0, wrong: Vec::new() };
            test.words();
            test.answers();
            test.wrong_paths();
            of_provider += test.count;
            wrong.append(&mut test.wrong);
        }
        println!("{provider}: {of_provider} answers");
        assert!(of_provider > 150, "{provider}: only {of_provider} answers");
        total += of_provider;
    }
    assert!(wrong.is_empty(), "{} of {total}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_shipped_file_names_its_specification_and_the_day_of_the_last_comparison() {
    for (name, text) in SHIPPED {
        let head: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        let paragraph = |start: &str| -> String {
            let from = head.iter().position(|line| line.starts_with(start));
            let from = from.unwrap_or_else(|| panic!("{name}.toml has no line `{start}`"));
            head[from..].iter().take(3).copied().collect::<Vec<_>>().join(" ")
        };
        // A date, or the words "not dated".
        let dated = |text: &str| {
            text.contains("not dated")
                || text
                    .split(|c: char| !c.is_ascii_digit() && c != '-')
                    .any(|word| word.starts_with("202") && word.len() >= 7)
        };
        assert!(dated(&paragraph("# Specification: ")), "{name}: the specification has no date");
        let compared = paragraph("# Compared on ");
        let day = compared.trim_start_matches("# Compared on ").get(..10).unwrap_or_default();
        assert!(chrono::NaiveDate::parse_from_str(day, "%Y-%m-%d").is_ok(), "{name}: {compared}");
        assert!(
            head.iter().all(|line| line.chars().count() <= 100),
            "{name}: a line of the head is too long"
        );
    }
}
