//! Holds `docs/promises.md` to the code: every number that is cited is on the page, and every
//! promise has a test.

use std::collections::{BTreeMap, BTreeSet};

use crate::files::{File, read, under};

/// Files and folders that cite promises or contain tests.
const CITING: [&str; 9] =
    ["src", "tests", "docs", "migrations", "config", "deploy", "scripts", "README.md", "SECURITY.md"];

#[test]
fn every_cited_promise_is_on_the_page() {
    let promises = promises();
    for file in under(&CITING) {
        let unknown: Vec<_> = cited(&file).into_iter().filter(|number| !promises.contains(number)).collect();
        assert!(unknown.is_empty(), "{} cites {unknown:?}, which docs/promises.md does not have", file.path);
    }
}

#[test]
fn every_promise_has_a_test_that_carries_its_number() {
    let mut tests: BTreeMap<String, usize> = BTreeMap::new();
    for file in under(&["src", "tests"]).iter().filter(|file| file.extension() == "rs") {
        for number in tested(&file.text) {
            *tests.entry(number).or_default() += 1;
        }
    }
    let untested: Vec<_> = promises().into_iter().filter(|number| !tests.contains_key(number)).collect();
    assert!(untested.is_empty(), "no test's name begins with the number of {untested:?} of docs/promises.md");
}

/// The numbers in the first column of the page's tables, each once.
fn promises() -> BTreeSet<String> {
    let page = read("docs/promises.md");
    let mut promises = BTreeSet::new();
    for line in page.lines() {
        let cell = line.strip_prefix("| P").and_then(|rest| rest.split_once(' '));
        if let Some((digits, _)) = cell {
            assert!(is_number(digits), "docs/promises.md: `P{digits}` is not a number of two digits");
            assert!(promises.insert(format!("P{digits}")), "docs/promises.md has P{digits} twice");
        }
    }
    assert!(!promises.is_empty(), "docs/promises.md has no table of promises");
    promises
}

/// `P15` in any text, and `p15_` in the names of tests.
fn cited(file: &File) -> BTreeSet<String> {
    let words = file.text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let mut found = BTreeSet::new();
    for word in words {
        if let Some(digits) = word.strip_prefix('P').filter(|digits| is_number(digits)) {
            found.insert(format!("P{digits}"));
        }
        found.extend(numbers_of_name(word));
    }
    found
}

/// The promises that tests of a Rust file are named after.
fn tested(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        // `on_both!` makes two tests of the function in it, one for each database.
        if ["#[test]", "#[tokio::test", "on_both! {"].iter().any(|start| line.starts_with(start)) {
            is_test = true;
        } else if let Some(name) = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn ")) {
            if is_test {
                found.extend(numbers_of_name(name));
            }
            is_test = false;
        }
    }
    found
}

/// The numbers at the beginning of a name: `p03_p05_a_refund` has two.
fn numbers_of_name(name: &str) -> Vec<String> {
    let parts = name.split('_').map(|part| part.strip_prefix('p').filter(|digits| is_number(digits)));
    parts.map_while(|digits| digits.map(|digits| format!("P{digits}"))).collect()
}

fn is_number(digits: &str) -> bool {
    digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit())
}
