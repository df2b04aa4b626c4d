//! The `makegood` command. Everything it does is in the library; see `makegood::cli`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    makegood::cli::main().await
}
