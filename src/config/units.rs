//! Strict readers of time spans, sizes, numbers, instants and paths.
//!
//! Time spans follow the grammar of [`duration`], sizes a similar one: a whole number and a unit.
//! The usual crates are not strict enough: humantime reads `1M` as a month, bytesize reads `4G` as
//! 4×10⁹. Any other form is an error that shows the right one. Numbers are whole and in range,
//! never rounded; text is never read as a number.

use std::time::Duration;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};

use crate::clock::Timestamp;
use crate::duration::{self, format_exact};

/// The error about an invalid time span.
pub const SPAN_HELP: &str = "expected a time span: a whole number and one of ms, s, m, h, d, for instance \"90s\", \"15m\" or \"24h\"";

/// The error about an invalid size.
pub const SIZE_HELP: &str =
    "expected a size: a whole number and one of B, KiB, MiB, GiB, TiB, for instance \"512MiB\" or \"4GiB\"";

/// Splits `15m` into 15 and `m`; digits only, no sign, no point, no space.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit))
}

/// Reads a time span such as `90s`.
///
/// # Errors
/// The expected format.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|error| match error {
        duration::ParseError::Invalid => SPAN_HELP.to_owned(),
        duration::ParseError::TooLong => "expected at most \"3650d\" (ten years)".to_owned(),
    })
}

/// Reads a size in bytes such as `4GiB`.
///
/// # Errors
/// The expected format.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || SIZE_HELP.to_owned();
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(1_u64 << shift)
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| "expected at most \"8388607TiB\"".to_owned())
}

/// Accepts only text. The string says what is expected.
struct Text(&'static str);

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // serde writes "expected" itself.
        f.write_str(self.0.trim_start_matches("expected "))
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

/// A time span of at least `MIN_MS` milliseconds.
pub(super) fn span<'de, D: Deserializer<'de>, const MIN_MS: u64>(d: D) -> Result<Duration, D::Error> {
    let text = d.deserialize_str(Text(SPAN_HELP))?;
    let span = parse_span(&text).map_err(D::Error::custom)?;
    let least = Duration::from_millis(MIN_MS);
    if span < least {
        return Err(D::Error::custom(format!("expected at least \"{}\"", format_exact(least))));
    }
    Ok(span)
}

/// A time span, or none if the text is empty.
pub(super) fn span_or_none<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
    let text = d.deserialize_str(Text(SPAN_HELP))?;
    if text.is_empty() {
        return Ok(None);
    }
    let span = parse_span(&text).map_err(D::Error::custom)?;
    if span.is_zero() {
        return Err(D::Error::custom("expected a time span above zero, or \"\" for no limit"));
    }
    Ok(Some(span))
}

/// A size in bytes above zero, or "auto": a share of the container's memory.
pub(super) fn memory<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    const HELP: &str = "expected \"auto\" or a size: a whole number and one of B, KiB, MiB, GiB, TiB, for instance \"256MiB\"";
    let text = d.deserialize_str(Text(HELP))?;
    if text == "auto" {
        return Ok(super::memory::share_of_limit(super::memory::container_limit()));
    }
    match parse_size(&text) {
        Err(_) => Err(D::Error::custom(HELP)),
        Ok(0) => Err(D::Error::custom("expected a size above zero")),
        Ok(bytes) => Ok(bytes),
    }
}

/// A size in bytes, above zero.
pub(super) fn size<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    let text = d.deserialize_str(Text(SIZE_HELP))?;
    match parse_size(&text).map_err(D::Error::custom)? {
        0 => Err(D::Error::custom("expected a size above zero")),
        bytes => Ok(bytes),
    }
}

/// An instant as RFC 3339, or none if the text is empty.
pub(super) fn instant_or_none<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Timestamp>, D::Error> {
    const HELP: &str = "expected an instant as RFC 3339, for instance \"2026-01-01T00:00:00Z\", or \"\"";
    let text = d.deserialize_str(Text(HELP))?;
    if text.is_empty() {
        return Ok(None);
    }
    Timestamp::parse(&text).map(Some).map_err(|_| D::Error::custom(HELP))
}

/// A path, or none if the text is empty.
pub(super) fn path_or_none<'de, D: Deserializer<'de>>(d: D) -> Result<Option<std::path::PathBuf>, D::Error> {
    let text = d.deserialize_str(Text("expected a path as text, or \"\""))?;
    Ok((!text.is_empty()).then(|| text.into()))
}

/// A whole number from `MIN` to `MAX`, without rounding or conversion.
pub(super) fn whole<'de, D, T, const MIN: u64, const MAX: u64>(d: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let wrong = || D::Error::custom(format!("expected a whole number from {MIN} to {MAX}"));
    let number = u64::deserialize(d).map_err(|_| wrong())?;
    if !(MIN..=MAX).contains(&number) {
        return Err(wrong());
    }
    T::try_from(number).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_span_is_refused_with_the_right_form() {
        assert_eq!(parse_span("1h 30m"), Ok(Duration::from_mins(90)));
        assert_eq!(parse_span("1M"), Err(SPAN_HELP.to_owned()));
        assert!(parse_span("3651d").unwrap_err().contains("at most"));
    }

    #[test]
    fn a_size_has_a_unit_that_is_a_power_of_1024() {
        for (text, bytes) in
            [("7B", 7), ("1KiB", 1024), ("4GiB", 4 << 30), ("512MiB", 512 << 20), ("2TiB", 2 << 40)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "4", "4G", "4GB", "4Gib", "1M", "1k", "4.5GiB", "-1B", "4 GiB"] {
            assert_eq!(parse_size(text), Err(SIZE_HELP.to_owned()), "{text:?}");
        }
        assert!(parse_size("99999999TiB").unwrap_err().contains("at most"));
    }
}
