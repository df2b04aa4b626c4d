//! Providers that nobody has: written as somebody would who has read only `docs/providers.md`, each with a
//! shape that no shipped file has. And that page's own example, read from the page.

use std::fmt::Write;

use super::examples::{in_words, verdict};
use super::*;
use crate::clock::Timestamp;
use crate::provider::file;

const NOW: Timestamp = Timestamp::from_micros(1_777_888_000_000_000);

/// An answer and what it should be read as.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(default = "job")]
    job: String,
    #[serde(default = "model")]
    model: String,
    #[serde(default = "one")]
    items: usize,
    #[serde(default = "one")]
    step: usize,
    #[serde(default)]
    kept: Value,
    #[serde(default)]
    status: u16,
    #[serde(default)]
    body: Value,
    /// The first request of the question.
    asks_first: Option<String>,
    /// The question cannot be asked, for this reason.
    refuses: Option<String>,
    reads: Option<Reads>,
}

fn job() -> String {
    "job-1".to_owned()
}

fn model() -> String {
    "owner/model".to_owned()
}

const fn one() -> usize {
    1
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Reads {
    verdict: Option<String>,
    class: Option<FailureClass>,
    code: Option<String>,
    #[serde(default)]
    outputs: Vec<String>,
    #[serde(default)]
    outputs_gone: bool,
    /// The next step.
    asks: Option<String>,
}

fn read(reading: &Reading) -> Reads {
    match reading {
        Reading::AskNext(request) => Reads {
            verdict: None,
            class: None,
            code: None,
            outputs: Vec::new(),
            outputs_gone: false,
            asks: Some(request.to_string()),
        },
        Reading::Judged(evidence) => Reads {
            verdict: Some(evidence.verdict.as_str().to_owned()),
            class: evidence.class,
            code: evidence.code.clone(),
            outputs: evidence
                .outputs
                .iter()
                .map(|offer| {
                    let index = offer.index.map_or_else(|| "?".to_owned(), |index| index.to_string());
                    let mut words = format!("{index} {}", in_words(&offer.source));
                    if let Some(at) = offer.expires_at {
                        // Writing into a string cannot fail.
                        let _ = write!(words, " until {at}");
                    }
                    words
                })
                .collect(),
            outputs_gone: evidence.outputs_gone,
            asks: None,
        },
    }
}

#[test]
fn providers_of_other_shapes_need_a_file_and_nothing_else() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/providers");
    let providers = Providers::load(Some(&root), Clock::default()).unwrap();
    let mut tried = 0;
    for name in ["lumen", "atelier", "foundry", "storyboard", "vaultcast"] {
        let provider = providers.get(name).unwrap();
        for path in std::fs::read_dir(root.join(name)).unwrap().map(|entry| entry.unwrap().path()) {
            let case: Case = serde_json::from_str(&std::fs::read_to_string(&path).unwrap())
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let path = path.display();
            let asked = question(name, &case.job, &case.model, case.items);
            let first = provider.first_request(&asked).map(|request| request.to_string());
            if let Some(refuses) = &case.refuses {
                assert!(first.as_ref().is_err_and(|error| error.contains(refuses)), "{path}: {first:?}");
                tried += 1;
                continue;
            }
            if let Some(wanted) = &case.asks_first {
                assert_eq!(first.as_ref(), Ok(wanted), "{path}");
            }
            let received = received(case.status, &BTreeMap::new(), &case.body);
            let reading = provider.read(&asked, (case.step, &case.kept), &received, NOW, &[]);
            assert_eq!(Some(read(&reading)), case.reads, "{path}: {reading:?}");
            tried += 1;
        }
    }
    assert_eq!(tried, 34);
}

/// The blocks of the page in one language, each with the file name that is named last before it.
fn blocks(page: &'static str, language: &str) -> BTreeMap<&'static str, &'static str> {
    let fence = format!("```{language}\n");
    let mut found = BTreeMap::new();
    let mut at = 0;
    while let Some(start) = page[at..].find(&fence).map(|start| at + start + fence.len()) {
        let end = start + page[start..].find("\n```").unwrap();
        let name = page[..start - fence.len()].rsplit('`').find(|word| {
            word.rsplit_once('.')
                .is_some_and(|(stem, kind)| !stem.contains(' ') && ["json", "toml"].contains(&kind))
        });
        if let Some(name) = name {
            found.entry(name).or_insert(&page[start..end]);
        }
        at = end;
    }
    found
}

#[test]
fn the_example_of_the_page_is_read_as_the_page_says() {
    let page = include_str!("../../../docs/providers.md");
    let provider = load_text("acme.toml", "acme", blocks(page, "toml")["acme.toml"]).unwrap();
    let answers = blocks(page, "json");
    let read = |body: &str, status: u16| {
        let received =
            Received { status, headers: HeaderMap::new(), body: Bytes::copy_from_slice(body.as_bytes()) };
        provider.read(&question("acme", "job_81", "acme/still", 2), (1, &Value::Null), &received, NOW, &[])
    };
    for (answer, status, wanted) in [
        ("succeeded.json", 200, "succeeded"),
        ("failed.json", 200, "failed"),
        ("running.json", 200, "running"),
        ("unknown.json", 404, "unknown"),
        ("wrong-path.json", 404, "unreadable"),
    ] {
        assert_eq!(verdict(&read(answers[answer], status)), wanted, "{answer}");
    }
    match read(answers["succeeded.json"], 200) {
        Reading::Judged(evidence) => assert_eq!(indices(&evidence), [Some(0), Some(1)]),
        Reading::AskNext(request) => panic!("{request}"),
    }
    // Step 5 of the page.
    for (good, broken) in [
        (r#""done""#, r#""finished""#),
        (r#""images": ["#, r#""images": null, "was": ["#),
        (r#""https://cdn.acme.example/81/1.png""#, "7"),
    ] {
        let body = answers["succeeded.json"].replacen(good, broken, 1);
        assert_ne!(body, answers["succeeded.json"], "{good} is not in the answer");
        assert_eq!(verdict(&read(&body, 200)), "unreadable", "{broken}");
    }
}

#[test]
fn the_page_names_every_key_and_every_shipped_file() {
    let page = include_str!("../../../docs/providers.md");
    for (name, _) in SHIPPED {
        assert!(page.contains(&format!("\n| `{name}` |")), "{name} is not on the page");
    }
    // What serde says it expects is the whole list of keys of a table.
    for table in
        ["", "[provider]", "[auth]", "[download]", "[ask]", "[models.x]", "[recovery]", "[recovery.models.x]"]
    {
        let flaw = file::read(&format!("{table}\nno_such_key = 1\n")).map(|_| ()).unwrap_err();
        let (_, expected) =
            flaw.problem.split_once("expected ").unwrap_or_else(|| panic!("{table}: {flaw:?}"));
        for key in expected.split('`').skip(1).step_by(2) {
            let named =
                [format!("\n| `{key}` "), format!("`[{key}"), format!("[ask.{key}]"), format!("[{key}.")];
            assert!(named.iter().any(|named| page.contains(named)), "`{key}` of {table} is not on the page");
        }
    }
}
