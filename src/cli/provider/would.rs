//! Computes what a pass would decide on an answer, for two ages of the charge. Pure; nothing else
//! is known about the item.

use std::time::Duration;

use super::ProviderTestArgs;
use crate::charge::{Charge, Item, ItemId, JobKey, Split};
use crate::clock::{Clock, Timestamp};
use crate::config::Settings;
use crate::egress::Hosts;
use crate::evidence::{Evidence, Source, Verdict};
use crate::facts::{BalanceRows, Delivery, Facts, ItemsSum, JobShare, Orphan, Record, RefundedElsewhere};
use crate::pass::Rules;
use crate::policy::{self, Action, Decision, Pick};
use crate::provider::{Provider, Providers};
use crate::recovery::{self, UrlRefusal};

/// The two ages of a charge for which a decision is shown.
pub(super) struct Moments {
    /// The age of a charge whose grace has just ended.
    pub(super) fresh: Duration,
    /// The age of a charge at `refund_by`.
    pub(super) late: Duration,
}

/// The decisions about one output of the job.
pub(super) struct OutputDecisions {
    pub(super) output: i64,
    pub(super) fresh: Decision,
    pub(super) late: Decision,
    /// Its file, and why a pass would not download it.
    pub(super) refused: Option<(String, UrlRefusal)>,
}

pub(super) fn moments(providers: &Providers, args: &ProviderTestArgs, settings: &Settings) -> Moments {
    let own = providers.get(&args.name).and_then(|provider: &Provider| provider.grace_for(&args.model));
    Moments {
        fresh: own.unwrap_or(settings.detect.grace),
        late: settings.window.length.saturating_sub(settings.window.margin),
    }
}

/// The hosts from which a provider's files may be downloaded, and those that may get its key.
#[derive(Default)]
pub(super) struct HostLists {
    outputs: Hosts,
    keys: Hosts,
}

impl HostLists {
    pub(super) fn of(providers: &Providers, name: &str) -> Self {
        let provider = providers.get(name);
        let of = |provider: &Provider| Self {
            outputs: provider.output_hosts.clone(),
            keys: provider.key_hosts.clone(),
        };
        provider.map(of).unwrap_or_default()
    }
}

pub(super) fn decide(
    args: &ProviderTestArgs,
    settings: &Settings,
    listed: &HostLists,
    answer: &Evidence,
    moments: &Moments,
) -> Vec<OutputDecisions> {
    let options = Rules::new(settings).policy;
    let now = Clock::System.now();
    let refused = |decision: &Decision| {
        let Action::Recover(Pick::Offer(nth) | Pick::Unclaimed(nth)) = decision.action else { return None };
        let source = &answer.outputs.get(nth)?.source;
        let why = recovery::refusal(source, &listed.outputs, &listed.keys, settings.recovery.allow_loopback)?;
        let Source::Url { url, .. } = source else { return None };
        Some((url.clone(), why))
    };
    (0..i64::from(args.items))
        .map(|output| {
            let of_age = |age| {
                let facts = facts(args, settings, output, age, now);
                let decision = policy::decide(&facts, Some(answer), &options, now);
                match refused(&decision) {
                    // A pass continues in the same way if the download is rejected.
                    Some(why) => {
                        let completed = answer.verdict == Verdict::Succeeded;
                        (policy::after_recovery(&facts, completed, false, now), Some(why))
                    }
                    None => (decision, None),
                }
            };
            let ((fresh, refused), (late, refused_late)) = (of_age(moments.fresh), of_age(moments.late));
            OutputDecisions { output, fresh, late, refused: refused.or(refused_late) }
        })
        .collect()
}

/// An example item that was charged `age` ago and asked about often enough.
fn facts(args: &ProviderTestArgs, settings: &Settings, output: i64, age: Duration, now: Timestamp) -> Facts {
    let charged_at = now - age;
    let doubt = settings.window.length.saturating_sub(settings.window.margin);
    let items = usize::from(args.items);
    let rank = usize::try_from(output).unwrap_or(0);
    let credits = i64::from(args.items);
    let id = ItemId { charge_id: "example".to_owned(), output_index: output };
    let job = JobKey { provider: args.name.clone(), job_id: args.job_id(), output_index: output };
    Facts {
        record: Record {
            charge: Charge {
                id: id.charge_id.clone(),
                account_id: String::new(),
                project_id: None,
                node_id: None,
                provider: args.name.clone(),
                model: args.model.clone(),
                charged_at,
                drawn: Split { subscription: credits, wallet: 0 },
                cancelled_at: None,
            },
            item: Some(Item { id: id.clone(), credits: 1, job: Some(job), failed_at: None }),
            items: ItemsSum { count: items, credits: i128::from(credits), negative: false },
            delivery: Delivery::Missing,
            refunded_elsewhere: RefundedElsewhere::default(),
            was_recovered: false,
            rival: false,
            balance_rows: BalanceRows { subscription: 1, wallet: 1 },
            debits: None,
        },
        share: JobShare { items, rank, open_rank: rank, stored: Vec::new(), unhashed: 0 },
        orphan: Orphan {
            id: 0,
            item: id,
            opened_at: charged_at,
            refund_by: charged_at + doubt,
            questions: policy::QUESTIONS_MIN,
            first_asked_at: Some(now - policy::QUESTIONS_SPAN),
            waits: 0,
            held: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LoadArgs;
    use crate::egress::List;
    use crate::evidence::{Doubt, Offer};

    #[test]
    fn without_proof_the_decisions_for_the_two_ages_differ() {
        let settings = Settings::load(&LoadArgs::default()).unwrap();
        let args = ProviderTestArgs {
            name: "replicate".to_owned(),
            file: Some("-".into()),
            status: None,
            headers: Vec::new(),
            model: "m".to_owned(),
            job: Some("j".to_owned()),
            items: 2,
            step: None,
            kept: None,
            expect: None,
            output: None,
        };
        let moments = Moments { fresh: Duration::from_mins(10), late: Duration::from_hours(22) };
        let hosts = |list, host| Hosts::parse(list, &[host]).unwrap();
        let listed = HostLists {
            outputs: hosts(List::Outputs, "*.acme.example"),
            keys: hosts(List::Keys, "api.acme.example"),
        };
        let decided = |answer: &Evidence| {
            decide(&args, &settings, &listed, answer, &moments)
                .iter()
                .map(|each| (each.output, each.fresh.reason.as_str(), each.late.reason.as_str()))
                .collect::<Vec<_>>()
        };
        let mut answer = Evidence::could_not_tell(Doubt::Unreadable, "", Timestamp::from_micros(0));
        assert_eq!(decided(&answer), [(0, "unreadable", "unconfirmed"), (1, "unreadable", "unconfirmed")]);
        answer.verdict = Verdict::Running;
        assert_eq!(decided(&answer), [(0, "still_running", "timed_out"), (1, "still_running", "timed_out")]);
        answer.verdict = Verdict::UnknownJob;
        assert_eq!(decided(&answer)[0], (0, "maybe_not_visible_yet", "never_returned"));
        answer.verdict = Verdict::Failed;
        assert_eq!(decided(&answer)[1], (1, "provider_error", "provider_error"));

        // A file that a pass would not download is not recovered.
        answer.verdict = Verdict::Succeeded;
        for (url, auth, taken) in [
            ("https://cdn.acme.example/0.png", false, true),
            ("https://api.acme.example/0.png", true, true),
            ("https://cdn.acme.example/0.png", true, false),
            ("https://cdn.acme.example:8443/0.png", false, false),
            ("http://cdn.acme.example/0.png", false, false),
            ("https://evil.example/0.png", false, false),
            ("/0.png", false, false),
            ("s3://bucket/0.png", false, false),
            ("gs://bucket/0.png", false, false),
            ("data:image/png;base64,aGk=", false, false),
            ("https://127.0.0.1/0.png", false, false),
        ] {
            let source = Source::Url { url: url.to_owned(), auth };
            answer.outputs = vec![Offer { index: Some(0), source, expires_at: None }];
            let wanted = if taken {
                (0, "output_available", "output_available")
            } else {
                (0, "recovery_retry", "recovery_failed")
            };
            assert_eq!(decided(&answer)[0], wanted, "{url}");
        }
    }
}
