//! Formats times, numbers, foreign texts and tables for people.
//!
//! Text from outside (ids, messages of providers) is escaped, so that it cannot control the
//! terminal.

use comfy_table::{CellAlignment, Table, presets};

use crate::clock::Timestamp;
use crate::duration::format_rounded;
use crate::store::ErasedBy;

/// An instant to the second, in UTC.
pub fn time(at: Timestamp) -> String {
    at.to_chrono().format("%Y-%m-%d %H:%M:%S").to_string()
}

/// An instant, and how long ago it was or how far ahead it is.
pub fn when(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", time(at), relative(at, now))
}

/// How long ago an instant was, or how far ahead it is.
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        format!("in {}", format_rounded(at.since(now)))
    } else {
        format!("{} ago", format_rounded(now.since(at)))
    }
}

/// A number with its noun in the singular or plural.
pub fn count(number: impl Into<i128>, one: &str, many: &str) -> String {
    let number = number.into();
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Foreign text on one line, with control and invisible characters escaped.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(
            |c| {
                if c.is_control() || is_invisible(c) { c.escape_unicode().to_string() } else { c.to_string() }
            },
        )
        .collect()
}

/// A note in place of an erased text.
pub fn erased(by: &ErasedBy) -> String {
    format!("erased on {} by {} ({})", time(by.at), plain(&by.by_whom), plain(&by.reason))
}

/// Foreign text, escaped and shortened to at most this many characters.
pub fn cut(text: &str, most: usize) -> String {
    let text = plain(text);
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// Whether a character changes the direction of text or has no width. Such characters can make one
/// id look like another.
pub fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// An indented table without borders. The columns named in `right` are aligned to the right.
pub fn table(header: &[&str], right: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)).collect::<Vec<_>>());
    }
    for (nth, name) in header.iter().enumerate() {
        if let Some(column) = table.column_mut(nth) {
            column.set_padding((if nth == 0 { 2 } else { 0 }, 2));
            if right.contains(name) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn instants_are_shown_with_their_age() {
        let now = Timestamp::parse("2026-01-31T06:00:00.9Z").unwrap();
        assert_eq!(when(now - Duration::from_mins(90), now), "2026-01-31 04:30:00 (1h 30m ago)");
        assert_eq!(relative(now + Duration::from_secs(5), now), "in 5s");
    }

    #[test]
    fn text_from_outside_cannot_control_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\nc\u{202e}d"), "a\\u{1b}[31mb\\u{a}c\\u{202e}d");
        assert_eq!(cut("abcdef", 4), "abc…");
        let table = table(
            &["id", "n"],
            &["n"],
            [vec!["x\u{7}".to_owned(), "12".to_owned()], vec!["y".to_owned(), "3".to_owned()]],
        );
        assert_eq!(table, "  id       n\n  x\\u{7}  12\n  y        3\n");
    }
}
