//! Durations as text: one grammar for settings, provider files and arguments, and two formats.
//!
//! A duration is one or more whole numbers with a unit (`ms`, `s`, `m`, `h`, `d`), such as `90s` or
//! `1h 30m`; the parts are added up. A number without a unit, a fraction and a sign are refused,
//! because `1M` could be a minute or a month. [`format_exact`] repeats a setting as somebody would
//! write it. [`format_rounded`] is for ages and waiting times, where `1d 1h` reads better than
//! `90061s`.

use std::time::Duration;

/// The longest duration accepted. No setting makes sense beyond ten years, and all sums of instants
/// stay in range.
const MAX_DURATION: Duration = Duration::from_hours(24 * 3650);

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// It does not follow the grammar.
    Invalid,
    /// It is longer than ten years.
    TooLong,
}

/// Parses a duration such as `90s` or `1h 30m`.
///
/// # Errors
/// See [`ParseError`].
pub fn parse(text: &str) -> Result<Duration, ParseError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(ParseError::Invalid);
    }
    let mut sum_ms: u64 = 0;
    while !rest.is_empty() {
        let (number, tail) = split_at_first(rest, |c| !c.is_ascii_digit());
        let (unit, tail) = split_at_first(tail, |c| !c.is_ascii_lowercase());
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 60 * 60 * 1000,
            "d" => 24 * 60 * 60 * 1000,
            _ => return Err(ParseError::Invalid),
        };
        let number: u64 = number.parse().map_err(|_| ParseError::Invalid)?;
        sum_ms = sum_ms.saturating_add(number.saturating_mul(unit_ms));
        rest = tail.trim_start();
    }
    let duration = Duration::from_millis(sum_ms);
    if duration <= MAX_DURATION { Ok(duration) } else { Err(ParseError::TooLong) }
}

fn split_at_first(text: &str, is_end: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(is_end).unwrap_or(text.len()))
}

/// Formats a duration in the largest unit without a remainder: `90s`, `15m`. [`parse`] reads it
/// back.
pub fn format_exact(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit_ms, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")] {
        if ms >= unit_ms && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{ms}ms")
}

/// Formats a duration in its two largest units, rounded down to seconds: `1d 1h`, `2m 5s`.
pub fn format_rounded(duration: Duration) -> String {
    let secs = duration.as_secs();
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit} {small}{small_unit}") }
    };
    if days > 0 {
        two(days, "d", hours, "h")
    } else if secs >= 3600 {
        two(hours, "h", minutes, "m")
    } else if secs >= 60 {
        two(minutes, "m", secs % 60, "s")
    } else {
        format!("{secs}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_whole_numbers_with_units() {
        for (text, ms) in [
            ("250ms", 250),
            ("0s", 0),
            ("90s", 90_000),
            ("15m", 900_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            (" 2d ", 172_800_000),
            ("3650d", 315_360_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "",
            "15",
            "5",
            "m",
            "h",
            "1M",
            "1.5h",
            "-1h",
            "+1h",
            "1 h",
            "1hour",
            "1w",
            "1d!",
            "１h",
            "1h 30",
            "99999999999999999999d",
        ] {
            assert_eq!(parse(text), Err(ParseError::Invalid), "{text:?}");
        }
        for text in ["3651d", "3650d 1ms", "18446744073709551615d", "18446744073709551615d 9d"] {
            assert_eq!(parse(text), Err(ParseError::TooLong), "{text}");
        }
    }

    #[test]
    fn the_exact_format_can_be_parsed_again() {
        for text in ["250ms", "90s", "15m", "23h", "7d"] {
            assert_eq!(format_exact(parse(text).unwrap()), text);
        }
        assert_eq!(format_exact(Duration::ZERO), "0ms");
    }

    #[test]
    fn the_rounded_format_has_at_most_two_units() {
        for (secs, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m 1s"),
            (3600, "1h"),
            (7_260, "2h 1m"),
            (90_000, "1d 1h"),
        ] {
            assert_eq!(format_rounded(Duration::from_secs(secs)), text);
        }
    }
}
