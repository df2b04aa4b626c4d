//! Combinations of settings that could never work, or that would break a promise.

use std::time::Duration;

use super::sections::Settings;
use crate::duration::format_exact;

/// The longest time limit of a filter. Reading an answer is part of a question, and the lease must
/// outlast the question.
const FILTER_TIME_MAX: Duration = Duration::from_hours(1);
/// The least memory limit of a filter's worker: several times what the worker itself needs.
const FILTER_MEMORY_MIN: u64 = 16 << 20;

/// A value that another value makes impossible.
pub(super) struct Contradiction {
    /// The key of the value.
    pub key: &'static str,
    /// A correct value.
    pub right: String,
}

impl Settings {
    /// Finds all impossible combinations.
    pub(super) fn contradictions(&self) -> Vec<Contradiction> {
        let mut found = Vec::new();
        let mut refuse = |wrong: bool, key, right: String| {
            if wrong {
                found.push(Contradiction { key, right });
            }
        };
        let length = self.window.length;
        let margin = self.window.margin;
        refuse(
            margin >= length,
            "window.margin",
            format!("expected less than window.length, which is {}", format_exact(length)),
        );
        refuse(
            self.detect.grace > length / 3,
            "detect.grace",
            format!(
                "expected at most {1}, a third of window.length ({0}), to leave time for questions",
                format_exact(length),
                format_exact(length / 3)
            ),
        );
        refuse(
            self.detect.overlap >= length,
            "detect.overlap",
            format!("expected less than window.length, which is {}", format_exact(length)),
        );
        refuse(
            margin < length && self.detect.unknown_job_grace > length.saturating_sub(margin),
            "detect.unknown_job_grace",
            format!(
                "expected an end before refund_by: at most window.length - window.margin, which is {}",
                format_exact(length.saturating_sub(margin))
            ),
        );
        let filter_time = self.providers.filter_time;
        refuse(
            filter_time.subsec_nanos() != 0 || filter_time > FILTER_TIME_MAX,
            "providers.filter_time",
            format!("expected whole seconds, at most {}", format_exact(FILTER_TIME_MAX)),
        );
        refuse(
            self.providers.filter_memory < FILTER_MEMORY_MIN,
            "providers.filter_memory",
            format!(
                "expected at least {} MiB, because a worker needs that much itself",
                FILTER_MEMORY_MIN >> 20
            ),
        );
        refuse(
            self.detect.backlog_age < length,
            "detect.backlog_age",
            format!(
                "expected at least window.length, which is {}: charges within it are made good, not only reported",
                format_exact(length)
            ),
        );
        refuse(
            self.recovery.time_budget >= self.pass.lease,
            "recovery.time_budget",
            format!("expected less than pass.lease, which is {}", format_exact(self.pass.lease)),
        );
        if let (Some(first), Some(last)) = (self.late.first_question, self.late.last_question) {
            refuse(
                last <= first,
                "late.last_question",
                format!("expected more than late.first_question, which is {}", format_exact(first)),
            );
        }
        refuse(
            self.recovery.sweep_after <= self.pass.lease,
            "recovery.sweep_after",
            format!("expected more than pass.lease, which is {}", format_exact(self.pass.lease)),
        );
        for (key, day, hour) in [
            ("brake.max_refunds_per_day", self.brake.max_refunds_per_day, self.brake.max_refunds_per_hour),
            ("brake.max_credits_per_day", self.brake.max_credits_per_day, self.brake.max_credits_per_hour),
            (
                "brake.max_refunds_per_day_per_provider",
                self.brake.max_refunds_per_day_per_provider,
                self.brake.max_refunds_per_hour_per_provider,
            ),
        ] {
            refuse(
                day != 0 && day < hour,
                key,
                format!("expected at least the limit per hour, which is {hour} (0: no limit)"),
            );
        }
        if let Err(e) = self.schedule.timetable() {
            refuse(true, "schedule.cron", e.to_string());
        }
        found
    }
}
