//! The rules of the house: what holds for the texts of the project, whatever they do.
//!
//! These tests read files and run nothing of makegood, so that they are built and over in seconds:
//! `cargo test --test house`.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the project's files panics")]

mod columns;
mod files;
mod links;
mod promises;
mod rust_version;
