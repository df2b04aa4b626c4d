//! All providers with their limits, and where each key is looked for. Never a key.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cli::Failure;
use crate::cli::output::{OutputFormat, print};
use crate::cli::parts::load_providers;
use crate::cli::words::{plain, span};
use crate::config::Settings;
use crate::provider::Provider;

pub(super) fn run(format: OutputFormat, settings: &Settings) -> Result<(), Failure> {
    let providers = load_providers(settings).map_err(Failure::usage)?;
    let dir = settings.providers.dir.as_ref().map(|dir| dir.display().to_string());
    print(&match format {
        OutputFormat::Text => {
            let mut page = match &dir {
                Some(dir) => format!("Shipped provider files, and over them those in {dir}.\n"),
                None => "Shipped provider files; providers.dir names no others.\n".to_owned(),
            };
            for provider in providers.iter() {
                text(&mut page, provider);
            }
            page.trim_end().to_owned()
        }
        OutputFormat::Json => {
            json!({"dir": dir, "providers": providers.iter().map(as_json).collect::<Vec<_>>()}).to_string()
        }
    })?;
    Ok(())
}

/// Where a provider's key is looked for; none where it needs none.
pub(in crate::cli) fn looked_for(provider: &Provider) -> Option<String> {
    provider.secret_source().map(|source| format!("the {source}"))
}

fn text(page: &mut String, provider: &Provider) {
    let limits = &provider.limits;
    let known =
        |what: Option<std::time::Duration>, without: &str| what.map_or_else(|| without.to_owned(), span);
    // Writing to a string does not fail.
    let _ = writeln!(page, "\n{}", plain(&provider.name));
    let mut line = |name: &str, value: String| {
        let _ = writeln!(page, "  {name:<10} {value}");
    };
    let rate = limits
        .requests_per_second
        .map_or_else(|| "at any rate".to_owned(), |rate| format!("{rate} a second"));
    line(
        "limits",
        format!("{} requests at once, {rate}, {} retries", limits.max_concurrency, limits.retries),
    );
    line(
        "circuit",
        format!(
            "opens after {} without an answer, for {}",
            limits.circuit_opens_after,
            span(limits.circuit_pause)
        ),
    );
    line("retention", known(provider.retention, "not known"));
    let models = provider.models.iter();
    let models = models.fold(String::new(), |text, (name, model)| {
        format!("{text}; {} for {}", span(model.grace), plain(name))
    });
    line("grace", format!("{}{models}", known(provider.grace, "detect.grace")));
    let hosts =
        if provider.output_hosts.is_empty() { "none".to_owned() } else { provider.output_hosts.join(", ") };
    line("files from", hosts);
    line(
        "key",
        match (looked_for(provider), provider.secret_present()) {
            (None, _) => "none needed".to_owned(),
            (Some(place), Ok(())) => format!("present, from {place}"),
            (Some(_), Err(error)) => format!("MISSING: {}", crate::report::chain(&error)),
        },
    );
}

fn as_json(provider: &Provider) -> Value {
    let limits = &provider.limits;
    let models = provider.models.iter().map(|(name, model)| (name.clone(), model.grace.as_secs().into()));
    json!({
        "name": provider.name,
        "retention_seconds": provider.retention.map(|span| span.as_secs()),
        "grace_seconds": provider.grace.map(|span| span.as_secs()),
        "model_grace_seconds": models.collect::<serde_json::Map<String, Value>>(),
        "max_concurrency": limits.max_concurrency,
        "requests_per_second": limits.requests_per_second,
        "retries": limits.retries,
        "circuit_opens_after": limits.circuit_opens_after,
        "circuit_pause_seconds": limits.circuit_pause.as_secs(),
        "output_hosts": provider.output_hosts,
        "key_looked_for": looked_for(provider),
        "key_present": looked_for(provider).is_none() || provider.secret_present().is_ok(),
    })
}
