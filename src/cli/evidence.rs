//! Formats evidence for people and as JSON, without files and without signed URLs.

use serde_json::{Value, json};
use url::Url;

use super::words::{count, cut, plain, time};
use crate::evidence::{Evidence, FailureClass, Offer, Source};

/// Evidence as lines of text.
pub fn lines(evidence: &Evidence) -> Vec<String> {
    let mut lines = vec![verdict(evidence)];
    if let Some(message) = &evidence.message {
        lines.push(format!("says: {}", cut(message, 300)));
    }
    if evidence.outputs_gone {
        lines.push("its files are gone".to_owned());
    }
    if evidence.outputs.len() > 1 {
        lines.push(format!("names {}", count(evidence.outputs.len() as i128, "output", "outputs")));
    }
    lines.extend(evidence.outputs.iter().map(offer));
    lines
}

fn verdict(evidence: &Evidence) -> String {
    let mut text = evidence.verdict.to_string();
    if let Some(class) = evidence.class {
        text = format!("{text}, {}", class.as_str());
    }
    if let Some(code) = &evidence.code {
        text = format!("{text}, code {}", cut(code, 80));
    }
    text
}

fn offer(offer: &Offer) -> String {
    let which = offer.index.map_or_else(|| "an output".to_owned(), |index| format!("output {index}"));
    let what = match &offer.source {
        Source::Url { url, auth } => {
            let key = if *auth { ", downloaded with the API key" } else { "" };
            format!("a file at {}{key}", host(url))
        }
        Source::Inline { bytes, content_type } => {
            let kind = content_type.as_deref().unwrap_or("an unknown type");
            format!("{} in the answer itself, {}", count(bytes.len() as i128, "byte", "bytes"), plain(kind))
        }
        Source::Failed { class, message } => {
            let message =
                message.as_ref().map_or_else(String::new, |message| format!(": {}", cut(message, 200)));
            format!("failed, {}{message}", class.as_str())
        }
    };
    let until = offer.expires_at.map_or_else(String::new, |at| format!(", until {}", time(at)));
    format!("{which}: {what}{until}")
}

/// The host of a URL. The rest may contain a signature.
fn host(url: &str) -> String {
    let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.unwrap_or_else(|| "an unreadable URL".to_owned())
}

/// Evidence as JSON.
pub fn json(evidence: &Evidence) -> Value {
    let offers = evidence.outputs.iter().map(|offer| {
        let source = match &offer.source {
            Source::Url { url, auth } => json!({"kind": "url", "host": host(url), "auth": auth}),
            Source::Inline { bytes, content_type } => {
                json!({"kind": "inline", "bytes": bytes.len(), "content_type": content_type})
            }
            Source::Failed { class, message } => {
                json!({"kind": "failed", "class": class.as_str(), "message": message})
            }
        };
        json!({"index": offer.index, "source": source, "expires_at": offer.expires_at})
    });
    json!({
        "verdict": evidence.verdict.as_str(),
        "class": evidence.class.map(FailureClass::as_str),
        "code": evidence.code,
        "message": evidence.message,
        "outputs": offers.collect::<Vec<_>>(),
        "outputs_gone": evidence.outputs_gone,
        "asked_at": evidence.asked_at,
        "answer": evidence.answer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::evidence::{Answer, Verdict};

    #[test]
    fn evidence_is_shown_without_signed_urls() {
        let evidence = Evidence {
            verdict: Verdict::Succeeded,
            class: None,
            code: Some("7".to_owned()),
            message: Some("done\u{1b}[2J".to_owned()),
            outputs: vec![
                Offer {
                    index: Some(0),
                    source: Source::Url { url: "https://cdn.example/a?sig=s3cret".to_owned(), auth: true },
                    expires_at: None,
                },
                Offer {
                    index: None,
                    source: Source::Failed { class: FailureClass::ContentSafety, message: None },
                    expires_at: None,
                },
            ],
            outputs_gone: false,
            asked_at: Timestamp::from_micros(0),
            answer: Answer::default(),
        };
        assert_eq!(
            lines(&evidence),
            [
                "succeeded, code 7",
                "says: done\\u{1b}[2J",
                "names 2 outputs",
                "output 0: a file at cdn.example, downloaded with the API key",
                "an output: failed, content_safety",
            ]
        );
        assert!(!json(&evidence).to_string().contains("s3cret"));
    }
}
