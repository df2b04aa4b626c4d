//! The rules for downloads in a provider file: media types, size and time limits.
//!
//! `[recovery]` holds the rules for all models, `[recovery.models."pattern"]` those for some, where
//! `*` is a wildcard. An exact name has precedence over patterns, and a longer pattern over a
//! shorter one. A key that is missing there is inherited from `[recovery]`. `recovery` downloads
//! the files and applies the rules.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::Providers;
use super::duration::DurationText;
use super::file::Provider;
use super::file_error::{FileError, invalid};
use crate::config::parse_size;
use crate::recovery::Medium;

/// The rules for the downloads of one model. `None`: the general setting applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchRules {
    /// The media types that the model makes; empty: any.
    pub kinds: Vec<Medium>,
    /// The largest file, in bytes.
    pub max_bytes: Option<u64>,
    /// The time limit for one file.
    pub time_budget: Option<Duration>,
}

/// The rules of one provider, by model or pattern.
#[derive(Debug, Default)]
pub(super) struct FetchRulesByModel {
    all: FetchRules,
    models: BTreeMap<String, FetchRules>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecoveryToml {
    makes: Option<Vec<Medium>>,
    max_bytes: Option<String>,
    time_budget: Option<DurationText>,
    #[serde(default)]
    models: BTreeMap<String, FetchRulesToml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FetchRulesToml {
    makes: Option<Vec<Medium>>,
    max_bytes: Option<String>,
    time_budget: Option<DurationText>,
}

impl RecoveryToml {
    pub(super) fn check(self) -> Result<FetchRulesByModel, FileError> {
        let Self { makes, max_bytes, time_budget, models } = self;
        let all =
            FetchRulesToml { makes, max_bytes, time_budget }.check("recovery", &FetchRules::default())?;
        let models = models.into_iter().map(|(pattern, written)| {
            let read = written.check(&format!("recovery.models.{pattern:?}"), &all)?;
            Ok((pattern, read))
        });
        let models = models.collect::<Result<_, FileError>>()?;
        Ok(FetchRulesByModel { all, models })
    }
}

impl FetchRulesToml {
    fn check(self, section: &str, all: &FetchRules) -> Result<FetchRules, FileError> {
        let key = |key: &str| format!("{section}.{key}");
        let max_bytes = match self.max_bytes.as_deref().map(parse_size) {
            None => all.max_bytes,
            Some(Ok(bytes)) if bytes > 0 => Some(bytes),
            Some(_) => {
                return invalid(
                    key("max_bytes"),
                    "a whole number above zero and one of B, KiB, MiB, GiB, TiB, for instance `512MiB`",
                );
            }
        };
        let time_budget = match self.time_budget {
            None => all.time_budget,
            Some(DurationText(span)) if span >= Duration::from_secs(1) => Some(span),
            Some(_) => return invalid(key("time_budget"), "1 second or more, for instance `5m`"),
        };
        if self.makes.as_ref().is_some_and(Vec::is_empty) {
            return invalid(
                key("makes"),
                "one or more of `image`, `video`, `audio`, `3d`, `text`, or removed",
            );
        }
        Ok(FetchRules { kinds: self.makes.unwrap_or_else(|| all.kinds.clone()), max_bytes, time_budget })
    }
}

impl Provider {
    /// Returns the rules for `model`.
    pub fn fetch_rules(&self, model: &str) -> FetchRules {
        let FetchRulesByModel { all, models } = &self.fetch_rules;
        let by_pattern = || {
            let fitting = models.iter().filter(|(pattern, _)| matches(pattern, model));
            fitting.max_by_key(|(pattern, _)| pattern.len()).map(|(_, fetching)| fetching)
        };
        models.get(model).or_else(by_pattern).unwrap_or(all).clone()
    }
}

impl Providers {
    /// Returns a provider whose `time_budget` is not shorter than the lease, and that budget. If a
    /// download outlived the lease of its claim, another worker could download the file as well.
    pub fn time_budget_beyond(&self, lease: Duration) -> Option<(&str, Duration)> {
        self.iter().find_map(|provider| {
            let FetchRulesByModel { all, models } = &provider.fetch_rules;
            let budgets = models.values().chain([all]).filter_map(|fetching| fetching.time_budget);
            budgets.max().filter(|budget| *budget >= lease).map(|budget| (provider.name.as_str(), budget))
        })
    }
}

/// Whether `text` matches `pattern`, where `*` matches any text, also an empty one.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    // The piece after the last `*` must match the end. It may be empty.
    let end = pieces.pop().unwrap_or_default();
    for piece in pieces {
        // The first occurrence leaves the most text for the following pieces.
        let Some(at) = text.find(piece) else { return false };
        text = &text[at + piece.len()..];
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_any_text() {
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

    fn read(text: &str) -> Result<Provider, FileError> {
        super::super::file::read(&format!("{START}{text}"))
    }

    #[test]
    fn the_most_specific_rules_for_a_model_apply() {
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
            assert_eq!(provider.fetch_rules(model), FetchRules { kinds, max_bytes, time_budget }, "{model}");
        }
        assert_eq!(read("").unwrap().fetch_rules("anything"), FetchRules::default());
    }

    #[test]
    fn invalid_rules_are_rejected_with_their_key() {
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
