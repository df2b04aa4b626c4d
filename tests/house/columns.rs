//! Comments, pages and SQL stay within 100 columns, so that two of them can be read side by side.
//!
//! Exempt are lines that cannot be wrapped: code (rustfmt wraps it), tables, headings, blocks of
//! code in pages, and lines with a URL. `not_wrapped.txt` lists the files that are older than this
//! rule. It can only become shorter: a listed file without a long line fails too.

use std::collections::BTreeSet;
use std::fs;

use crate::files::{File, root, under};

/// The widest line, in characters.
const COLUMNS: usize = 100;

/// The files and folders that are checked.
const PLACES: &[&str] = &[
    "src",
    "tests",
    "docs",
    "config",
    "deploy",
    "examples",
    "fuzz",
    "migrations",
    "scripts",
    ".cargo",
    ".ci",
    ".github",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "Cargo.toml",
    "Dockerfile",
    "clippy.toml",
    "deny.toml",
    "justfile",
    "rust-toolchain.toml",
];

/// Files that are printed by a program or are kept as they came, and why.
const EXEMPT: [(&str, &str); 1] =
    [("src/policy.md", "policy::table prints it: its text stands in src/policy.rs, as code")];

/// The last migration of each folder that may be wide. Installations keep the checksums of the
/// migrations that they have run, so these files never change.
const FROZEN: [(&str, &str); 4] = [
    ("migrations/postgres/", "0021"),
    ("migrations/sqlite/", "0021"),
    ("migrations/reference/postgres/", "0002"),
    ("migrations/reference/sqlite/", "0002"),
];

#[test]
fn comments_pages_and_sql_stay_within_a_hundred_columns() {
    let listed: BTreeSet<&str> = include_str!("not_wrapped.txt").lines().collect();
    let mut problems = Vec::new();
    let mut long = BTreeSet::new();
    for file in under(PLACES).into_iter().filter(|file| !is_exempt(&file.path)) {
        let lines = long_lines(&file);
        if lines.is_empty() {
            continue;
        }
        if !listed.contains(file.path.as_str()) {
            problems.push(format!("{}: lines {lines:?} are longer than {COLUMNS} columns", file.path));
        }
        long.insert(file.path);
    }
    let (still_long, wrapped): (Vec<&str>, Vec<&str>) =
        listed.into_iter().partition(|path| long.contains(*path));
    if std::env::var_os("MAKEGOOD_SHORTEN_LIST").is_some() {
        let list = still_long.join("\n") + "\n";
        fs::write(root().join("tests/house/not_wrapped.txt"), list).unwrap();
    } else if !wrapped.is_empty() {
        problems.push(format!(
            "{wrapped:?} have no long line. Take them off the list: \
             MAKEGOOD_SHORTEN_LIST=1 cargo test --test house columns"
        ));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn is_exempt(path: &str) -> bool {
    let frozen = |(folder, last): (&str, &str)| {
        path.strip_prefix(folder).and_then(|name| name.get(..4)).is_some_and(|number| number <= last)
    };
    EXEMPT.iter().any(|(exempt, _)| *exempt == path) || FROZEN.into_iter().any(frozen)
}

/// The numbers of the lines that are too long, from 1.
fn long_lines(file: &File) -> Vec<usize> {
    let mut in_code = false;
    let mut long = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let text = line.trim_start();
        let is_prose = match file.extension() {
            "rs" => text.starts_with("//"),
            "sql" => true,
            "md" => {
                in_code ^= text.starts_with("```");
                !in_code && !text.starts_with(['|', '#'])
            }
            "sh" | "py" | "yaml" | "yml" | "toml" | "justfile" | "Dockerfile" | "run" => {
                text.starts_with('#')
            }
            _ => false,
        };
        if is_prose && line.chars().count() > COLUMNS && !line.contains("://") {
            long.push(index + 1);
        }
    }
    long
}
