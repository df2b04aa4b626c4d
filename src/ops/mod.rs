//! Operations: logs, metrics, status pages, the daemon and its shutdown.

pub mod daemon;
pub mod http;
pub mod metrics;
pub mod status;
pub mod stop;
pub mod telemetry;
pub mod totals;
