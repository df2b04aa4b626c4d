//! The example platform.
pub mod simulator;
