//! Parses durations in provider files: `250ms`, `20s`, `10m`, `1h`, `2d`, `1h 30m`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::duration;

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
        duration::parse(text)
            .map(DurationText)
            .map_err(|_| E::custom(format!("`{text}` is not a duration, for instance `20s`, `10m` or `1h`")))
    }
}
