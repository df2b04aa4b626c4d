//! Parses durations in provider files: `250ms`, `20s`, `10m`, `1h`, `2d`, `1h 30m`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// A duration in a provider file.
#[derive(Clone, Copy, Debug)]
pub(super) struct DurationText(pub(super) Duration);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Reader)
    }
}

/// Accepts text only, so that the error for any other type says what is expected.
struct Reader;

impl de::Visitor<'_> for Reader {
    type Value = DurationText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration, for instance `20s`, `10m` or `1h`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<DurationText, E> {
        parse(text).map(DurationText).ok_or_else(|| {
            E::custom(format!("`{text}` is not a duration, for instance `20s`, `10m` or `1h`"))
        })
    }
}

fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let letters = tail.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 3600 * 1000,
            "d" => 24 * 3600 * 1000,
            _ => return None,
        };
        sum = sum.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = tail.trim_start();
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_a_unit() {
        assert_eq!(parse("1h30m"), Some(Duration::from_mins(90)));
        assert_eq!(parse(" 2d "), Some(Duration::from_hours(48)));
        for text in ["", "5", "1M", "-1s", "1.5h", "h", "99999999999999999999d"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
