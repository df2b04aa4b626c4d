//! The body of an answer as it arrives: long strings of base64 are decoded at once, and a token
//! stands in their place.
//!
//! Promise: a file inside a JSON answer is held once, decoded. What the filter sees is the same
//! JSON, in which such a string has become its first characters and a number ([`Files::get`] knows
//! it); the beginning of a `data:` URL stays before it. A string that turns out to be no base64 is
//! put back as it was. So are bodies that are no JSON: nothing is taken out of them. Left to
//! others: how much may be held (`ask`), and which strings are outputs (the filter).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use memchr::{memchr, memchr3};
use sha2::{Digest as _, Sha256};

use super::answer::Shape;
use super::said::BASE64;

/// The shortest string that is decoded as it arrives.
pub(super) const LONG_BYTES: usize = 64 << 10;
/// What precedes base64 in a `data:` URL is no longer than this.
const DATA_BYTES: usize = 200;
/// How many characters of a file stay in its token: a filter may tell its kind by them.
const HEAD_CHARS: usize = 48;
/// The longest text that a filter reads: a body without the files in it.
pub(super) const TEXT_BYTES_MAX: usize = 16 << 20;
/// How many times the JSON of an answer is held while a filter reads it: here, and in its worker as
/// it came, as values, and as what the filter says.
const TEXT_COPIES: u64 = 4;

/// The files that were decoded out of a body, and what the body was before.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    files: Vec<(String, Bytes)>,
    /// Length and SHA-256 of the body as it came, where anything was taken out of it.
    pub(super) whole: Option<(usize, String)>,
}

impl Files {
    /// The file of a token.
    pub(super) fn get(&self, token: &str) -> Option<&Bytes> {
        self.files.iter().find(|(own, _)| own == token).map(|(_, file)| file)
    }
}

/// A string that is being decoded.
#[derive(Default)]
struct File {
    decoded: Vec<u8>,
    /// Characters that are less than a whole group of four.
    rest: Vec<u8>,
    head: Vec<u8>,
    padding: usize,
    /// An escape that has not come as a whole: its backslash and what came of the rest.
    escape: Vec<u8>,
}

enum State {
    /// Outside of strings.
    Between,
    /// Inside of a string.
    Text,
    /// After a backslash in a string.
    Escaped,
    /// In a string of base64.
    File(File),
}

/// A body under way.
pub(super) struct Intake {
    /// None: nothing has come but space.
    is_json: Option<bool>,
    text: Vec<u8>,
    state: State,
    /// Where the string begins in `text`, and where what may be its base64 does.
    string_from: usize,
    base64_from: usize,
    may_be_base64: bool,
    files: Vec<(String, Bytes)>,
    decoded_bytes: usize,
    received: usize,
    hash: Option<Sha256>,
}

const fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// What an escape in JSON stands for, if it is one that base64 may come with: `\/` (PHP), `\u002B`
/// (.NET). None: not whole yet.
fn unescaped(escape: &[u8]) -> Option<Result<u8, NotBase64>> {
    match escape {
        [b'\\', b'/'] => Some(Ok(b'/')),
        [b'\\', b'u', hex @ ..] if hex.len() < 4 => None,
        [b'\\', b'u', hex @ ..] => {
            let code = std::str::from_utf8(hex).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
            Some(code.filter(|code| is_base64(*code) || *code == b'=').ok_or(NotBase64))
        }
        [b'\\'] => None,
        _ => Some(Err(NotBase64)),
    }
}

/// Whether `text` ends inside of an escape that [`unescaped`] knows.
fn ends_in_escape(text: &[u8]) -> bool {
    let tail = &text[text.len().saturating_sub(5)..];
    tail.iter().rposition(|byte| *byte == b'\\').is_some_and(|at| unescaped(&tail[at..]).is_none())
}

/// The string is no base64 after all.
struct NotBase64;

/// Base64 without its escapes; none: it is no base64, or ends inside of an escape.
fn without_escapes(text: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr(b'\\', rest) {
        plain.extend_from_slice(&rest[..at]);
        let length = if rest.get(at + 1) == Some(&b'u') { 6 } else { 2 };
        let escape = rest.get(at..at + length)?;
        plain.push(unescaped(escape)?.ok().filter(|byte| is_base64(*byte))?);
        rest = &rest[at + length..];
    }
    plain.extend_from_slice(rest);
    Some(plain)
}

impl Intake {
    /// For a body of this shape.
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            is_json: if matches!(shape, Shape::Json | Shape::Ndjson) { None } else { Some(false) },
            text: Vec::new(),
            state: State::Between,
            string_from: 0,
            base64_from: 0,
            may_be_base64: false,
            files: Vec::new(),
            decoded_bytes: 0,
            received: 0,
            hash: None,
        }
    }

    /// A whole body.
    pub(super) fn whole(shape: Shape, body: &[u8]) -> (Bytes, Files) {
        let mut intake = Self::new(shape);
        intake.push(body);
        intake.finish()
    }

    /// How many bytes have come.
    pub(super) fn received(&self) -> usize {
        self.received
    }

    /// What a body of this length costs, if it is a file in base64 for the most part.
    pub(super) fn expected_cost(length: u64) -> u64 {
        let decoded = length / 4 * 3;
        length.max(decoded.saturating_add(crate::recovery::memory_bytes(decoded)))
    }

    /// How many bytes of memory it takes to read what has come, and to copy its largest file.
    pub(super) fn cost(&self) -> u64 {
        let under_way = if let State::File(file) = &self.state { file.decoded.len() } else { 0 };
        let decoded = (self.decoded_bytes + under_way) as u64;
        decoded
            .saturating_add(crate::recovery::memory_bytes(decoded))
            .saturating_add(TEXT_COPIES.saturating_mul(self.text.len() as u64))
    }

    /// Why the body is not read any further, if it is longer than a filter should read.
    pub(super) fn refusal(&self) -> Option<String> {
        let what = if self.is_json == Some(true) { "JSON" } else { "text" };
        let is_long = self.text.len() > TEXT_BYTES_MAX;
        is_long
            .then(|| format!("{what} of more than {} MiB beside its files in base64", TEXT_BYTES_MAX >> 20))
    }

    /// Takes what comes next.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.received += piece.len();
        if self.is_json.is_none() {
            let first = piece.iter().find(|byte| !byte.is_ascii_whitespace());
            self.is_json = first.map(|first| matches!(first, b'{' | b'['));
        }
        if self.is_json != Some(true) {
            self.text.extend_from_slice(piece);
            return;
        }
        let is_hashed = self.hash.is_some();
        let mut rest = piece;
        while !rest.is_empty() {
            rest = match std::mem::replace(&mut self.state, State::Between) {
                State::Between => self.between(rest),
                State::Text => self.in_text(rest),
                State::Escaped => {
                    // Looked at where the string is long enough.
                    self.may_be_base64 &= matches!(rest[0], b'/' | b'u');
                    self.text.push(rest[0]);
                    self.state = State::Text;
                    &rest[1..]
                }
                State::File(file) => self.in_file(file, rest),
            };
        }
        if is_hashed && let Some(hash) = &mut self.hash {
            hash.update(piece);
        }
    }

    fn between<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let Some(at) = memchr(b'"', rest) else {
            self.text.extend_from_slice(rest);
            return &[];
        };
        self.text.extend_from_slice(&rest[..=at]);
        (self.string_from, self.base64_from) = (self.text.len(), self.text.len());
        self.may_be_base64 = true;
        self.state = State::Text;
        &rest[at + 1..]
    }

    fn in_text<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        self.state = State::Text;
        if self.may_be_base64 {
            // One more where it ends inside of an escape.
            let wanted = LONG_BYTES.saturating_sub(self.text.len() - self.base64_from).max(1).min(rest.len());
            let run = rest[..wanted].iter().take_while(|byte| is_base64(**byte)).count();
            self.text.extend_from_slice(&rest[..run]);
            let rest = &rest[run..];
            let is_long = self.text.len() - self.base64_from >= LONG_BYTES;
            if is_long && !ends_in_escape(&self.text) {
                self.begin_file(rest);
                return rest;
            }
            if run > 0 || rest.is_empty() {
                return rest;
            }
        }
        let Some(at) = memchr3(b'"', b'\\', b',', rest) else {
            self.may_be_base64 = false;
            self.text.extend_from_slice(rest);
            return &[];
        };
        self.may_be_base64 &= at == 0;
        self.text.extend_from_slice(&rest[..=at]);
        match rest[at] {
            b'"' => self.state = State::Between,
            b'\\' => self.state = State::Escaped,
            _ => {
                let before = &self.text[self.string_from..self.text.len() - 1];
                self.may_be_base64 = before.len() <= DATA_BYTES
                    && before.starts_with(b"data:")
                    && before.ends_with(b";base64");
                self.base64_from = self.text.len();
            }
        }
        &rest[at + 1..]
    }

    /// The string is a long one of base64 so far. `rest`: of the piece, what comes after.
    fn begin_file(&mut self, rest: &[u8]) {
        let mut file = File::default();
        let Some(text) = without_escapes(&self.text[self.base64_from..]) else {
            self.may_be_base64 = false;
            return;
        };
        // Until now `text` was what came.
        self.hash.get_or_insert_with(|| Sha256::new().chain_update(&self.text).chain_update(rest));
        self.text.truncate(self.base64_from);
        file.head.extend_from_slice(&text[..HEAD_CHARS]);
        file.push(&text);
        self.state = State::File(file);
    }

    fn in_file<'a>(&mut self, mut file: File, rest: &'a [u8]) -> &'a [u8] {
        let (first, after) = (rest[0], &rest[1..]);
        if !file.escape.is_empty() {
            file.escape.push(first);
            match unescaped(&file.escape) {
                None => {}
                Some(Ok(b'=')) if file.padding < 2 => {
                    file.escape.clear();
                    file.padding += 1;
                }
                Some(Ok(byte)) if is_base64(byte) && file.padding == 0 => {
                    file.escape.clear();
                    file.push(&[byte]);
                }
                Some(_) => {
                    file.escape.pop();
                    self.give_up(&file);
                    return rest;
                }
            }
            self.state = State::File(file);
            return after;
        }
        if file.padding == 0 {
            let run = rest.iter().take_while(|byte| is_base64(**byte)).count();
            if run > 0 {
                file.push(&rest[..run]);
                self.state = State::File(file);
                return &rest[run..];
            }
        }
        match first {
            b'\\' => {
                file.escape.push(first);
                self.state = State::File(file);
                after
            }
            b'=' if file.padding < 2 => {
                file.padding += 1;
                self.state = State::File(file);
                after
            }
            b'"' => {
                let mut last = file.rest.clone();
                last.resize(last.len() + file.padding, b'=');
                let whole_groups = file.decoded.len();
                if BASE64.decode_vec(&last, &mut file.decoded).is_err() {
                    file.decoded.truncate(whole_groups);
                    self.give_up(&file);
                    return rest;
                }
                let head = String::from_utf8_lossy(&file.head);
                // No base64: no answer of any provider says it by chance.
                let token = format!("{head}~makegood-file-{}~", self.files.len() + 1);
                self.text.extend_from_slice(token.as_bytes());
                self.text.push(b'"');
                self.decoded_bytes += file.decoded.len();
                self.files.push((token, file.decoded.into()));
                self.state = State::Between;
                after
            }
            _ => {
                self.give_up(&file);
                rest
            }
        }
    }

    /// Puts the string back as far as it has come: it is no base64.
    fn give_up(&mut self, file: &File) {
        let mut text = String::new();
        STANDARD_NO_PAD.encode_string(&file.decoded, &mut text);
        self.text.extend_from_slice(text.as_bytes());
        self.text.extend_from_slice(&file.rest);
        self.text.resize(self.text.len() + file.padding, b'=');
        self.may_be_base64 = false;
        self.text.extend_from_slice(&file.escape);
        self.state = if file.escape.len() == 1 { State::Escaped } else { State::Text };
    }

    /// The body with tokens, and the files.
    pub(super) fn finish(self) -> (Bytes, Files) {
        let received = self.received;
        let whole = self.hash.map(|hash| (received, hex::encode(hash.finalize())));
        (self.text.into(), Files { files: self.files, whole })
    }
}

impl File {
    /// Takes characters of base64.
    fn push(&mut self, mut text: &[u8]) {
        if !self.rest.is_empty() {
            let missing = (4 - self.rest.len()).min(text.len());
            self.rest.extend_from_slice(&text[..missing]);
            text = &text[missing..];
            if self.rest.len() < 4 {
                return;
            }
            let group = std::mem::take(&mut self.rest);
            self.decode(&group);
        }
        let (groups, rest) = text.split_at(text.len() / 4 * 4);
        self.decode(groups);
        self.rest.extend_from_slice(rest);
    }

    /// Whole groups of characters that are all of the alphabet.
    fn decode(&mut self, groups: &[u8]) {
        let decoded = STANDARD_NO_PAD.decode_vec(groups, &mut self.decoded);
        debug_assert!(decoded.is_ok(), "every group of four characters is base64");
    }
}

#[cfg(test)]
mod tests;
