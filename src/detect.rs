//! What has no output.
