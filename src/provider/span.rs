//! Durations in a provider file: `250ms`, `20s`, `10m`, `1h`, `2d`, also `1h 30m`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::duration;

/// A span of time in a provider file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span(pub(super) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Reader)
    }
}

/// Reads text, and says of anything else what is wanted.
struct Reader;

impl de::Visitor<'_> for Reader {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a span of time, for instance `20s`, `10m` or `1h`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
        duration::parse(text).map(Span).map_err(|_| {
            E::custom(format!("`{text}` is not a span of time, for instance `20s`, `10m` or `1h`"))
        })
    }
}
