//! Types of command-line arguments.

use std::str::FromStr;
use std::time::Duration;

use super::words::is_invisible;
use crate::clock::Timestamp;
use crate::config::parse_span;
use crate::duration::format_exact;

/// A start time: an instant, or a time span before now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinceArg {
    /// This instant.
    At(Timestamp),
    /// This long ago.
    Ago(Duration),
}

impl SinceArg {
    /// The instant.
    pub fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(span) => now - span,
        }
    }
}

/// A text that is neither an instant nor a time span.
#[derive(Debug, thiserror::Error)]
#[error("expected an instant as RFC 3339 (2026-01-31T06:00:00Z) or a time span before now (90m, 36h, 7d)")]
pub struct BadSince;

impl FromStr for SinceArg {
    type Err = BadSince;

    fn from_str(text: &str) -> Result<Self, BadSince> {
        if let Ok(span) = parse_span(text) {
            return Ok(Self::Ago(span));
        }
        Timestamp::parse(text).map(Self::At).map_err(|_| BadSince)
    }
}

impl std::fmt::Display for SinceArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::At(at) => write!(f, "{at}"),
            Self::Ago(span) => f.write_str(&format_exact(*span)),
        }
    }
}

/// A time span above zero, in the notation of the settings.
///
/// # Errors
/// The expected format.
pub fn positive_span(text: &str) -> Result<Duration, String> {
    let span = parse_span(text)?;
    if span.is_zero() { Err("expected a time span above zero".to_owned()) } else { Ok(span) }
}

/// A name or a reason that is stored in the audit trail.
///
/// # Errors
/// It is empty, or contains invisible characters, which could make it look like another text.
pub fn visible_text(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("it is stored in the audit trail and must not be empty".to_owned());
    }
    match text.chars().find(|&c| c.is_control() || is_invisible(c)) {
        Some(c) => Err(format!("it contains the invisible character {}; remove it", c.escape_unicode())),
        None => Ok(text.to_owned()),
    }
}

/// A person's name that is stored in the audit trail. `makegood` is reserved for automatic actions.
///
/// # Errors
/// Those of [`visible_text`]; or it is `makegood`, or looks like it.
pub fn person_name(text: &str) -> Result<String, String> {
    let name = visible_text(text)?;
    if looks_like_makegood(&name) {
        Err("`makegood` is reserved for automatic actions; expected a person's name".to_owned())
    } else {
        Ok(name)
    }
}

/// Whether a name looks like `makegood`: in any case, with other characters between the letters, or
/// with letters of Unicode's list of confusable characters.
fn looks_like_makegood(name: &str) -> bool {
    let letters = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase);
    let latin = letters.map(|c| match c {
        'м' | 'ⅿ' | 'ｍ' | 'ᴍ' => 'm',
        'а' | 'α' | 'ａ' | 'ɑ' | 'á' | 'à' | 'ạ' | 'ȧ' => 'a',
        'к' | 'κ' | 'ｋ' | 'ᴋ' | 'ķ' => 'k',
        'е' | 'ｅ' | '℮' | 'ҽ' | 'ё' | 'ė' | 'ẹ' | 'é' | 'è' => 'e',
        'ɡ' | 'ց' | 'ｇ' | 'ƍ' | 'ġ' | 'ģ' => 'g',
        'о' | 'ο' | 'ｏ' | 'օ' | '0' | '०' | 'ס' | 'ѳ' | 'ö' | 'ó' | 'ọ' | 'ȯ' => 'o',
        'ԁ' | 'ⅾ' | 'ｄ' | 'ɗ' | 'ḍ' | 'ḋ' => 'd',
        other => other,
    });
    latin.eq("makegood".chars())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_an_instant_or_a_span_before_now() {
        let now = Timestamp::parse("2026-01-31T06:00:00Z").unwrap();
        let since = |text: &str| text.parse::<SinceArg>().map(|s| s.at(now).to_string());
        assert_eq!(since("36h").unwrap(), "2026-01-29T18:00:00.000000Z");
        assert_eq!(since("2026-01-30T06:00:00+02:00").unwrap(), "2026-01-30T04:00:00.000000Z");
        for text in ["", "yesterday", "2026-01-30", "-1h", "36"] {
            assert!(since(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_name_or_reason_must_be_visible_and_not_makegood() {
        assert_eq!(visible_text(" ada ").unwrap(), "ada");
        assert!(visible_text("  ").is_err());
        assert_eq!(person_name(" ada ").unwrap(), "ada");
        assert!(person_name(" ").is_err() && person_name("Makegood").is_err());
        for name in [
            "m\u{200b}akegood",
            "make\u{ad}good",
            "mаkegood",
            "МАКЕGOOD",
            "makeg00d",
            "make-good",
            "ｍakegood",
            "make\ngood",
        ] {
            assert!(person_name(name).is_err(), "{name:?}");
        }
        for name in ["Мария", "makegood-oncall", "Ada O'Neil", "李"] {
            assert_eq!(person_name(name).as_deref(), Ok(name));
        }
        assert!(visible_text("because\u{202e}").is_err());
        assert!(positive_span("0s").is_err());
        assert_eq!(positive_span("5m"), Ok(Duration::from_mins(5)));
    }
}
