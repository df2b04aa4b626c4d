//! `makegood simulate-provider`: a provider to try out against, over real HTTP.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::output::print;
use super::{Exit, Outcome};
use crate::config::Settings;
use crate::demo::simulator::{Simulator, fates_help, job_id, write_provider_files};
use crate::ops::stop::Stop;

static FATES: LazyLock<String> = LazyLock::new(fates_help);

/// A simulated provider over real HTTP, for trying out.
///
/// Takes nothing from the environment.
#[derive(Debug, clap::Args)]
#[command(after_help = FATES.as_str())]
pub struct Args {
    /// Where it answers, as ADDRESS:PORT.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9465")]
    pub listen: SocketAddr,
    /// Where provider files that ask it are written; files of the same names are replaced.
    #[arg(long, value_name = "DIR", default_value = "simulated-providers")]
    pub dir: PathBuf,
}

/// Runs until somebody asks to stop.
///
/// # Errors
/// The address is taken, or the files cannot be written.
pub async fn run(args: Args, _settings: Settings) -> Outcome {
    let stop = Stop::on_signals()?;
    let simulator = Simulator::start(args.listen)
        .await
        .map_err(|error| format!("could not listen on {}; is --listen taken? ({error})", args.listen))?;
    let url = simulator.base_url();
    write_provider_files(&args.dir, &url)
        .map_err(|error| format!("could not write provider files into {} ({error})", args.dir.display()))?;
    // For another terminal, which may stand elsewhere.
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
    line("What becomes of a job is spelled in its id (`makegood simulate-provider --help` lists all fates):");
    for (provider, fate, meaning) in [
        ("replicate", "ok", "done, one file"),
        ("fal", "two-of-three", "done, two files of three"),
        ("veo-gemini", "safety", "refused for its content"),
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
    fn the_jobs_that_are_shown_have_the_fates_that_are_said() {
        let text = how_to_use("http://127.0.0.1:9465", Path::new("here"));
        for job in ["ok-x17", "two-of-three-x17", "models/veo-simulated/operations/safety-x17"] {
            assert!(text.contains(job), "{text}");
        }
        assert!(text.contains("MAKEGOOD__PROVIDERS__DIR='here'"), "{text}");
    }
}
