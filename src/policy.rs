//! What is owed.
