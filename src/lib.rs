//! makegood: every charge ends in an output or a refund, exactly once, within 24 hours.
//!
//! A platform sells AI generations for credits and buys the compute from providers. It takes the
//! credits when a run starts, and sometimes no output ever arrives. makegood is a reconciliation
//! job: it finds these charges, asks the provider about the job, and recovers the output or refunds
//! the credits.
//!
//! # The path of a charge
//!
//! The modules, in the order in which a charge passes through them:
//!
//! 1. [`charge`]: the platform's rows. A charge has items, one for each expected output. Each item
//!    is billed and refunded alone.
//! 2. [`detect`] finds the items without a stored output after their grace. Each becomes an
//!    *orphan*.
//! 3. [`pass`] claims due orphans under a lease, one queue per provider, and starts one task per
//!    provider job.
//! 4. [`provider`] asks one question per job over HTTP. The answer becomes [`evidence`]; "could not
//!    tell" is evidence too.
//! 5. [`facts`] joins the evidence with what the database holds. [`policy`] decides what is owed: a
//!    pure function, documented as a table.
//! 6. [`recovery`] copies the file into the platform's storage; no transaction is open meanwhile.
//!    Or [`refund`] splits the credits over the balances that paid. The [`brake`] can hold refunds.
//! 7. [`store`] settles a batch in one transaction. It first proves that the rows are still as they
//!    were when the decision was taken; otherwise the decision is taken again.
//! 8. [`report`] sums up the pass. [`ops`] shows it to people and to Prometheus; [`schedule`]
//!    starts the next pass.
//!
//! # Boundaries between modules
//!
//! - [`policy`], [`facts`], [`refund`] and [`brake`] do no I/O and read no clock.
//! - Only [`store`] uses sqlx. (The [`demo`] has an example platform with a database of its own.)
//! - Only settle, in [`store`], moves money.
//! - Only [`provider`] knows wire formats.
//! - [`egress`] decides where requests may go. [`provider`] and [`recovery`] send them, through
//!   [`http`] alone.
//! - Only [`pass`] knows all the stages.
//! - Only [`clock`] reads the system's time.
//!
//! # Crashes and concurrent passes
//!
//! A pass may be killed, started twice or run by hand at any moment. Its leases expire, nothing
//! half done is ever committed, and the next pass continues. Exactly once rests on unique keys and
//! one transaction, not on the schedule.

pub mod brake;
pub mod charge;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod detect;
pub mod duration;
pub mod egress;
pub mod evidence;
pub mod facts;
pub mod http;
pub mod ops;
pub mod pass;
pub mod policy;
pub mod provider;
pub mod recovery;
pub mod refund;
pub mod report;
pub mod schedule;
pub mod store;
