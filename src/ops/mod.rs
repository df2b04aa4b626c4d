//! Telemetry, metrics, status.
pub mod http;
