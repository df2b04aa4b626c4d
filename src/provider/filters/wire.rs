//! What the process of makegood and a filter worker say to each other, over the worker's standard
//! input and output.
//!
//! One hello, then calls; each call is answered before the next. The lengths of a frame come first,
//! so that neither side reads more than it has room for. A call is also what a filter is run with
//! inside the process: there is one way to run a filter.

use std::io::{self, Read, Write};

use jaq_json::Val;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::super::answer::{Shape, Unread};
use super::super::filter::Filter;
use super::super::json::{self, JsonError};
use super::super::reading::{blob, string};

/// The length that says that a call has no body.
const NO_BODY: u32 = u32::MAX;

/// The first message: which filters there are, and what they may use.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Hello {
    /// Names and texts.
    pub(super) programs: Vec<(String, String)>,
    /// CPU time of one run, in whole seconds.
    pub(super) cpu_secs: u64,
    /// Memory of the whole worker.
    pub(super) memory_bytes: u64,
    /// The longest answer of the worker.
    pub(super) told_bytes: usize,
}

/// A filter to be run, and on what.
#[derive(Debug)]
pub(in crate::provider) struct Call {
    /// Everything but the body: what the filter finds in its input.
    pub(in crate::provider) about: Map<String, Value>,
    /// The answer's body as it came, for `.body`.
    pub(in crate::provider) body: Option<bytes::Bytes>,
    /// What that body is.
    pub(in crate::provider) shape: Shape,
    /// Its length and SHA-256 before files were taken out of it.
    pub(in crate::provider) whole: Option<(usize, String)>,
}

/// What came of a call.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::provider) struct Told {
    /// Why the body is not what the file says, and was given to the filter as its length and hash.
    pub(in crate::provider) not_json: Option<String>,
    /// What the filter said, or why it said nothing.
    pub(in crate::provider) said: Result<Value, String>,
}

impl Told {
    fn problem(problem: String) -> Self {
        Self { not_json: None, said: Err(problem) }
    }
}

/// Runs a filter, in whichever process.
pub(super) fn run(filter: &Filter, call: Call) -> Told {
    let Call { about, body, shape, whole } = call;
    let mut not_json = None;
    let body = match body.map(|body| (shape.parse(&body), body)) {
        None => None,
        Some((Ok(value), _)) => Some(value),
        // Not even as a file: it is no answer that anybody would send.
        Some((Err(Unread::TooMany(error)), _)) => return Told::problem(format!("the body is {error}")),
        Some((Err(Unread::Other(error)), body)) => {
            not_json = Some(error);
            let (length, hash) = whole.unwrap_or_else(|| (body.len(), hex::encode(Sha256::digest(&body))));
            Some(blob(length, &hash))
        }
    };
    let about = about.into_iter().map(|(key, value)| Ok((string(&key), Val::deserialize(value)?)));
    let input = about.chain(body.map(|body| Ok((string("body"), body)))).collect::<Result<_, _>>();
    let said = match input {
        Ok(input) => filter.first(Val::obj(input)).and_then(|output| json::to_json(&output)),
        Err(error) => {
            let error: serde_json::Error = error;
            Err(format!("what it should read is lost: {error}"))
        }
    };
    Told { not_json, said }
}

/// A call as bytes.
pub(super) fn call(program: &str, call: &Call) -> io::Result<Vec<u8>> {
    let head = serde_json::to_vec(&(program, &call.about, call.shape, &call.whole))?;
    let body_bytes = call.body.as_ref().map_or(Ok(NO_BODY), |body| length(body.len()))?;
    let mut frame = Vec::with_capacity(8 + head.len());
    frame.extend(length(head.len())?.to_le_bytes());
    frame.extend(body_bytes.to_le_bytes());
    frame.extend(head);
    Ok(frame)
}

/// Any other message as bytes.
pub(super) fn message(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(message)?;
    let mut frame = Vec::with_capacity(4 + text.len());
    frame.extend(length(text.len())?.to_le_bytes());
    frame.extend(text);
    Ok(frame)
}

fn length(bytes: usize) -> io::Result<u32> {
    let length = u32::try_from(bytes).ok().filter(|length| *length != NO_BODY);
    length.ok_or_else(|| io::Error::other("a message of more than 4 GiB"))
}

/// The worker's side: reads the first message.
pub(super) fn read_hello(from: &mut impl Read) -> io::Result<Hello> {
    let bytes = read_length(from)?;
    Ok(serde_json::from_slice(&read_bytes(from, bytes)?)?)
}

/// The worker's side: reads a call and the name of its filter. None: there are no more.
pub(super) fn read_call(from: &mut impl Read) -> io::Result<Option<(String, Call)>> {
    let head_bytes = match read_length(from) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let body_bytes = read_length(from)?;
    let (program, about, shape, whole) = serde_json::from_slice(&read_bytes(from, head_bytes)?)?;
    let body = if body_bytes == NO_BODY { None } else { Some(read_bytes(from, body_bytes)?.into()) };
    Ok(Some((program, Call { about, body, shape, whole })))
}

/// The worker's side: answers a call. An answer that is too long is replaced by a message that says
/// so.
pub(super) fn write_told(to: &mut impl Write, told: &Told, told_bytes: usize) -> io::Result<()> {
    let mut frame = message(told)?;
    if frame.len() > told_bytes {
        frame = message(&Told::problem(format!("the filter gave more than {told_bytes} bytes")))?;
    }
    to.write_all(&frame)?;
    to.flush()
}

/// The other side: what the worker answered, checked like the answer of a stranger.
pub(super) fn read_told(text: &[u8]) -> Told {
    if json::has_too_many(text) {
        return Told::problem(format!("the filter gave {}", JsonError::TooMany));
    }
    serde_json::from_slice(text)
        .unwrap_or_else(|error| Told::problem(format!("the filter's output cannot be read: {error}")))
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
