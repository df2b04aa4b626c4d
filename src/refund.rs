//! Give the credits back.
