//! One provider job of a plan: how it ends, and how the provider answers about it at any minute.

use serde_json::json;

use makegood::demo::simulator::Canned;

use super::plan::{Outage, Trouble};

/// The end of a provider job.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: String,
    /// Known to the provider from then on.
    pub visible: i64,
    /// It has ended.
    pub done: i64,
    pub verdict: &'static str,
    /// Whether each of its outputs is offered.
    pub offers: Vec<bool>,
    /// Its files are dropped.
    pub gone: i64,
    /// Until then the answers about it are unreadable.
    pub garbage: i64,
    /// The provider contradicts itself: from this minute its answer changes.
    pub turn: Option<(i64, Turn)>,
}

/// How the answer about a job that succeeded changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The provider says that it failed, and later that it succeeded.
    FromFailed,
    /// Succeeded first, failed later.
    ToFailed,
    /// Later the provider does not know the job any more.
    ToUnknown,
    /// Later it offers what it did not offer, and does not offer what it did.
    ToOtherOutputs,
}

/// The answer about a job, in the terms of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// No readable answer, because of this fault of the provider.
    InTrouble(Trouble),
    /// An unreadable answer.
    Garbage,
    Unknown,
    Running,
    Failed,
    Cancelled,
    /// Succeeded, and the files are gone.
    Gone,
    /// Succeeded, with or without files; see [`Job::offered`].
    Succeeded,
}

impl Job {
    pub fn says(&self, minute: i64, outage: Option<&Outage>) -> Says {
        if let Some(outage) = outage {
            return Says::InTrouble(outage.trouble);
        }
        let turned = |into: Turn| self.turn.is_some_and(|(at, turn)| turn == into && minute >= at);
        match self.verdict {
            _ if minute < self.garbage => Says::Garbage,
            _ if minute < self.visible || self.verdict == "unknown_job" => Says::Unknown,
            _ if minute < self.done => Says::Running,
            "failed" => Says::Failed,
            "cancelled" => Says::Cancelled,
            _ if turned(Turn::ToUnknown) => Says::Unknown,
            _ if turned(Turn::ToFailed) => Says::Failed,
            _ if self.turn.is_some_and(|(at, turn)| turn == Turn::FromFailed && minute < at) => Says::Failed,
            _ if minute >= self.gone => Says::Gone,
            _ => Says::Succeeded,
        }
    }

    /// Whether this output is offered, if the job succeeded.
    pub fn offered(&self, output: usize, minute: i64) -> bool {
        let other = self.turn.is_some_and(|(at, turn)| turn == Turn::ToOtherOutputs && minute >= at);
        self.offers.get(output).is_some_and(|offered| *offered != other)
    }

    /// The same in the provider's format: a status, and the expected output of the filter.
    pub fn answer(&self, minute: i64, outage: Option<&Outage>) -> Canned {
        let said = |said: serde_json::Value| Canned::json(200, &said);
        match self.says(minute, outage) {
            Says::InTrouble(Trouble::Away) => Canned::json(503, &json!("nobody is here")),
            Says::InTrouble(Trouble::RefusesUs) => Canned::json(401, &json!("who are you")),
            // Shorter than what a question sits out: a longer wish is kept by the real clock.
            Says::InTrouble(Trouble::TooOften) => {
                Canned::json(429, &json!("slow down")).with("retry-after", "2")
            }
            Says::Garbage => said(json!("what is this")),
            Says::Unknown => said(json!({"verdict": "unknown_job"})),
            Says::Running => said(json!({"verdict": "running"})),
            Says::Failed => said(json!({"verdict": "failed", "message": "as planned"})),
            Says::Cancelled => said(json!({"verdict": "cancelled", "message": "as planned"})),
            Says::Gone => said(json!({"verdict": "succeeded", "outputs_gone": true})),
            Says::Succeeded => {
                let file = |nth: usize| base64(&format!("output {nth} of {}", self.id));
                let outputs: Vec<_> = (0..self.offers.len())
                    .filter(|nth| self.offered(*nth, minute))
                    .map(|nth| json!({"index": nth, "base64": file(nth), "content_type": "text/plain"}))
                    .collect();
                said(json!({"verdict": "succeeded", "outputs": outputs}))
            }
        }
    }
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits =
            three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for nth in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * nth) & 63) as usize];
            out.push(if nth <= three.len() { char::from(letter) } else { '=' });
        }
    }
    out
}
