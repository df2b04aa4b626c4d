//! When, one at a time.
