//! The report as CSV (RFC 4180): a header, then one line per item.
//!
//! A field with a comma, a quote or a line break is quoted. Ids come from the platform and from
//! providers. A value that a spreadsheet would read as a formula is written as text. Control and
//! invisible characters are escaped, as `\u{1b}`.

use crate::cli::words::{erased, plain};
use crate::clock::Timestamp;
use crate::store::{LateEvidence, LateItem, MadeGoodItem, WaitingItem};

const COLUMNS: [&str; 17] = [
    "status",
    "charge_id",
    "output_index",
    "account_id",
    "provider",
    "model",
    "reason",
    "charged_at",
    "made_good_at",
    "item_credits",
    "subscription_credits",
    "wallet_credits",
    "late",
    "provider_job_id",
    "noticed_at",
    "stored_output_id",
    "evidence",
];

pub(super) fn header() -> String {
    COLUMNS.join(",")
}

pub(super) fn made_good(item: &MadeGoodItem) -> String {
    let status = match item.kind.as_str() {
        "refund" => "refunded",
        "recover" => "recovered",
        "relink" => "relinked",
        "reverse" => "refund_reversed",
        other => other,
    };
    line(&[
        status,
        &item.charge_id,
        &item.output_index.to_string(),
        item.account_id.as_deref().unwrap_or_default(),
        &item.provider,
        item.model.as_deref().unwrap_or_default(),
        &item.reason,
        &time(item.charged_at),
        &time(Some(item.at)),
        "",
        &item.subscription_credits.to_string(),
        &item.wallet_credits.to_string(),
        "",
        "",
        "",
        "",
        "",
    ])
}

/// A refunded item that was made after all. `made_good_at` is its refund.
pub(super) fn late_success(item: &LateItem) -> String {
    line(&[
        item.status(),
        &item.charge_id,
        &item.output_index.to_string(),
        &item.account_id,
        &item.provider,
        &item.model,
        &item.refund_reason,
        &time(item.charged_at),
        &time(Some(item.refunded_at)),
        "",
        &item.subscription_credits.to_string(),
        &item.wallet_credits.to_string(),
        "",
        item.provider_job_id.as_deref().unwrap_or_default(),
        &time(Some(item.noticed_at)),
        item.stored_output_id.as_deref().unwrap_or_default(),
        &item.evidence.as_ref().map_or_else(String::new, evidence),
    ])
}

/// The evidence in one field: request, time and response.
fn evidence(evidence: &LateEvidence) -> String {
    let status = evidence.http_status.map_or_else(String::new, |status| format!(" answered {status}"));
    let text = match &evidence.erased {
        Some(by) => erased(by),
        None => evidence.excerpt.clone().unwrap_or_default(),
    };
    format!(
        "answer {} at {}: {}; {}{status}; {text}",
        evidence.answer_id,
        evidence.asked_at,
        evidence.verdict,
        evidence.request.as_deref().unwrap_or_default(),
    )
}

pub(super) fn waiting(item: &WaitingItem, now: Timestamp) -> String {
    line(&[
        &item.state,
        &item.charge_id,
        &item.output_index.to_string(),
        item.account_id.as_deref().unwrap_or_default(),
        &item.provider,
        item.model.as_deref().unwrap_or_default(),
        &item.reason,
        &time(Some(item.charged_at)),
        "",
        &item.credits.map_or_else(String::new, |credits| credits.to_string()),
        "",
        "",
        if item.window_ends_at <= now { "true" } else { "false" },
        "",
        "",
        "",
        "",
    ])
}

fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(String::new, |at| at.to_string())
}

fn line(fields: &[&str; COLUMNS.len()]) -> String {
    fields.iter().map(|field| quoted(field)).collect::<Vec<_>>().join(",")
}

fn quoted(field: &str) -> String {
    let lines = field.split_inclusive(['\n', '\r']).map(|line| {
        let text = line.trim_end_matches(['\n', '\r']);
        plain(text) + &line[text.len()..]
    });
    let field = lines.collect::<String>();
    // Numbers may begin with a minus; other such values would be formulas.
    let formula = field.starts_with(['=', '+', '-', '@', '\r']) && field.parse::<i64>().is_err();
    let field = if formula { format!("'{field}") } else { field };
    if field.contains([',', '"', '\n', '\r']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ErasedBy;

    #[test]
    fn fields_are_quoted_and_no_id_is_a_formula() {
        for (field, csv) in [
            ("plain", "plain"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("a\u{200b}b\nc\t", "\"a\\u{200b}b\nc\\u{9}\""),
            ("=cmd()", "'=cmd()"),
            ("-1", "-1"),
            ("-1+1", "'-1+1"),
            ("@a,b", "\"'@a,b\""),
        ] {
            assert_eq!(quoted(field), csv);
        }
    }

    #[test]
    fn every_line_has_a_field_for_each_column() {
        let at = Timestamp::from_micros(0);
        let item = MadeGoodItem {
            charge_id: "ch".to_owned(),
            output_index: -1,
            account_id: None,
            provider: "fal".to_owned(),
            model: None,
            kind: "relink".to_owned(),
            reason: "misattributed".to_owned(),
            charged_at: None,
            at,
            subscription_credits: 0,
            wallet_credits: 0,
        };
        assert_eq!(
            made_good(&item),
            "relinked,ch,-1,,fal,,misattributed,,1970-01-01T00:00:00.000000Z,,0,0,,,,,"
        );
        let item = WaitingItem {
            charge_id: "ch".to_owned(),
            output_index: 0,
            account_id: Some("u".to_owned()),
            provider: "fal".to_owned(),
            model: Some("m".to_owned()),
            state: "held".to_owned(),
            reason: "brake".to_owned(),
            charged_at: at,
            window_ends_at: at,
            questions: 0,
            due_at: at,
            credits: Some(7),
        };
        assert_eq!(waiting(&item, at), "held,ch,0,u,fal,m,brake,1970-01-01T00:00:00.000000Z,,7,,,true,,,,");
        assert_eq!(header().split(',').count(), COLUMNS.len());
        let mut item = LateItem {
            charge_id: "ch".to_owned(),
            output_index: 0,
            account_id: "u".to_owned(),
            provider: "fal".to_owned(),
            model: "m".to_owned(),
            provider_job_id: Some("j-1".to_owned()),
            charged_at: Some(at),
            refund_reason: "unconfirmed".to_owned(),
            refunded_at: at,
            subscription_credits: 1,
            wallet_credits: 6,
            noticed_at: at,
            noticed_by: "question".to_owned(),
            stored_output_id: None,
            evidence: Some(LateEvidence {
                answer_id: 7,
                asked_at: at,
                verdict: "succeeded".to_owned(),
                request: Some("GET https://fal.example/j-1".to_owned()),
                http_status: Some(200),
                excerpt: Some("{\"ok\":1}".to_owned()),
                erased: None,
            }),
        };
        let when = "1970-01-01T00:00:00.000000Z";
        assert_eq!(
            late_success(&item),
            format!(
                "never_delivered,ch,0,u,fal,m,unconfirmed,{when},{when},,1,6,,j-1,{when},,\
                 \"answer 7 at {when}: succeeded; GET https://fal.example/j-1 answered 200; {{\"\"ok\"\":1}}\""
            )
        );
        let evidence = item.evidence.as_mut().unwrap();
        (evidence.request, evidence.excerpt) = (None, None);
        evidence.erased = Some(ErasedBy { at, by_whom: "mia".to_owned(), reason: "request 7".to_owned() });
        assert!(late_success(&item).ends_with(
            ",answer 7 at 1970-01-01T00:00:00.000000Z: succeeded;  answered 200; erased on 1970-01-01 00:00:00 by mia (request 7)"
        ));
        (item.stored_output_id, item.evidence) = (Some("o".to_owned()), None);
        assert_eq!(
            late_success(&item),
            format!("stored_late,ch,0,u,fal,m,unconfirmed,{when},{when},,1,6,,j-1,{when},o,")
        );
    }
}
