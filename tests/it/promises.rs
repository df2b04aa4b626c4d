//! The promises, one by one, through the whole pipeline on both databases: the platform writes
//! rows, makegood runs its passes, and what came of it is read back in plain SQL. A test's name
//! carries the numbers that it proves.

mod charged_no_output;
mod given_back;
mod in_time;
mod mix_ups;
mod not_given_back;
mod what_people_see;
