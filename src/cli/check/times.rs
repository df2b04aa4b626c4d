//! Checks whether the platform's times are plausible: in the right unit, finite, and of this
//! century.
//!
//! No pass scans the time of an implausible charge, so it would never be made good, without any
//! error. Times that are only shown to people are warnings.

use super::Findings;
use crate::report::chain;
use crate::store::{DbError, Store};

const ABOUT: &str = "times";

pub(super) async fn check(store: &Store, found: &mut Findings) {
    let odd = match store.odd_times().await {
        Ok(odd) => odd,
        Err(error) => {
            let error = store.name_unreadable_time(error, u32::MAX).await;
            let advice = "no pass finds any charge: correct the row, or the view that computes its time";
            found.fail(ABOUT, unread(&error), advice);
            return;
        }
    };
    let shown = match store.odd_times_shown().await {
        Ok(shown) => shown,
        Err(error) => {
            let advice = "compare the time columns with migrations/reference";
            found.warn(ABOUT, unread(&error), advice);
            return;
        }
    };
    if odd.is_empty() && shown.is_empty() {
        found.ok(ABOUT, "none is before 2000, in 2100 or later, infinite or missing");
    }
    for each in odd {
        let advice = "no pass finds rows with such a time: correct the column, or the view that computes it";
        found.fail(ABOUT, each.told(), advice);
    }
    for each in shown {
        found.warn(
            ABOUT,
            each.told(),
            "it is shown to people: correct the column, or the view that computes it",
        );
    }
}

fn unread(error: &DbError) -> String {
    format!("the platform's times could not be read: {}", chain(error))
}
