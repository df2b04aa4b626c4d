//! The example platform.
