//! Whether the platform's times are times: in the right unit, finite, and of this century.
//!
//! A charge whose time cannot be meant is in no stretch that a pass looks at: nothing would ever be
//! due, and nothing would say so. Other times are only shown to people, so they are warnings.

use super::Findings;
use crate::report::chain;
use crate::store::Store;

const ABOUT: &str = "times";

pub(super) async fn check(store: &Store, found: &mut Findings) {
    let read =
        async { Ok::<_, crate::store::DbError>((store.odd_times().await?, store.odd_times_shown().await?)) };
    let (odd, shown) = match read.await {
        Ok(read) => read,
        Err(error) => {
            let error = store.naming_unreadable_time(error, u32::MAX).await;
            let advice =
                "no pass finds any charge: see whether the time columns are what migrations/reference shows";
            found.fail(ABOUT, format!("the platform's times could not be read: {}", chain(&error)), advice);
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
