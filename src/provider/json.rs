//! JSON as filters take it: bounded in depth and in the number of its values.
//!
//! What a filter does takes time for each value it is given: the shipped ones look at a value a few
//! times at most. So the number of values is bounded, and with it the time and the memory that a
//! hostile answer can take of a filter that means well (others are stopped, see `filters`); real
//! answers have some hundreds. Long strings (files in base64) cost a filter little and are bounded
//! by the file's `max_body_bytes` alone.

use jaq_json::{Num, Val};
use memchr::memchr2;

/// The most values in one answer: numbers, strings, lists, objects, and whatever else stands in them.
pub(super) const VALUES_MAX: usize = 20_000;

/// Why text was not parsed.
#[derive(Debug, thiserror::Error)]
pub(super) enum JsonError {
    /// It is no JSON, or nested too deeply.
    #[error("no JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    /// It has more values than any honest answer.
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

/// How many values `text` has, if it is JSON: each opening bracket and each comma brings one, each colon a key's.
/// Stops counting soon after the limit.
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

/// What follows a string, given all that follows its opening quote; nothing if it never ends.
fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = memchr2(b'"', b'\\', rest) {
        let (found, after) = (rest[at], at + 1);
        if found == b'"' {
            return &rest[after..];
        }
        // Whatever is escaped is no end.
        rest = rest.get(after + 1..).unwrap_or_default();
    }
    &[]
}

/// The same value for serde; refuses what JSON does not have.
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
    serde_json::Number::from_f64(f).map(serde_json::Value::Number).ok_or_else(|| format!("{f} is no number"))
}

fn string(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a string is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_and_what_stands_in_strings_is_not() {
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
    fn an_answer_of_more_values_than_any_is_refused_and_one_of_as_many_is_not() {
        let list = |numbers: usize| format!("[{}1]", "1,".repeat(numbers - 1));
        assert!(parse(list(VALUES_MAX - 1).as_bytes()).is_ok());
        assert!(matches!(parse(list(VALUES_MAX).as_bytes()), Err(JsonError::TooMany)));
        // Few values, and long: a file in base64.
        assert!(parse(format!("\"{}\"", "A".repeat(4 << 20)).as_bytes()).is_ok());
    }
}
