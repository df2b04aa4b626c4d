//! Values that commands take as arguments.

use std::str::FromStr;
use std::time::Duration;

use super::words::is_invisible;
use crate::clock::Timestamp;
use crate::config::parse_span;
use crate::duration::format_exact;

/// From when on: an instant, or a time span before now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// From this instant on.
    At(Timestamp),
    /// From this long ago on.
    Ago(Duration),
}

impl Since {
    /// The instant that is meant.
    pub fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(span) => now - span,
        }
    }
}

/// A `--since` that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("an instant as RFC 3339 (2026-01-31T06:00:00Z) or a time span before now (90m, 36h, 7d) is wanted")]
pub struct BadSince;

impl FromStr for Since {
    type Err = BadSince;

    fn from_str(text: &str) -> Result<Self, BadSince> {
        if let Ok(span) = parse_span(text) {
            return Ok(Self::Ago(span));
        }
        Timestamp::parse(text).map(Self::At).map_err(|_| BadSince)
    }
}

impl std::fmt::Display for Since {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::At(at) => write!(f, "{at}"),
            Self::Ago(span) => f.write_str(&format_exact(*span)),
        }
    }
}

/// A time span above zero, as settings spell it.
///
/// # Errors
/// What would be right.
pub fn positive_span(text: &str) -> Result<Duration, String> {
    let span = parse_span(text)?;
    if span.is_zero() { Err("a time span above zero is wanted".to_owned()) } else { Ok(span) }
}

/// A name or a reason that is stored with what was done.
///
/// # Errors
/// It is empty, or holds characters that cannot be seen: they could make it look like another.
pub fn said(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("it is kept with what was done, and must not be empty".to_owned());
    }
    match text.chars().find(|&c| c.is_control() || is_invisible(c)) {
        Some(c) => {
            Err(format!("it holds the character {}, which cannot be seen; leave it out", c.escape_unicode()))
        }
        None => Ok(text.to_owned()),
    }
}

/// A person's name, which is stored with what was done. The program's name stands for what was done
/// without a person.
///
/// # Errors
/// As [`said`]; or it is the program's name, or looks like it.
pub fn who(text: &str) -> Result<String, String> {
    let name = said(text)?;
    if looks_like_makegood(&name) {
        Err("`makegood` stands for what was done without a person; a person's name is wanted".to_owned())
    } else {
        Ok(name)
    }
}

/// Whether a name reads as `makegood`: whatever its case, with signs between the letters, or with
/// letters that look the same (of Unicode's list of confusable characters, those of these letters).
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
        let since = |text: &str| text.parse::<Since>().map(|s| s.at(now).to_string());
        assert_eq!(since("36h").unwrap(), "2026-01-29T18:00:00.000000Z");
        assert_eq!(since("2026-01-30T06:00:00+02:00").unwrap(), "2026-01-30T04:00:00.000000Z");
        for text in ["", "yesterday", "2026-01-30", "-1h", "36"] {
            assert!(since(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_name_or_reason_must_say_something() {
        assert_eq!(said(" ada ").unwrap(), "ada");
        assert!(said("  ").is_err());
        assert_eq!(who(" ada ").unwrap(), "ada");
        assert!(who(" ").is_err() && who("Makegood").is_err());
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
            assert!(who(name).is_err(), "{name:?}");
        }
        for name in ["Мария", "makegood-oncall", "Ada O'Neil", "李"] {
            assert_eq!(who(name).as_deref(), Ok(name));
        }
        assert!(said("because\u{202e}").is_err());
        assert!(positive_span("0s").is_err());
        assert_eq!(positive_span("5m"), Ok(Duration::from_mins(5)));
    }
}
