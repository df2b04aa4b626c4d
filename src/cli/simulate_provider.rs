//! `makegood simulate-provider`: a simulated provider over real HTTP, to try makegood out.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::output::print;
use super::{CommandResult, Exit};
use crate::config::Settings;
use crate::demo::simulator::{Simulator, fates_help, job_id, write_provider_files};
use crate::ops::stop::Stop;

static FATES: LazyLock<String> = LazyLock::new(fates_help);

/// A simulated provider over real HTTP, to try makegood out.
///
/// Ignores the environment.
#[derive(Debug, clap::Args)]
#[command(after_help = FATES.as_str())]
pub struct SimulateProviderArgs {
    /// The address to listen on, as ADDRESS:PORT.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9465")]
    pub listen: SocketAddr,
    /// The directory for provider files that ask it. Files of the same names are replaced.
    #[arg(long, value_name = "DIR", default_value = "simulated-providers")]
    pub dir: PathBuf,
}

/// Runs until it is asked to stop.
///
/// # Errors
/// The address is taken, or the files cannot be written.
pub async fn run(args: SimulateProviderArgs, _settings: Settings) -> CommandResult {
    let stop = Stop::on_signals()?;
    let simulator = Simulator::start(args.listen)
        .await
        .map_err(|error| format!("could not listen on {}; is --listen taken? ({error})", args.listen))?;
    let url = simulator.base_url();
    write_provider_files(&args.dir, &url)
        .map_err(|error| format!("could not write provider files into {} ({error})", args.dir.display()))?;
    // Absolute, because the other terminal may be in another directory.
    let dir = args.dir.canonicalize().unwrap_or(args.dir);
    print(&how_to_use(&url, &dir))?;
    simulator.run_until(stop.wait()).await;
    Ok(Exit::Done)
}

fn how_to_use(url: &str, dir: &Path) -> String {
    let mut text = format!("The simulated provider answers on {url} until Ctrl-C.\n\n");
    let mut line = |line: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line}");
    };
    line(&format!("Provider files that ask it are in {}. Use them from another terminal:", dir.display()));
    line(&format!("  export MAKEGOOD__PROVIDERS__DIR='{}'", dir.display()));
    line("  export MAKEGOOD__RECOVERY__ALLOW_LOOPBACK=true");
    line("  makegood run --dry-run");
    line("");
    line("The id of a job decides how it ends (`makegood simulate-provider --help` lists all endings):");
    for (provider, fate, meaning) in [
        ("replicate", "ok", "done, one file"),
        ("fal", "two-of-three", "done, two files of three"),
        ("veo-gemini", "safety", "rejected for its content"),
    ] {
        line(&format!("  {provider:<11} {:<48} {meaning}", job_id(provider, fate, "x17")));
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_jobs_have_the_listed_endings() {
        let text = how_to_use("http://127.0.0.1:9465", Path::new("here"));
        for job in ["ok-x17", "two-of-three-x17", "models/veo-simulated/operations/safety-x17"] {
            assert!(text.contains(job), "{text}");
        }
        assert!(text.contains("MAKEGOOD__PROVIDERS__DIR='here'"), "{text}");
    }
}
