//! Tests that a changed key in a good answer never leads to a refund.
//!
//! Every example answer that waits or offers all its files is read again with one object key
//! removed, set to null, or replaced by a number, for every key at every depth. None of these
//! readings may refund at once. Otherwise a provider that renames a key would cause refunds for
//! outputs that exist. Elements of lists are not removed: that is P06 (partial outputs).

use super::*;

/// Collects all object keys below `value` as JSON pointers.
fn keys(value: &Value, at: &str, found: &mut Vec<String>) {
    let below = |key: &str| format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                found.push(below(key));
                keys(value, &below(key), found);
            }
        }
        Value::Array(list) => {
            for (nth, value) in list.iter().enumerate() {
                keys(value, &below(&nth.to_string()), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Removes the key at `pointer`, or sets another value.
fn changed(body: &Value, pointer: &str, to: Option<Value>) -> Value {
    let mut body = body.clone();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let key = key.replace("~1", "/").replace("~0", "~");
    let map = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match to {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
    body
}

/// Whether at least one of the items is refunded without another question.
pub(super) fn refunds(reading: &Reading, items: usize) -> bool {
    let Reading::Judged(evidence) = reading else { return false };
    let files =
        evidence.outputs.iter().filter(|offer| !matches!(offer.source, Source::Failed { .. })).count();
    match evidence.verdict {
        Verdict::UnknownJob => true,
        Verdict::Failed | Verdict::Cancelled | Verdict::Succeeded => files < items,
        Verdict::Queued | Verdict::Running | Verdict::CouldNotTell(_) => false,
    }
}

#[test]
fn a_missing_or_mistyped_key_never_turns_a_wait_or_a_file_into_a_refund() {
    let readings = examples::readings();
    let (mut tried, mut wrong) = (0, Vec::new());
    for file in files() {
        if readings.downloads.contains_key(&file) {
            continue;
        }
        let mut example = example(&file);
        // One item for each output of the answer, including those that the provider filtered.
        let offered = |items| match read_example(&file, items).1 {
            Reading::Judged(evidence) => evidence.outputs.len(),
            Reading::AskNext(_) => 0,
        };
        let items = [1, 2, 4].map(offered).into_iter().max().unwrap().max(1);
        if refunds(&read_as(&file, &example, items), items) {
            continue;
        }
        let body = std::mem::take(&mut example.body);
        let mut pointers = Vec::new();
        keys(&body, "", &mut pointers);
        for pointer in pointers {
            for (change, to) in
                [("removed", None), ("null", Some(Value::Null)), ("a number", Some(Value::from(7)))]
            {
                example.body = changed(&body, &pointer, to);
                tried += 1;
                let reading = read_as(&file, &example, items);
                if refunds(&reading, items) {
                    wrong.push(format!("{file}: {pointer} {change}: {reading:?}"));
                }
            }
        }
    }
    assert!(tried > 1500, "only {tried} changes");
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
}
