//! What is known about one orphan: rows put together, nothing decided.
