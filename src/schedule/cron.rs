//! The firings of a cron expression in a time zone with daylight saving time.
//!
//! croner does not handle the hour that is repeated in autumn: its next firing may be in the past,
//! or it may leave out the second hour. So the time is divided at the zone's offset changes into
//! periods with a fixed offset, and croner is asked about one period at a time.
//!
//! At an offset change the behaviour is that of cron(5) and Kubernetes. An expression with fixed
//! times of day fires once: at the first occurrence of a repeated time, and right after the gap for
//! a skipped time. A repeating expression (`*`, `*/5`) continues at its interval through both
//! hours.

use chrono::{DateTime, Duration, FixedOffset, LocalResult, Offset, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, JobType};

use crate::clock::Timestamp;

/// No zone changes its offset twice within this time.
const STRIDE: Duration = Duration::hours(12);

/// 4599-01-01. croner's calendar ends with the year 5000. An expression that ever fires does so
/// within these 400 years, and searching them is eight times as fast as searching from today.
const NEAR_THE_END: Timestamp = Timestamp::from_micros(82_963_267_200_000_000);

/// A cron expression in a time zone. It has at least one firing.
#[derive(Clone, Debug)]
pub struct CronSchedule {
    cron: Cron,
    zone: Tz,
}

/// Why an expression is refused.
#[derive(Debug, thiserror::Error)]
pub enum CronError {
    /// It does not have six fields.
    #[error(
        "a cron expression needs six fields, seconds first (second minute hour day-of-month month day-of-week), \
         and this one has {0}; write for instance \"0 */5 * * * *\""
    )]
    Fields(usize),
    /// A field is invalid.
    #[error(
        "the cron expression is not valid ({0}); write six fields, seconds first, for instance \"0 */5 * * * *\""
    )]
    Unreadable(String),
    /// No date matches.
    #[error("the cron expression never fires; check day-of-month and month for a date such as 31 February")]
    Never,
}

impl CronSchedule {
    /// Parses six cron fields, seconds first.
    ///
    /// # Errors
    /// See [`CronError`].
    pub fn parse(cron: &str, zone: Tz) -> Result<Self, CronError> {
        let fields = cron.split_whitespace().count();
        // A nickname such as `@hourly` is one field that stands for six.
        if fields != 6 && !(fields == 1 && cron.trim_start().starts_with('@')) {
            return Err(CronError::Fields(fields));
        }
        let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Disallowed).build();
        // croner's errors have no source.
        let cron = parser.parse(cron).map_err(|e| CronError::Unreadable(e.to_string()))?;
        let timetable = Self { cron, zone };
        timetable.next_after(NEAR_THE_END).ok_or(CronError::Never)?;
        Ok(timetable)
    }

    /// The first firing after an instant. `None` if there is none before the end of croner's
    /// calendar (year 5000).
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let mut from = after.to_chrono().with_nanosecond(0)?;
        let mut offset = self.offset(from);
        loop {
            let local = from.with_timezone(&offset);
            let found = self.cron.find_next_occurrence(&local, false).ok()?;
            let at = found.with_timezone(&Utc);
            let Some(change) = self.next_change(from, offset, at) else {
                if self.is_repeat(at) {
                    from = at;
                    continue;
                }
                return Some(at.into());
            };
            let new = self.offset(change);
            let gap =
                Duration::seconds(i64::from(new.local_minus_utc()) - i64::from(offset.local_minus_utc()));
            if self.is_fixed() && at < change + gap {
                // Its time is skipped on this day: it fires right after the gap.
                return Some(change.into());
            }
            // Continue with the new offset from the last second of the old one, so that the change
            // itself can be a firing.
            from = change - Duration::seconds(1);
            offset = new;
        }
    }

    /// The number of firings after `after`, up to and including `until`. Counts at most `most`.
    pub fn firings(&self, after: Timestamp, until: Timestamp, most: u64) -> u64 {
        let mut count = 0;
        let mut at = after;
        while count < most {
            match self.next_after(at) {
                Some(next) if next <= until => at = next,
                Some(_) | None => break,
            }
            count += 1;
        }
        count
    }

    fn offset(&self, at: DateTime<Utc>) -> FixedOffset {
        self.zone.offset_from_utc_datetime(&at.naive_utc()).fix()
    }

    fn is_fixed(&self) -> bool {
        self.cron.determine_job_type() == JobType::FixedTime
    }

    /// Whether this is the second occurrence of a repeated local time, for an expression with fixed
    /// times.
    fn is_repeat(&self, at: DateTime<Utc>) -> bool {
        let local = at.with_timezone(&self.zone).naive_local();
        match self.zone.from_local_datetime(&local) {
            LocalResult::Ambiguous(first, _) => self.is_fixed() && first != at,
            LocalResult::Single(_) | LocalResult::None => false,
        }
    }

    /// The first second after `from`, up to and including `until`, at which the zone's offset is
    /// not `offset`.
    fn next_change(
        &self,
        from: DateTime<Utc>,
        offset: FixedOffset,
        until: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let mut same = from;
        let mut other = from;
        loop {
            other = (other + STRIDE).min(until);
            if self.offset(other) != offset {
                break;
            }
            if other == until {
                return None;
            }
            same = other;
        }
        while other - same > Duration::seconds(1) {
            let middle = same + Duration::seconds((other - same).num_seconds() / 2);
            if self.offset(middle) == offset {
                same = middle;
            } else {
                other = middle;
            }
        }
        Some(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firings(cron: &str, zone: Tz, after: &str, count: usize) -> Vec<String> {
        let timetable = CronSchedule::parse(cron, zone).unwrap();
        let mut at = Timestamp::parse(after).unwrap();
        (0..count)
            .map(|_| {
                at = timetable.next_after(at).unwrap();
                at.to_chrono().with_timezone(&zone).to_rfc3339()
            })
            .collect()
    }

    const BERLIN: Tz = chrono_tz::Europe::Berlin;

    #[test]
    fn six_fields_begin_with_seconds() {
        assert_eq!(
            firings("0 * * * * *", Tz::UTC, "2026-01-31T23:58:59.999999Z", 3),
            ["2026-01-31T23:59:00+00:00", "2026-02-01T00:00:00+00:00", "2026-02-01T00:01:00+00:00"]
        );
        assert_eq!(
            firings("*/20 0 0 1 1 *", Tz::UTC, "2026-01-31T00:00:00Z", 2),
            ["2027-01-01T00:00:00+00:00", "2027-01-01T00:00:20+00:00"]
        );
        assert_eq!(
            firings("0 0 0 29 2 *", Tz::UTC, "2096-03-01T00:00:00Z", 1),
            ["2104-02-29T00:00:00+00:00"]
        );
    }

    #[test]
    fn day_of_month_or_day_of_week_matches_as_in_cron() {
        // The 10th is a Tuesday; the 6th and the 13th are Fridays.
        assert_eq!(
            firings("0 0 4 10 * FRI", Tz::UTC, "2026-02-01T00:00:00Z", 3),
            ["2026-02-06T04:00:00+00:00", "2026-02-10T04:00:00+00:00", "2026-02-13T04:00:00+00:00"]
        );
    }

    #[test]
    fn no_firing_is_lost_in_the_skipped_hour_in_spring() {
        // 2026-03-29: 02:00 CET becomes 03:00 CEST.
        assert_eq!(
            firings("0 */20 * * * *", BERLIN, "2026-03-29T00:39:00Z", 3),
            ["2026-03-29T01:40:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-29T03:20:00+02:00"]
        );
        assert_eq!(
            firings("0 30 2 * * *", BERLIN, "2026-03-28T00:00:00Z", 3),
            ["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
        );
        assert_eq!(
            firings("0 0 4 * * *", BERLIN, "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T04:00:00+02:00", "2026-03-30T04:00:00+02:00"]
        );
    }

    #[test]
    fn fixed_times_fire_once_in_the_repeated_hour_in_autumn() {
        // 2026-10-25: 03:00 CEST becomes 02:00 CET.
        assert_eq!(
            firings("0 */20 * * * *", BERLIN, "2026-10-25T00:39:00Z", 5),
            [
                "2026-10-25T02:40:00+02:00",
                "2026-10-25T02:00:00+01:00",
                "2026-10-25T02:20:00+01:00",
                "2026-10-25T02:40:00+01:00",
                "2026-10-25T03:00:00+01:00"
            ]
        );
        assert_eq!(
            firings("0 30 2 * * *", BERLIN, "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
        );
        // The next firing is in the future, also when computed within the second hour.
        assert_eq!(firings("0 30 2 * * *", BERLIN, "2026-10-25T01:10:00Z", 1), ["2026-10-26T02:30:00+01:00"]);
    }

    #[test]
    fn every_minute_fires_every_minute_through_all_offset_changes() {
        for zone in [BERLIN, chrono_tz::Australia::Lord_Howe, chrono_tz::Africa::Casablanca] {
            let timetable = CronSchedule::parse("0 * * * * *", zone).unwrap();
            for start in [
                "2026-02-14T00:00:00Z",
                "2026-03-21T00:00:00Z",
                "2026-03-28T00:00:00Z",
                "2026-04-04T00:00:00Z",
                "2026-10-03T00:00:00Z",
                "2026-10-24T00:00:00Z",
            ] {
                let mut at = Timestamp::parse(start).unwrap();
                for _ in 0..(2 * 24 * 60) {
                    let next = timetable.next_after(at).unwrap();
                    assert_eq!(next.since(at).as_secs(), 60, "{zone} after {at}");
                    at = next;
                }
            }
        }
    }

    #[test]
    fn invalid_expressions_are_refused() {
        for (cron, says) in [
            ("* * * * *", "six fields, seconds first"),
            ("0 * * * * * 2030", "this one has 7"),
            ("", "this one has 0"),
            ("0 61 * * * *", "is not valid"),
            ("0 * * * * FUN", "is not valid"),
            ("0 0 0 31 2 *", "never fires"),
            ("0 0 0 30 2 *", "never fires"),
            ("0 0 0 31 4,6,9,11 *", "never fires"),
        ] {
            let error = CronSchedule::parse(cron, Tz::UTC).unwrap_err().to_string();
            assert!(error.contains(says), "{cron:?}: {error}");
        }
        assert!(CronSchedule::parse("@hourly", Tz::UTC).is_ok());
    }

    #[test]
    fn firings_are_counted_up_to_a_bound() {
        let timetable = CronSchedule::parse("0 * * * * *", Tz::UTC).unwrap();
        let at = |text| Timestamp::parse(text).unwrap();
        let (from, to) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T00:03:00Z"));
        assert_eq!(timetable.firings(from, to, 1000), 3);
        assert_eq!(timetable.firings(from, to, 2), 2);
        assert_eq!(timetable.firings(to, from, 1000), 0);
    }
}
