//! Settings as written, checked.
