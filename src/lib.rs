//! makegood: every charge ends in an output or a refund, exactly once, within 24 hours.

pub mod brake;
pub mod charge;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod detect;
pub mod evidence;
pub mod facts;
pub mod ops;
pub mod pass;
pub mod policy;
pub mod provider;
pub mod recovery;
pub mod refund;
pub mod report;
pub mod schedule;
pub mod store;
