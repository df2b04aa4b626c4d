//! makegood from the outside: the library and the built binary against a real PostgreSQL, real SQLite
//! files and real HTTP on loopback. One binary, because every further one is linked again.

mod binary;
mod commands;
mod database;
mod deploy;
mod doctor;
mod postgres;
mod s3;
