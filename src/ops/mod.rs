//! What operators see: logs, metrics, status pages; and how they stop what runs.

pub mod daemon;
pub mod http;
pub mod metrics;
pub mod status;
pub mod stop;
pub mod telemetry;
pub mod totals;
