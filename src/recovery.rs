//! Bring the output home.
