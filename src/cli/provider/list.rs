//! Lists all providers: their limits, whether their API is closed, where each key is read from
//! (never the key), and the state after the last pass. The state needs the database; without it the
//! rest is still shown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cli::Failure;
use crate::cli::output::{OutputFormat, print};
use crate::cli::parts::{load_providers, open_tables, read_failed};
use crate::cli::words::{cut, plain, when};
use crate::clock::{Clock, Timestamp};
use crate::config::Settings;
use crate::duration::format_rounded;
use crate::egress::Hosts;
use crate::provider::Provider;
use crate::store::{DbError, ProviderState};

/// The stored states of the providers by name, or why they are unknown.
type States = Result<(Timestamp, BTreeMap<String, ProviderState>), String>;

pub(super) async fn run(format: OutputFormat, settings: &Settings) -> Result<(), Failure> {
    let providers = load_providers(settings).map_err(Failure::usage)?;
    let dir = settings.providers.dir.as_ref().map(|dir| dir.display().to_string());
    let states = states(settings).await;
    print(&match format {
        OutputFormat::Text => {
            let mut page = match &dir {
                Some(dir) => {
                    format!("The shipped provider files, and those in {dir}, which take precedence.\n")
                }
                None => "The shipped provider files; providers.dir is not set.\n".to_owned(),
            };
            if let Err(why) = &states {
                let _ = writeln!(page, "Their last answers are unknown: {why}.");
            }
            for provider in providers.iter() {
                text(&mut page, provider, &states);
            }
            page.trim_end().to_owned()
        }
        OutputFormat::Json => json!({
            "dir": dir,
            "states_unknown": states.as_ref().err(),
            "providers": providers.iter().map(|provider| as_json(provider, &states)).collect::<Vec<_>>(),
        })
        .to_string(),
    })?;
    Ok(())
}

async fn states(settings: &Settings) -> States {
    // The list must not create a database file.
    if let Some(file) = settings.database.url.file()
        && !file.exists()
    {
        return Err(format!("there is no database {} yet", file.display()));
    }
    let store = open_tables(settings).await.map_err(|failure| failure.to_string())?;
    let read = async {
        let states = store.provider_states(None).await?;
        let now = store.now().await?;
        store.close().await;
        Ok::<_, DbError>((now, states))
    };
    let (now, states) = read.await.map_err(|error| read_failed(&error).to_string())?;
    Ok((now, states.into_iter().map(|state| (state.provider.clone(), state)).collect()))
}

/// Where a provider's key is read from; none if it needs none.
pub(in crate::cli) fn key_source(provider: &Provider) -> Option<String> {
    provider.secret_source().map(|source| format!("the {source}"))
}

fn text(page: &mut String, provider: &Provider, states: &States) {
    let limits = &provider.limits;
    let known = |what: Option<std::time::Duration>, without: &str| {
        what.map_or_else(|| without.to_owned(), format_rounded)
    };
    // Writing to a string does not fail.
    let _ = writeln!(page, "\n{}", plain(&provider.name));
    if let Some(closed) = &provider.closed {
        let _ = writeln!(page, "  {:<10} {}", "API", plain(&closed.describe(Clock::System.now())));
    }
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
    let state = states.as_ref().ok().map(|(now, states)| (*now, states.get(&provider.name)));
    let stands = match state {
        None => String::new(),
        Some((_, None)) => "never asked; ".to_owned(),
        Some((now, Some(state))) => format!("{}; ", circuit(state, now)),
    };
    line(
        "circuit",
        format!(
            "{stands}opens after {} without an answer, for {}",
            limits.circuit_opens_after,
            format_rounded(limits.circuit_pause)
        ),
    );
    if let Some((now, Some(state))) = state {
        line("last", last(state, now));
    }
    line("retention", known(provider.retention, "not known"));
    let models = provider.models.iter();
    let models = models.fold(String::new(), |text, (name, model)| {
        format!("{text}; {} for {}", format_rounded(model.grace), plain(name))
    });
    line("grace", format!("{}{models}", known(provider.grace, "detect.grace")));
    let shown = |hosts: &Hosts| {
        if hosts.is_empty() { "none".to_owned() } else { hosts.written().join(", ") }
    };
    line("files from", shown(&provider.output_hosts));
    line("key of files", shown(&provider.key_hosts));
    line(
        "key",
        match (key_source(provider), provider.secret_present()) {
            (None, _) => "none needed".to_owned(),
            (Some(place), Ok(())) => format!("present, from {place}"),
            (Some(_), Err(error)) => format!("MISSING: {}", crate::report::chain(&error)),
        },
    );
}

/// The state of the circuit breaker.
fn circuit(state: &ProviderState, now: Timestamp) -> String {
    match state.circuit_open_until {
        None => "closed".to_owned(),
        Some(until) if until > now => format!("OPEN until {}", when(until, now)),
        Some(_) => "OPEN until one question has tested it".to_owned(),
    }
}

/// The last answer, or why there was none.
fn last(state: &ProviderState, now: Timestamp) -> String {
    let message =
        state.message.as_ref().map_or_else(String::new, |message| format!(": {}", cut(message, 200)));
    format!("{}{message}, {}", plain(&state.verdict), when(state.asked_at, now))
}

fn as_json(provider: &Provider, states: &States) -> Value {
    let state = states.as_ref().ok().and_then(|(_, states)| states.get(&provider.name));
    let limits = &provider.limits;
    let models = provider.models.iter().map(|(name, model)| (name.clone(), model.grace.as_secs().into()));
    json!({
        "name": provider.name,
        "closed": provider.closed.as_ref().map(|closed| json!({
            "on": closed.on.to_string(),
            "why": closed.why,
            "has_happened": closed.has_happened(Clock::System.now()),
        })),
        "retention_seconds": provider.retention.map(|span| span.as_secs()),
        "grace_seconds": provider.grace.map(|span| span.as_secs()),
        "model_grace_seconds": models.collect::<serde_json::Map<String, Value>>(),
        "max_concurrency": limits.max_concurrency,
        "requests_per_second": limits.requests_per_second,
        "retries": limits.retries,
        "circuit_opens_after": limits.circuit_opens_after,
        "circuit_pause_seconds": limits.circuit_pause.as_secs(),
        "circuit_open_until": state.and_then(|state| state.circuit_open_until),
        "last_asked_at": state.map(|state| state.asked_at),
        "last_verdict": state.map(|state| &state.verdict),
        "last_message": state.and_then(|state| state.message.as_ref()),
        "output_hosts": provider.output_hosts.written(),
        "key_hosts": provider.key_hosts.written(),
        "key_looked_for": key_source(provider),
        "key_present": key_source(provider).is_none() || provider.secret_present().is_ok(),
    })
}
