//! Decodes files inside a JSON answer while the body arrives, so that each file is in memory only
//! once.
//!
//! A long base64 string is decoded and replaced by a token: its first characters and a number. The
//! filter sees the JSON with the token, and [`InlineFiles::get`] returns the file for it. The
//! prefix of a `data:` URL is kept before the token. If a long string turns out not to be base64,
//! it is restored. Bodies in other formats are not changed. `ask` limits the memory; the filter
//! decides which strings are outputs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use memchr::{memchr, memchr3};
use sha2::{Digest as _, Sha256};

use super::body::BodyFormat;
use super::filter_output::BASE64;

/// The shortest base64 string that is decoded while it arrives.
pub(super) const LONG_BYTES: usize = 64 << 10;
/// The longest prefix of base64 in a `data:` URL.
const DATA_PREFIX_BYTES: usize = 200;
/// How many characters of a file are kept in its token. A filter can detect the file type by them.
const HEAD_CHARS: usize = 48;
/// The longest text that a filter reads: the body without its files.
pub(super) const TEXT_BYTES_MAX: usize = 16 << 20;
/// How many copies of the JSON are in memory while a filter reads it: one here, and three in the
/// worker (as text, as values, and as the filter's output).
const TEXT_COPIES: u64 = 4;

/// The files that were decoded from a body, and the identity of the original body.
#[derive(Clone, Debug, Default)]
pub(super) struct InlineFiles {
    files: Vec<(String, Bytes)>,
    /// The length and SHA-256 of the original body, if it was changed.
    pub(super) original: Option<(usize, String)>,
}

impl InlineFiles {
    /// Returns the file of a token.
    pub(super) fn get(&self, token: &str) -> Option<&Bytes> {
        self.files.iter().find(|(own, _)| own == token).map(|(_, file)| file)
    }
}

/// A base64 string that is being decoded.
#[derive(Default)]
struct DecodingFile {
    decoded: Vec<u8>,
    /// The last characters, fewer than a group of four.
    rest: Vec<u8>,
    /// The first characters, for the token.
    head: Vec<u8>,
    padding: usize,
    /// The beginning of an incomplete escape sequence, with its backslash.
    escape: Vec<u8>,
}

enum DecoderState {
    /// Outside of strings.
    Between,
    /// Inside a string.
    Text,
    /// After a backslash inside a string.
    Escaped,
    /// Inside a base64 string that is being decoded.
    File(DecodingFile),
}

/// Decodes one body.
pub(super) struct BodyDecoder {
    /// `None`: only whitespace has arrived yet.
    is_json: Option<bool>,
    /// The body so far, with tokens instead of files.
    text: Vec<u8>,
    state: DecoderState,
    /// Where the current string begins in `text`.
    string_from: usize,
    /// Where the possible base64 of the current string begins in `text`.
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

/// Decodes an escape sequence that may occur in base64 inside JSON: `\/` (PHP) or `\u002B` (.NET).
/// Returns `None` if it is incomplete.
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

/// Whether `text` ends inside an escape sequence that [`unescaped`] accepts.
fn ends_in_escape(text: &[u8]) -> bool {
    let tail = &text[text.len().saturating_sub(5)..];
    tail.iter().rposition(|byte| *byte == b'\\').is_some_and(|at| unescaped(&tail[at..]).is_none())
}

/// The string is not base64.
struct NotBase64;

/// Removes the escape sequences from base64. Returns `None` if it is not base64, or if it ends
/// inside an escape sequence.
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

impl BodyDecoder {
    /// Creates a decoder for a body of this format.
    pub(super) fn new(format: BodyFormat) -> Self {
        Self {
            is_json: if matches!(format, BodyFormat::Json | BodyFormat::Ndjson) { None } else { Some(false) },
            text: Vec::new(),
            state: DecoderState::Between,
            string_from: 0,
            base64_from: 0,
            may_be_base64: false,
            files: Vec::new(),
            decoded_bytes: 0,
            received: 0,
            hash: None,
        }
    }

    /// Decodes a complete body.
    pub(super) fn decode(format: BodyFormat, body: &[u8]) -> (Bytes, InlineFiles) {
        let mut decoder = Self::new(format);
        decoder.push(body);
        decoder.finish()
    }

    /// How many bytes have arrived.
    pub(super) fn received(&self) -> usize {
        self.received
    }

    /// The expected [`BodyDecoder::cost`] of a body of this length that consists mostly of a file.
    pub(super) fn expected_cost(length: u64) -> u64 {
        let decoded = length / 4 * 3;
        length.max(decoded.saturating_add(crate::recovery::memory_bytes(decoded)))
    }

    /// The memory, in bytes, for reading the body so far and for copying its files.
    pub(super) fn cost(&self) -> u64 {
        let in_progress = if let DecoderState::File(file) = &self.state { file.decoded.len() } else { 0 };
        let decoded = (self.decoded_bytes + in_progress) as u64;
        decoded
            .saturating_add(crate::recovery::memory_bytes(decoded))
            .saturating_add(TEXT_COPIES.saturating_mul(self.text.len() as u64))
    }

    /// Returns an error message if the text of the body is too long for a filter.
    pub(super) fn limit_error(&self) -> Option<String> {
        let what = if self.is_json == Some(true) { "JSON" } else { "text" };
        let is_long = self.text.len() > TEXT_BYTES_MAX;
        is_long.then(|| format!("{what} of more than {} MiB without its base64 files", TEXT_BYTES_MAX >> 20))
    }

    /// Processes the next part of the body.
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
            rest = match std::mem::replace(&mut self.state, DecoderState::Between) {
                DecoderState::Between => self.between(rest),
                DecoderState::Text => self.in_text(rest),
                DecoderState::Escaped => {
                    // `without_escapes` checks the rest once the string is long enough.
                    self.may_be_base64 &= matches!(rest[0], b'/' | b'u');
                    self.text.push(rest[0]);
                    self.state = DecoderState::Text;
                    &rest[1..]
                }
                DecoderState::File(file) => self.in_file(file, rest),
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
        self.state = DecoderState::Text;
        &rest[at + 1..]
    }

    fn in_text<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        self.state = DecoderState::Text;
        if self.may_be_base64 {
            // At least one character more if the text ends inside an escape sequence.
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
            b'"' => self.state = DecoderState::Between,
            b'\\' => self.state = DecoderState::Escaped,
            _ => {
                let before = &self.text[self.string_from..self.text.len() - 1];
                self.may_be_base64 = before.len() <= DATA_PREFIX_BYTES
                    && before.starts_with(b"data:")
                    && before.ends_with(b";base64");
                self.base64_from = self.text.len();
            }
        }
        &rest[at + 1..]
    }

    /// Starts decoding: the string is long and base64 so far. `rest`: the part of the piece after
    /// it.
    fn begin_file(&mut self, rest: &[u8]) {
        let mut file = DecodingFile::default();
        let Some(text) = without_escapes(&self.text[self.base64_from..]) else {
            self.may_be_base64 = false;
            return;
        };
        // Until now, `text` was the unchanged body.
        self.hash.get_or_insert_with(|| Sha256::new().chain_update(&self.text).chain_update(rest));
        self.text.truncate(self.base64_from);
        file.head.extend_from_slice(&text[..HEAD_CHARS]);
        file.push(&text);
        self.state = DecoderState::File(file);
    }

    fn in_file<'a>(&mut self, mut file: DecodingFile, rest: &'a [u8]) -> &'a [u8] {
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
                    self.restore(&file);
                    return rest;
                }
            }
            self.state = DecoderState::File(file);
            return after;
        }
        if file.padding == 0 {
            let run = rest.iter().take_while(|byte| is_base64(**byte)).count();
            if run > 0 {
                file.push(&rest[..run]);
                self.state = DecoderState::File(file);
                return &rest[run..];
            }
        }
        match first {
            b'\\' => {
                file.escape.push(first);
                self.state = DecoderState::File(file);
                after
            }
            b'=' if file.padding < 2 => {
                file.padding += 1;
                self.state = DecoderState::File(file);
                after
            }
            b'"' => {
                let mut last = file.rest.clone();
                last.resize(last.len() + file.padding, b'=');
                let complete_groups = file.decoded.len();
                if BASE64.decode_vec(&last, &mut file.decoded).is_err() {
                    file.decoded.truncate(complete_groups);
                    self.restore(&file);
                    return rest;
                }
                let head = String::from_utf8_lossy(&file.head);
                // `~` is not in the base64 alphabet, so no answer contains this text by chance.
                let token = format!("{head}~makegood-file-{}~", self.files.len() + 1);
                self.text.extend_from_slice(token.as_bytes());
                self.text.push(b'"');
                self.decoded_bytes += file.decoded.len();
                self.files.push((token, file.decoded.into()));
                self.state = DecoderState::Between;
                after
            }
            _ => {
                self.restore(&file);
                rest
            }
        }
    }

    /// Restores the part of the string that has arrived, because it is not base64.
    fn restore(&mut self, file: &DecodingFile) {
        let mut text = String::new();
        STANDARD_NO_PAD.encode_string(&file.decoded, &mut text);
        self.text.extend_from_slice(text.as_bytes());
        self.text.extend_from_slice(&file.rest);
        self.text.resize(self.text.len() + file.padding, b'=');
        self.may_be_base64 = false;
        self.text.extend_from_slice(&file.escape);
        self.state = if file.escape.len() == 1 { DecoderState::Escaped } else { DecoderState::Text };
    }

    /// Returns the body with tokens, and the files.
    pub(super) fn finish(self) -> (Bytes, InlineFiles) {
        let received = self.received;
        let original = self.hash.map(|hash| (received, hex::encode(hash.finalize())));
        (self.text.into(), InlineFiles { files: self.files, original })
    }
}

impl DecodingFile {
    /// Decodes the next characters of base64.
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

    /// Decodes complete groups of four characters of the alphabet.
    fn decode(&mut self, groups: &[u8]) {
        let decoded = STANDARD_NO_PAD.decode_vec(groups, &mut self.decoded);
        debug_assert!(decoded.is_ok(), "every group of four characters is base64");
    }
}

#[cfg(test)]
mod tests;
