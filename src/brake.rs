//! When to stop.
