//! Whether the platform's times are times: in the right unit, finite, and of this century.
//!
//! A charge whose time cannot be meant is in no stretch that a pass looks at: nothing would ever be
//! due, and nothing would say so. Other times are only shown to people, so they are warnings.

use super::Findings;
use crate::report::chain;
use crate::store::{DbError, Store};

const ABOUT: &str = "times";

pub(super) async fn check(store: &Store, found: &mut Findings) {
    let odd = match store.odd_times().await {
        Ok(odd) => odd,
        Err(error) => {
            let error = store.name_unreadable_time(error, u32::MAX).await;
            let advice = "no pass finds any charge: mend the row, or the view that computes its time";
            found.fail(ABOUT, unread(&error), advice);
            return;
        }
    };
    let shown = match store.odd_times_shown().await {
        Ok(shown) => shown,
        Err(error) => {
            let advice = "see whether the time columns are what migrations/reference shows";
            found.warn(ABOUT, unread(&error), advice);
            return;
        }
    };
    if odd.is_empty() && shown.is_empty() {
        found.ok(ABOUT, "none is before 2000, in 2100 or later, infinite or missing");
    }
    for each in odd {
        let advice = "no pass looks for what has such a time: mend the column, or the view that computes it";
        found.fail(ABOUT, each.told(), advice);
    }
    for each in shown {
        found.warn(ABOUT, each.told(), "people read it: mend the column, or the view that computes it");
    }
}

fn unread(error: &DbError) -> String {
    format!("the platform's times could not be read: {}", chain(error))
}
