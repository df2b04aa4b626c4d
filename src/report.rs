//! What this pass did.
