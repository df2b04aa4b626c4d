//! The promises, one by one, through the whole pipeline on both databases: the platform writes
//! rows, makegood runs its passes, and the test reads the result in plain SQL. The name of a test
//! begins with the numbers that it proves.

mod charged_no_output;
mod given_back;
mod in_time;
mod mix_ups;
mod not_given_back;
mod what_people_see;
