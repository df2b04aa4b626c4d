//! Tests with fictional providers. Their files were written from `docs/providers.md` alone, and
//! each has a format that no shipped file has. Also tests the example on that page.

use super::examples::verdict;
use super::*;
use crate::clock::Timestamp;
use crate::provider::file;

const NOW: Timestamp = Timestamp::from_micros(1_777_888_000_000_000);

#[test]
fn a_new_provider_needs_only_a_file() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/providers");
    let providers = Providers::load(Some(&root), Clock::default()).unwrap();
    let mut tried = 0;
    for name in ["lumen", "atelier", "foundry", "storyboard", "vaultcast"] {
        for path in std::fs::read_dir(root.join(name)).unwrap().map(|entry| entry.unwrap().path()) {
            let case = AnswerCase::parse(&std::fs::read_to_string(&path).unwrap(), &root.join(name))
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let compared = providers.compare(name, &case).unwrap().unwrap();
            assert!(compared.differences.is_empty(), "{}: {:?}", path.display(), compared.differences);
            tried += 1;
        }
    }
    assert_eq!(tried, 34);
}

/// Returns the code blocks of the page in one language, by the last file name before each block.
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
fn the_example_in_the_documentation_is_read_as_documented() {
    let page = include_str!("../../../docs/providers.md");
    let provider = load_text("acme.toml", "acme", blocks(page, "toml")["acme.toml"]).unwrap();
    let answers = blocks(page, "json");
    let read = |body: &str, status: u16| {
        let received = HttpAnswer::new(status, HeaderMap::new(), Bytes::copy_from_slice(body.as_bytes()));
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
    // The example of a case.
    let case = AnswerCase::parse(answers["cases/acme/succeeded.json"], std::path::Path::new(".")).unwrap();
    let providers = Providers::new(BTreeMap::from([("acme".to_owned(), provider)]), Clock::default());
    let compared = providers.compare("acme", &case).unwrap().unwrap();
    assert!(compared.differences.is_empty(), "{:?}", compared.differences);
    let provider = providers.get("acme").unwrap();
    let read = |body: &str, status: u16| {
        let received = HttpAnswer::new(status, HeaderMap::new(), Bytes::copy_from_slice(body.as_bytes()));
        provider.read(&question("acme", "job_81", "acme/still", 2), (1, &Value::Null), &received, NOW, &[])
    };
    // Step 5 of the example.
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
fn the_documentation_contains_every_key_and_every_shipped_file() {
    let page = include_str!("../../../docs/providers.md");
    for (name, _) in SHIPPED {
        assert!(page.contains(&format!("\n| `{name}` |")), "{name} is not on the page");
    }
    // The error for an unknown key lists all keys of the table.
    for table in
        ["", "[provider]", "[auth]", "[download]", "[ask]", "[models.x]", "[recovery]", "[recovery.models.x]"]
    {
        let error = file::read(&format!("{table}\nno_such_key = 1\n")).map(|_| ()).unwrap_err();
        let (_, expected) =
            error.problem.split_once("expected ").unwrap_or_else(|| panic!("{table}: {error:?}"));
        for key in expected.split('`').skip(1).step_by(2) {
            let named =
                [format!("\n| `{key}` "), format!("`[{key}"), format!("[ask.{key}]"), format!("[{key}.")];
            assert!(named.iter().any(|named| page.contains(named)), "`{key}` of {table} is not on the page");
        }
    }
}
