//! The only room that knows sqlx.
