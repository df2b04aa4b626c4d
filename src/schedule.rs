//! When, one at a time.

mod timetable;

pub use timetable::{Timetable, TimetableError};
