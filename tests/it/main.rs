//! makegood from the outside: the library and the built binary against a real PostgreSQL, real SQLite
//! files and real HTTP on loopback. One binary, because every further one is linked again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod adopting;
mod bad_input;
mod binary;
mod brakes;
mod by_hand;
mod cannot_post;
mod clocks;
mod commands;
mod conformance;
mod connecting;
mod database;
mod debits;
mod demo;
mod deploy;
mod doctor;
mod dry_run;
mod endless;
mod faults;
mod first_night;
mod floods;
mod fuzz;
mod heavy;
mod hostile;
mod kills;
mod late;
mod leases;
mod leftovers;
mod limits;
mod locked;
mod manners;
mod mended;
mod migrate;
mod plans;
mod pooler;
mod postgres;
mod posting;
mod promises;
mod protocol;
mod raised;
mod read_back;
mod real_input;
mod recoveries;
mod refused;
mod relations;
mod reversals;
mod s3;
mod shares;
mod simulation;
mod tls;
mod two_authorities;
mod unreadable;
mod world;
