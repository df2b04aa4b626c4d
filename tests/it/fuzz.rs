//! The short round of fuzzing: from bytes to evidence, for every shipped provider.
//! `docs/testing.md` describes the long one; both try the same inputs (`fuzz/answers.rs`).
//!
//! It uses proptest instead of a fuzzer's front-end, because proptest is a dependency already.

use std::path::{Path, PathBuf};

use makegood::evidence::Verdict;
use makegood::provider::Reading;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[path = "../../fuzz/answers.rs"]
mod answers;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn seeds() -> Vec<Vec<u8>> {
    let examples = answers::examples(&here("tests/data/provider-examples"));
    let kept = answers::corpus(&here("fuzz/corpus/answers"));
    examples.into_iter().map(|(_, input)| input).chain(kept).collect()
}

#[test]
fn every_example_and_everything_that_was_kept_is_read_by_every_provider() {
    let seeds = seeds();
    assert!(seeds.len() > 50, "only {} inputs", seeds.len());
    let mut silent: Vec<&str> = answers::PROVIDERS.names().collect();
    for seed in &seeds {
        answers::try_all(seed);
        // A fuzzer's input may be too short to be an answer.
        let Some((choice, body)) = answers::split(seed) else { continue };
        silent.retain(|provider| match answers::try_one(provider, choice, body) {
            Reading::Judged(evidence) => matches!(evidence.verdict, Verdict::CouldNotTell(_)),
            Reading::AskNext(_) => true,
        });
    }
    // Otherwise its filter is never reached, and the test proves nothing.
    assert_eq!(silent, Vec::<&str>::new(), "no input tells anything about these");
}

/// A change to an answer.
#[derive(Clone, Debug)]
enum Change {
    Cut(usize),
    Byte(usize, u8),
    Insert(usize, &'static [u8]),
    Double(usize, usize),
}

const PIECES: [&[u8]; 24] = [
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"0.1",
    b"\"\"",
    b"[]",
    b"{}",
    b"[[[[[[[[",
    b"}",
    b"]",
    b",",
    b":",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe",
    b"\0",
    b"\"https://h/x\"",
    b"\"data:a;base64,%%\"",
    b"\"failed\"",
    b"\"error\":",
    b"99999999999999999999",
    b"\xef\xbb\xbf",
];

fn change() -> impl Strategy<Value = Change> {
    let at = 0..4096_usize;
    prop_oneof![
        at.clone().prop_map(Change::Cut),
        (at.clone(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (at.clone(), prop::sample::select(PIECES.to_vec())).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (at.clone(), at).prop_map(|(from, to)| Change::Double(from, to)),
    ]
}

fn changed(mut input: Vec<u8>, changes: Vec<Change>) -> Vec<u8> {
    for change in changes {
        let len = input.len().max(1);
        match change {
            Change::Cut(at) => input.truncate(at % (len + 1)),
            Change::Byte(at, byte) => {
                if let Some(place) = input.get_mut(at % len) {
                    *place = byte;
                }
            }
            Change::Insert(at, piece) => {
                let at = (at % len).min(input.len());
                input.splice(at..at, piece.iter().copied());
            }
            Change::Double(from, to) => {
                let (from, to) = (from % len, to % len);
                let piece = input.get(from.min(to)..from.max(to)).unwrap_or_default().to_vec();
                input.splice(from.min(to)..from.min(to), piece);
            }
        }
    }
    input
}

#[test]
fn answers_with_a_few_bytes_changed_break_nothing() {
    let case = (prop::sample::select(seeds()), prop::collection::vec(change(), 1..6));
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    runner
        .run(&case, |(seed, changes)| {
            answers::try_all(&changed(seed, changes));
            Ok(())
        })
        .unwrap();
}

/// As large as a debug build reads in seconds; `fuzz/src/bin/measure.rs` goes to the limit of
/// bytes.
#[test]
fn huge_deep_and_foreign_answers_are_read_or_refused() {
    let many = |one: &str| one.repeat(8_000 / one.len());
    // One more value than is read: refused before any filter sees it.
    let too_many = |one: &str| one.repeat(20_000);
    for body in [
        "[".repeat(100_000).into_bytes(),
        "{\"a\":".repeat(30_000).into_bytes(),
        format!("{}1{}", "[".repeat(127), "]".repeat(127)).into_bytes(),
        format!("[{}1]", many("[],")).into_bytes(),
        format!("[{}1]", too_many("[],")).into_bytes(),
        format!("{{\"status\":\"succeeded\",\"output\":[{}1]}}", many("\"https://h/x\",")).into_bytes(),
        format!("{{\"status\":\"succeeded\",\"output\":[{}1]}}", too_many("\"https://h/x\",")).into_bytes(),
        format!("{{\"status\":\"failed\",\"output\":null,\"error\":\"{}\"}}", many("nsf")).into_bytes(),
        format!("{{\"status\":\"{}\"}}", many("\\ud83d\\ude00")).into_bytes(),
        many("\u{fffd}").into_bytes(),
        vec![0; 100_000],
        vec![0xff; 100_000],
    ] {
        for flags in [2, 3] {
            answers::try_all(&[&[0, flags], body.as_slice()].concat());
        }
    }
}

#[test]
fn an_answer_of_more_values_than_any_honest_one_is_unreadable_to_every_provider() {
    let body = format!("{{\"status\":\"failed\",\"error\":[{}1]}}", "1,".repeat(30_000));
    for provider in answers::PROVIDERS.names() {
        let Reading::Judged(evidence) = answers::try_one(provider, (0, 2), body.as_bytes()) else {
            panic!("{provider} asks further");
        };
        assert_eq!(
            evidence.verdict,
            Verdict::CouldNotTell(makegood::evidence::Doubt::Unreadable),
            "{provider}"
        );
        assert!(evidence.message.unwrap().contains("more than 20000 values"), "{provider}");
    }
}
