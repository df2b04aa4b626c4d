//! What may be fetched from a provider: how large, how long, of which kind; for all its models or for some.
//!
//! `recovery` does the fetching and judges the files. Here it is only read from the provider's file: `[recovery]` for all
//! models, `[recovery.models."pattern"]` for those that the pattern means, where `*` stands for anything. A model's
//! exact name comes before patterns, a longer pattern before a shorter one; what the one says not, `[recovery]` says.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::Providers;
use super::file::{Flaw, Provider, flaw};
use super::span::Span;
use crate::config::parse_size;
use crate::recovery::Medium;

/// What may be fetched for one model; what is not said is as the settings say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetching {
    /// What it makes; empty: anything.
    pub kinds: Vec<Medium>,
    /// The largest file.
    pub max_bytes: Option<u64>,
    /// For one file.
    pub time_budget: Option<Duration>,
}

/// The same by model.
#[derive(Debug, Default)]
pub(super) struct Fetchings {
    all: Fetching,
    models: BTreeMap<String, Fetching>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenFetchings {
    makes: Option<Vec<Medium>>,
    max_bytes: Option<String>,
    time_budget: Option<Span>,
    #[serde(default)]
    models: BTreeMap<String, WrittenFetching>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFetching {
    makes: Option<Vec<Medium>>,
    max_bytes: Option<String>,
    time_budget: Option<Span>,
}

impl WrittenFetchings {
    pub(super) fn check(self) -> Result<Fetchings, Flaw> {
        let Self { makes, max_bytes, time_budget, models } = self;
        let all =
            WrittenFetching { makes, max_bytes, time_budget }.check("recovery", &Fetching::default())?;
        let models = models.into_iter().map(|(pattern, written)| {
            let read = written.check(&format!("recovery.models.{pattern:?}"), &all)?;
            Ok((pattern, read))
        });
        let models = models.collect::<Result<_, Flaw>>()?;
        Ok(Fetchings { all, models })
    }
}

impl WrittenFetching {
    fn check(self, section: &str, all: &Fetching) -> Result<Fetching, Flaw> {
        let key = |key: &str| format!("{section}.{key}");
        let max_bytes = match self.max_bytes.as_deref().map(parse_size) {
            None => all.max_bytes,
            Some(Ok(bytes)) if bytes > 0 => Some(bytes),
            Some(_) => {
                return flaw(
                    key("max_bytes"),
                    "a whole number above zero and one of B, KiB, MiB, GiB, TiB, for instance `512MiB`",
                );
            }
        };
        let time_budget = match self.time_budget {
            None => all.time_budget,
            Some(Span(span)) if span >= Duration::from_secs(1) => Some(span),
            Some(_) => return flaw(key("time_budget"), "a second or more, for instance `5m`"),
        };
        if self.makes.as_ref().is_some_and(Vec::is_empty) {
            return flaw(key("makes"), "left out, or one or more of `image`, `video`, `audio`, `3d`, `text`");
        }
        Ok(Fetching { kinds: self.makes.unwrap_or_else(|| all.kinds.clone()), max_bytes, time_budget })
    }
}

impl Provider {
    /// What may be fetched for `model`.
    pub fn fetching(&self, model: &str) -> Fetching {
        let Fetchings { all, models } = &self.fetchings;
        let by_pattern = || {
            let fitting = models.iter().filter(|(pattern, _)| matches(pattern, model));
            fitting.max_by_key(|(pattern, _)| pattern.len()).map(|(_, fetching)| fetching)
        };
        models.get(model).or_else(by_pattern).unwrap_or(all).clone()
    }
}

impl Providers {
    /// A provider whose files may take as long as a claim lasts, or longer, and how long that is.
    pub fn too_patient(&self, lease: Duration) -> Option<(&str, Duration)> {
        self.iter().find_map(|provider| {
            let Fetchings { all, models } = &provider.fetchings;
            let budgets = models.values().chain([all]).filter_map(|fetching| fetching.time_budget);
            budgets.max().filter(|budget| *budget >= lease).map(|budget| (provider.name.as_str(), budget))
        })
    }
}

/// Whether `text` is what `pattern` means: `*` stands for anything, also for nothing.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    // After a star there is a last piece, perhaps an empty one.
    let end = pieces.pop().unwrap_or_default();
    for piece in pieces {
        // The first place is as good as any: what follows has the most left.
        let Some(at) = text.find(piece) else { return false };
        text = &text[at + piece.len()..];
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, fits) in [
            ("veo-3", "veo-3", true),
            ("veo-3", "veo-3.1", false),
            ("veo-*", "veo-", true),
            ("veo-*", "veo-3/fast", true),
            ("*", "", true),
            ("*/video*", "acme/video-long", true),
            ("*/video*", "acme/image", false),
            ("a*b*c", "abbcc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*é*", "café au lait", true),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    const START: &str = "[provider]\nname = \"acme\"\noutput_hosts = []\n[ask]\nrequest = \"GET https://a.example/{job}\"\nread = '{verdict: \"running\"}'\n";

    fn read(text: &str) -> Result<Provider, Flaw> {
        super::super::file::read(&format!("{START}{text}"))
    }

    #[test]
    fn the_closest_word_about_a_model_counts() {
        let text = "[recovery]\nmakes = [\"image\"]\nmax_bytes = \"1GiB\"\n[recovery.models.\"*/video*\"]\nmakes = [\"video\", \"audio\"]\n\
                    [recovery.models.\"acme/video*\"]\ntime_budget = \"5m\"\n[recovery.models.\"acme/video\"]\nmax_bytes = \"2MiB\"\n";
        let provider = read(text).unwrap();
        let gib = Some(1 << 30);
        let budget = Some(Duration::from_mins(5));
        for (model, kinds, max_bytes, time_budget) in [
            ("other", vec![Medium::Image], gib, None),
            ("x/video", vec![Medium::Video, Medium::Audio], gib, None),
            ("acme/video-long", vec![Medium::Image], gib, budget),
            ("acme/video", vec![Medium::Image], Some(2 << 20), None),
        ] {
            assert_eq!(provider.fetching(model), Fetching { kinds, max_bytes, time_budget }, "{model}");
        }
        assert_eq!(read("").unwrap().fetching("anything"), Fetching::default());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_key() {
        for (text, key) in [
            ("[recovery]\nmakes = []", "recovery.makes"),
            ("[recovery]\nmakes = [\"film\"]", "recovery.makes[0]"),
            ("[recovery]\nmax_bytes = 5", "recovery.max_bytes"),
            ("[recovery]\nmax_bytes = \"5GB\"", "recovery.max_bytes"),
            ("[recovery]\nmax_bytes = \"0B\"", "recovery.max_bytes"),
            ("[recovery]\ntime_budget = \"0s\"", "recovery.time_budget"),
            ("[recovery]\ncolour = 1", "recovery.colour"),
            ("[recovery.models.\"a*\"]\nmax_bytes = \"no\"", "recovery.models.\"a*\".max_bytes"),
        ] {
            assert_eq!(read(text).unwrap_err().key, key, "{text}");
        }
    }
}
