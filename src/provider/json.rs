//! Parses JSON for filters, with limits on its depth and on the number of its values.
//!
//! The time and memory of a well-written filter grow with the number of values, so a hostile answer
//! could exhaust them. Therefore the number is limited; real answers have some hundreds. (A filter
//! that takes too long anyway is stopped, see `filters`.) Long strings, such as base64 files, cost
//! a filter little; only `max_body_bytes` limits them.

use jaq_json::{Num, Val};
use memchr::memchr2;

/// The most values in one answer. Every number, string, list, object and key counts as one.
pub(super) const VALUES_MAX: usize = 20_000;

/// Why a text could not be parsed.
#[derive(Debug, thiserror::Error)]
pub(super) enum JsonError {
    /// It is not JSON, or it is nested too deeply.
    #[error("not JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    /// It has more values than any real answer.
    #[error("JSON of more than {VALUES_MAX} values")]
    TooMany,
}

/// Whether `text` has more than [`VALUES_MAX`] values, if it is JSON.
pub(super) fn has_too_many(text: &[u8]) -> bool {
    values(text) > VALUES_MAX
}

/// Parses JSON of at most 128 levels and [`VALUES_MAX`] values.
pub(super) fn parse(text: &[u8]) -> Result<Val, JsonError> {
    if has_too_many(text) { Err(JsonError::TooMany) } else { Ok(serde_json::from_slice(text)?) }
}

/// Counts the values in `text`, provided that it is JSON: one for each opening bracket, each comma
/// and each colon. It stops counting after the limit.
pub(super) fn values(text: &[u8]) -> usize {
    let mut count = 1;
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => rest = after_string(rest),
            b'[' | b'{' | b',' | b':' => count += 1,
            _ => {}
        }
        if count > VALUES_MAX {
            break;
        }
    }
    count
}

/// Skips a string whose opening quote has been read. Returns the text after it, or nothing if the
/// string never ends.
fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = memchr2(b'"', b'\\', rest) {
        let (found, after) = (rest[at], at + 1);
        if found == b'"' {
            return &rest[after..];
        }
        // Skip the escaped character: it cannot end the string.
        rest = rest.get(after + 1..).unwrap_or_default();
    }
    &[]
}

/// Converts a value for serde. Rejects values that JSON cannot represent.
pub(super) fn to_json(value: &Val) -> Result<serde_json::Value, String> {
    use serde_json::Value;
    Ok(match value {
        Val::Null => Value::Null,
        Val::Bool(b) => Value::Bool(*b),
        Val::Num(Num::Int(i)) => Value::from(*i),
        Val::Num(Num::Float(f)) => number(*f)?,
        Val::Num(Num::BigInt(i)) => number(i.to_string().parse().unwrap_or(f64::NAN))?,
        Val::Num(Num::Dec(d)) => number(d.parse().unwrap_or(f64::NAN))?,
        Val::TStr(text) | Val::BStr(text) => Value::String(string(text)?),
        Val::Arr(list) => Value::Array(list.iter().map(to_json).collect::<Result<_, _>>()?),
        Val::Obj(map) => Value::Object(
            map.iter()
                .map(|(key, value)| match key {
                    Val::TStr(key) => Ok((string(key)?, to_json(value)?)),
                    Val::Null | Val::Bool(_) | Val::Num(_) | Val::BStr(_) | Val::Arr(_) | Val::Obj(_) => {
                        Err("a key is not a string".to_owned())
                    }
                })
                .collect::<Result<_, _>>()?,
        ),
    })
}

fn number(f: f64) -> Result<serde_json::Value, String> {
    serde_json::Number::from_f64(f)
        .map(serde_json::Value::Number)
        .ok_or_else(|| format!("{f} is not a JSON number"))
}

fn string(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a string is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_but_not_the_characters_in_strings() {
        for (text, count) in [
            ("1", 1),
            ("[]", 2),
            ("[1,2,3]", 4),
            (r#"{"a":1,"b":[2]}"#, 6),
            (r#"["[,:{","\\",",\",",""]"#, 5),
            (r#""never ends, [,,"#, 1),
            ("\"\\", 1),
        ] {
            assert_eq!(values(text.as_bytes()), count, "{text}");
        }
    }

    #[test]
    fn an_answer_with_more_than_the_most_values_is_rejected() {
        let list = |numbers: usize| format!("[{}1]", "1,".repeat(numbers - 1));
        assert!(parse(list(VALUES_MAX - 1).as_bytes()).is_ok());
        assert!(matches!(parse(list(VALUES_MAX).as_bytes()), Err(JsonError::TooMany)));
        // One long value: a base64 file.
        assert!(parse(format!("\"{}\"", "A".repeat(4 << 20)).as_bytes()).is_ok());
    }
}
