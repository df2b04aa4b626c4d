//! The wire protocol between makegood and a filter worker, over the worker's standard input and
//! output.
//!
//! It starts with one handshake. Then follow calls, and each call is answered before the next one.
//! Every message starts with its length, so that neither side reads more than it can hold. [`run`]
//! executes a call, in a worker and also inside makegood's own process.

use std::io::{self, Read, Write};

use jaq_json::Val;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::super::body::{BodyError, BodyFormat};
use super::super::filter::Filter;
use super::super::json::{self, JsonError};
use super::super::reading::{blob, string};

/// The length that marks a call without a body.
const NO_BODY: u32 = u32::MAX;

/// The first message: the filters and their limits.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Handshake {
    /// The names and the source code of the filters.
    pub(super) programs: Vec<(String, String)>,
    /// The CPU time of one run, in seconds.
    pub(super) cpu_secs: u64,
    /// The memory of the worker process.
    pub(super) memory_bytes: u64,
    /// The longest answer of the worker.
    pub(super) max_output_bytes: usize,
}

/// The input of one filter run.
#[derive(Debug)]
pub(in crate::provider) struct FilterCall {
    /// The input of the filter, without the body.
    pub(in crate::provider) input: Map<String, Value>,
    /// The body of the answer, for `.body`.
    pub(in crate::provider) body: Option<bytes::Bytes>,
    /// The format of the body.
    pub(in crate::provider) format: BodyFormat,
    /// The length and SHA-256 of the body before files were decoded from it.
    pub(in crate::provider) original: Option<(usize, String)>,
}

/// The result of one filter run.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::provider) struct FilterRun {
    /// Why the body does not have the format that the file says. The filter received its length and
    /// hash instead.
    pub(in crate::provider) body_error: Option<String>,
    /// The output of the filter. The error says why there is none.
    pub(in crate::provider) output: Result<Value, String>,
}

impl FilterRun {
    fn problem(problem: String) -> Self {
        Self { body_error: None, output: Err(problem) }
    }
}

/// Runs a filter in this process.
pub(super) fn run(filter: &Filter, call: FilterCall) -> FilterRun {
    let FilterCall { input, body, format, original } = call;
    let mut body_error = None;
    let body = match body.map(|body| (format.parse(&body), body)) {
        None => None,
        Some((Ok(value), _)) => Some(value),
        // No real answer has so many values. The filter does not see it at all.
        Some((Err(BodyError::TooManyValues(error)), _)) => {
            return FilterRun::problem(format!("the body is {error}"));
        }
        Some((Err(BodyError::WrongFormat(error)), body)) => {
            body_error = Some(error);
            let (length, hash) = original.unwrap_or_else(|| (body.len(), hex::encode(Sha256::digest(&body))));
            Some(blob(length, &hash))
        }
    };
    let input = input.into_iter().map(|(key, value)| Ok((string(&key), Val::deserialize(value)?)));
    let input = input.chain(body.map(|body| Ok((string("body"), body)))).collect::<Result<_, _>>();
    let output = match input {
        Ok(input) => filter.first(Val::obj(input)).and_then(|output| json::to_json(&output)),
        Err(error) => {
            let error: serde_json::Error = error;
            Err(format!("its input is invalid: {error}"))
        }
    };
    FilterRun { body_error, output }
}

/// Encodes a call.
pub(super) fn call(program: &str, call: &FilterCall) -> io::Result<Vec<u8>> {
    let head = serde_json::to_vec(&(program, &call.input, call.format, &call.original))?;
    let body_bytes = call.body.as_ref().map_or(Ok(NO_BODY), |body| length(body.len()))?;
    let mut frame = Vec::with_capacity(8 + head.len());
    frame.extend(length(head.len())?.to_le_bytes());
    frame.extend(body_bytes.to_le_bytes());
    frame.extend(head);
    Ok(frame)
}

/// Encodes any other message.
pub(super) fn message(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(message)?;
    let mut frame = Vec::with_capacity(4 + text.len());
    frame.extend(length(text.len())?.to_le_bytes());
    frame.extend(text);
    Ok(frame)
}

fn length(bytes: usize) -> io::Result<u32> {
    let length = u32::try_from(bytes).ok().filter(|length| *length != NO_BODY);
    length.ok_or_else(|| io::Error::other("the message is longer than 4 GiB"))
}

/// Reads the first message, in the worker.
pub(super) fn read_handshake(from: &mut impl Read) -> io::Result<Handshake> {
    let bytes = read_length(from)?;
    Ok(serde_json::from_slice(&read_bytes(from, bytes)?)?)
}

/// Reads a call and the name of its filter, in the worker. Returns `None` after the last call.
pub(super) fn read_call(from: &mut impl Read) -> io::Result<Option<(String, FilterCall)>> {
    let head_bytes = match read_length(from) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let body_bytes = read_length(from)?;
    let (program, input, format, original) = serde_json::from_slice(&read_bytes(from, head_bytes)?)?;
    let body = if body_bytes == NO_BODY { None } else { Some(read_bytes(from, body_bytes)?.into()) };
    Ok(Some((program, FilterCall { input, body, format, original })))
}

/// Answers a call, in the worker. An answer that is too long is replaced by an error message.
pub(super) fn write_run(to: &mut impl Write, run: &FilterRun, max_output_bytes: usize) -> io::Result<()> {
    let mut frame = message(run)?;
    if frame.len() > max_output_bytes {
        frame =
            message(&FilterRun::problem(format!("the filter returned more than {max_output_bytes} bytes")))?;
    }
    to.write_all(&frame)?;
    to.flush()
}

/// Decodes the answer of a worker, in makegood's process. The worker is not trusted.
pub(super) fn read_run(text: &[u8]) -> FilterRun {
    if json::has_too_many(text) {
        return FilterRun::problem(format!("the filter returned {}", JsonError::TooMany));
    }
    serde_json::from_slice(text)
        .unwrap_or_else(|error| FilterRun::problem(format!("the filter's output cannot be read: {error}")))
}

fn read_length(from: &mut impl Read) -> io::Result<u32> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    Ok(u32::from_le_bytes(length))
}

fn read_bytes(from: &mut impl Read, length: u32) -> io::Result<Vec<u8>> {
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}
