//! Compares the keys of a JSON list with those that its statement reads.
//!
//! SQL reports no error for a misspelt key: the value is silently NULL. So debug builds, and with
//! them every test, compare the keys before a list is sent ([`check`]) and panic with the names of
//! the statement and of the keys. Release builds do not compare. Tests compare the keys that a
//! statement reads in both dialects, and with those that its comment lists.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use super::{Statement, Value};

type Keys<'a> = BTreeSet<&'a str>;

/// Compares the keys that are sent with those that the statement reads.
///
/// Rows may leave keys out, which is NULL on purpose, and a list may be for two statements, of
/// which each reads a part. A key that is not read beside one that is missing is a misspelt key.
///
/// # Panics
/// The rows have a key that the statement does not read, and lack one that it reads.
pub(super) fn check(statement: &Statement, text: &str, values: &[Value]) {
    let rows: Vec<_> = values.iter().flat_map(objects).collect();
    if rows.is_empty() {
        return;
    }
    let sent: Keys<'_> = rows.iter().flat_map(Map::keys).map(String::as_str).collect();
    // Some keys are for the other dialect.
    let read: Keys<'_> = [statement.postgres, statement.sqlite].into_iter().flat_map(known).collect();
    let unknown: Keys<'_> = sent.difference(&read).copied().collect();
    let known = known(text);
    let missing: Keys<'_> = known.difference(&sent).copied().collect();
    assert!(
        unknown.is_empty() || missing.is_empty(),
        "`{}` is sent {unknown:?}, which it does not read, and reads {missing:?}: one is misspelt",
        statement.name
    );
}

/// The objects of a JSON parameter: one, or a list of them. A list of ids has no keys.
fn objects(value: &Value) -> Vec<Map<String, Json>> {
    let Value::Json(json) = value else { return Vec::new() };
    serde_json::from_str(json)
        .or_else(|_| serde_json::from_str(json).map(|one| vec![one]))
        .unwrap_or_default()
}

/// The keys that a text reads, or those that its comment lists if it hands the list to a function.
fn known(text: &str) -> Keys<'_> {
    if calls_a_function(text) { listed(text) } else { read(text) }
}

/// Whether the list goes to a function in the database, which reads it there.
fn calls_a_function(text: &str) -> bool {
    let called = |rest: &str| {
        rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_').starts_with("($1::jsonb)")
    };
    code(text).any(|line| line.split("makegood_").skip(1).any(called))
}

/// The lines that are no comment.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("--"))
}

/// The keys that a text reads: `->> 'key'`, `-> 'key'`, and the columns of a record definition,
/// `jsonb_to_recordset(…) AS d(key text, …)`.
fn read(text: &str) -> Keys<'_> {
    let mut keys = Keys::new();
    for line in code(text) {
        for (at, arrow) in line.match_indices("->") {
            let rest = line[at + arrow.len()..].trim_start_matches('>').trim_start();
            keys.extend(rest.strip_prefix('\'').and_then(|rest| rest.split_once('\'')).map(|(key, _)| key));
        }
    }
    for (at, _) in text.match_indices("jsonb_to_record") {
        keys.extend(columns(&text[at..]));
    }
    keys
}

/// The columns of the record definition of a call that stands at the beginning of `text`.
fn columns(text: &str) -> Vec<&str> {
    let definition = parenthesis(text)
        .and_then(|(_, rest)| rest.trim_start().strip_prefix("AS "))
        .and_then(parenthesis)
        .map(|(columns, _)| columns);
    definition.map_or_else(Vec::new, |columns| {
        columns.split(',').filter_map(|column| column.split_whitespace().next()).collect()
    })
}

/// What stands in the first parenthesis, and what comes after it.
fn parenthesis(text: &str) -> Option<(&str, &str)> {
    let begin = text.find('(')? + 1;
    let mut depth = 1;
    for (at, c) in text[begin..].char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&text[begin..begin + at], &text[begin + at + 1..]));
        }
    }
    None
}

/// The keys that the comment lists in braces: `{charge_id, output_index}`. The words after a key
/// (`model or null`) say more about it.
fn listed(text: &str) -> Keys<'_> {
    let mut keys = Keys::new();
    let mut is_open = false;
    for line in text.lines().filter_map(|line| line.trim_start().strip_prefix("--")) {
        for (nth, part) in line.split(['{', '}']).enumerate() {
            // A brace that was opened on an earlier line closes at the first one of this line.
            is_open = if nth == 0 { is_open } else { !is_open };
            if is_open {
                keys.extend(part.split(',').filter_map(|key| key.split_whitespace().next()));
            }
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::statements::ALL;

    const ONE: Statement = Statement {
        name: "one",
        postgres: "-- one: $1: JSON list of {id,\n-- state or null}.\nSELECT 1 FROM \
                   jsonb_to_recordset($1::jsonb) AS d(id bigint,\n    state text)",
        sqlite: "-- one: {id, state, hash}.\nSELECT value ->> 'id', value ->> 'state', \
                 value ->> 'hash' FROM json_each($1)",
    };

    fn sent(list: &serde_json::Value) {
        check(&ONE, ONE.postgres, &[7.into(), list.into()]);
        check(&ONE, ONE.sqlite, &[7.into(), list.into()]);
    }

    #[test]
    fn rows_may_leave_keys_out_and_may_serve_another_statement_too() {
        sent(&json!([{"id": 1, "state": null, "hash": "x"}]));
        sent(&json!([{"id": 1}, {"id": 2, "state": "open"}]));
        sent(&json!([{"id": 1, "state": "open", "hash": "x", "for_another": 1}]));
        sent(&json!({"id": 1, "state": "open"}));
        sent(&json!(["c1", "c2"]));
        sent(&json!([]));
    }

    #[test]
    #[should_panic(expected = "`one` is sent {\"sate\"}, which it does not read, and reads {\"state\"}")]
    fn a_misspelt_key_is_an_error() {
        check(&ONE, ONE.postgres, &[(&json!([{"id": 1}, {"id": 2, "sate": "open"}])).into()]);
    }

    #[test]
    fn both_dialects_read_the_same_keys() {
        // PostgreSQL computes this one in a trigger.
        let for_sqlite = Keys::from(["content_sha256"]);
        for statement in ALL.iter().filter(|one| !one.postgres.is_empty() && !one.sqlite.is_empty()) {
            let sqlite: Keys<'_> = known(statement.sqlite).difference(&for_sqlite).copied().collect();
            // On SQLite its one writer locks nothing, so its text may need no list.
            if !sqlite.is_empty() {
                assert_eq!(known(statement.postgres), sqlite, "`{}`", statement.name);
            }
        }
    }

    #[test]
    fn each_statement_reads_the_keys_that_its_comment_lists() {
        let mut compared = 0;
        for statement in ALL {
            for text in [statement.postgres, statement.sqlite] {
                let read = read(text);
                if !calls_a_function(text) {
                    assert_eq!(read, listed(text), "`{}`: read, and listed in its comment", statement.name);
                    compared += usize::from(!read.is_empty());
                }
            }
        }
        assert!(compared > 50, "{compared}");
    }

    #[test]
    fn functions_of_the_database_read_the_keys_that_their_statements_list() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres");
        let migrations: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
            .collect();
        let read: Keys<'_> = migrations.iter().flat_map(|text| read(text)).collect();
        let mut compared = 0;
        for statement in ALL.iter().filter(|statement| calls_a_function(statement.postgres)) {
            let keys = listed(statement.postgres);
            assert!(!keys.is_empty() && keys.is_subset(&read), "`{}` lists {keys:?}", statement.name);
            compared += 1;
        }
        assert_eq!(compared, 6, "statements that hand a list to a function");
    }
}
