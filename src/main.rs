//! The command line.

use clap::Parser;

/// Every charge ends in an output or a refund, exactly once, within 24 hours.
#[derive(Debug, Parser)]
#[command(name = "makegood", version)]
struct CommandLine {}

fn main() {
    CommandLine::parse();
}
