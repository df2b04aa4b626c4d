//! makegood: every charge ends in an output or a refund, exactly once, within 24 hours.
//!
//! A platform sells generations for credits and buys the compute from providers. Credits are taken when a run starts;
//! sometimes no output ever arrives. makegood finds these charges, asks the provider what became of the job, and brings
//! the output home or gives the credits back.
//!
//! # The way of a charge
//!
//! Follow one through the rooms, in this order:
//!
//! 1. [`charge`]: what was paid. A charge has items, one for each expected output, billed alone. The platform's rows.
//! 2. [`detect`]: which items have no output after their grace. Each becomes an *orphan*.
//! 3. [`pass`] claims due orphans, a lane for every provider, and hands each provider job to a task.
//! 4. [`provider`]: one question a job. Whatever comes back becomes [`evidence`]; "could not tell" is evidence too.
//! 5. [`facts`]: what else is known, put together. [`policy`]: what is owed, a pure function and its table.
//! 6. [`recovery`]: the file comes home, without a transaction open. Or [`refund`]: which balance gets how much,
//!    if the [`brake`] lets it through.
//! 7. [`store`] settles a batch in one transaction, after proving that everything is still as it was decided upon.
//! 8. [`report`]: what this pass did. [`ops`] shows it to people and to Prometheus; [`schedule`] runs the next pass.
//!
//! # What must not be found where
//!
//! [`policy`], [`facts`], [`refund`] and [`brake`] know no I/O and no clock. Only [`store`] knows sqlx (the example
//! platform of the [`demo`] plays the platform, not makegood). Only settle moves money. Only [`provider`] knows wire
//! formats. [`egress`] says where requests may go; [`provider`] and [`recovery`] send them by
//! [`http`] alone. Only [`pass`] knows all the stages. Only [`clock`] reads the system's time.
//!
//! # What holds when things break
//!
//! A crash anywhere is repaired by the next pass doing what it always does: leases run out, nothing half done is ever
//! committed. Exactly once rests on unique keys and one transaction, not on the schedule.

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
