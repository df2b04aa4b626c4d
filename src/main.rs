//! The `makegood` command. It only calls the library; see `makegood::cli`.
//!
//! makegood starts itself again as a worker process that runs jq filters. A worker reads no
//! settings and no arguments and needs no async runtime.

use std::process::ExitCode;

fn main() -> ExitCode {
    if makegood::provider::is_worker() { makegood::provider::worker() } else { command() }
}

#[tokio::main]
async fn command() -> ExitCode {
    makegood::cli::main().await
}
