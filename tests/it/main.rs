//! One binary for all tests that need more than the crate itself.

mod s3;
