//! The `makegood` command. Everything it does is in the library; see `makegood::cli`.
//!
//! makegood starts itself anew to run filters: such a process needs no runtime, no settings and no
//! arguments.

use std::process::ExitCode;

fn main() -> ExitCode {
    if makegood::provider::is_worker() { makegood::provider::worker() } else { command() }
}

#[tokio::main]
async fn command() -> ExitCode {
    makegood::cli::main().await
}
