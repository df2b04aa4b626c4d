//! Telemetry, metrics, status.
