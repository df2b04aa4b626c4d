//! Names an object in storage by charge id, item index and lease token.
//!
//! The token increases with every claim, so two workers never write the same object. Ids come from
//! the platform and may contain anything (`../`, spaces, 300 characters, or nothing). Promises: a
//! key never leaves the storage's prefix, and different ids give different keys. No row names the
//! object of an unfinished copy, so it can be deleted safely.

use std::fmt;

use sha2::{Digest, Sha256};

/// The longest encoded id, in bytes. A longer one is cut and gets its hash appended: file names are
/// limited to 255 bytes.
const MAX_PART_BYTES: usize = 100;

/// The name of one object, below the storage's prefix: `<charge>/<index>/<token>.<extension>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    charge: String,
    output_index: i64,
    lease_token: i64,
    extension: Option<&'static str>,
}

impl ObjectKey {
    /// The key for one item's output under one lease. The extension depends on the file's type and
    /// is added before the file is written.
    pub fn new(charge_id: &str, output_index: i64, lease_token: i64) -> Self {
        Self { charge: encode(charge_id), output_index, lease_token, extension: None }
    }

    /// The same key with the extension of the detected file type.
    #[must_use]
    pub(super) fn with_extension(&self, extension: &'static str) -> Self {
        Self { extension: Some(extension), ..self.clone() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.charge, self.output_index, self.lease_token)?;
        self.extension.map_or(Ok(()), |extension| write!(f, ".{extension}"))
    }
}

/// Encodes an id as one path segment. ASCII letters, digits, `-` and `_` stay; every other byte,
/// dots too, becomes `%XX`. Different ids give different segments:
/// - the empty id becomes `%2D`; no other id does, because `-` is not encoded;
/// - an id that is too long becomes its beginning and its SHA-256; that is longer than any other
///   segment.
fn encode(id: &str) -> String {
    if id.is_empty() {
        return "%2D".to_owned();
    }
    let mut part = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            part.push(char::from(byte));
        } else {
            part.push('%');
            part.push_str(&hex::encode([byte]).to_ascii_uppercase());
        }
    }
    if part.len() > MAX_PART_BYTES {
        // The encoded text is ASCII, so it can be cut at any byte.
        part.truncate(MAX_PART_BYTES);
        part.push('-');
        part.push_str(&hex::encode(Sha256::digest(id)));
    }
    part
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_plain_id_stays_readable() {
        let key = ObjectKey::new("ch_8f2-A", 2, 17);
        assert_eq!(key.to_string(), "ch_8f2-A/2/17");
        assert_eq!(key.with_extension("png").to_string(), "ch_8f2-A/2/17.png");
        assert_eq!(ObjectKey::new("ch", -1, 1).to_string(), "ch/-1/1");
    }

    #[test]
    fn hostile_ids_stay_one_path_segment() {
        for (id, part) in [
            ("", "%2D"),
            (".", "%2E"),
            ("..", "%2E%2E"),
            ("../../etc/passwd", "%2E%2E%2F%2E%2E%2Fetc%2Fpasswd"),
            ("a b", "a%20b"),
            ("%2E%2E", "%252E%252E"),
            ("a\\b\0", "a%5Cb%00"),
            ("#1", "%231"),
            ("é", "%C3%A9"),
            ("-", "-"),
        ] {
            assert_eq!(encode(id), part, "{id:?}");
        }
        let long = "x".repeat(300);
        assert_eq!(encode(&long).len(), 165);
        assert_ne!(encode(&long), encode(&"x".repeat(301)));
        // An id that equals the shortened form of another.
        assert_ne!(encode(&encode(&long)), encode(&long));
    }

    #[test]
    fn hex_is_lower_case_and_padded() {
        assert_eq!(hex::encode([0x00, 0x0f, 0xa0, 0xff]), "000fa0ff");
    }

    /// Short ids over few characters, so that near collisions are common, and long ids.
    fn id() -> impl Strategy<Value = String> {
        prop_oneof!["[-%./2DEx]{0,6}", "\\PC{0,20}", "[a%]{95,110}", "[a/]{290,310}"]
    }

    proptest! {
        #[test]
        fn distinct_inputs_make_distinct_keys(a in id(), b in id(), i in -2..3i64, j in -2..3i64, t in 0..3i64, u in 0..3i64) {
            let one = ObjectKey::new(&a, i, t).with_extension("png").to_string();
            let other = ObjectKey::new(&b, j, u).with_extension("png").to_string();
            prop_assert_eq!(one == other, (a, i, t) == (b, j, u));
        }

        #[test]
        fn every_key_is_a_relative_path_of_three_short_plain_parts(a in id(), i: i64, t: i64) {
            let key = ObjectKey::new(&a, i, t).with_extension("mp4").to_string();
            let parts: Vec<_> = key.split('/').collect();
            prop_assert_eq!(parts.len(), 3);
            for part in parts {
                prop_assert!(!part.is_empty() && part != "." && part != ".." && part.len() < 200);
                prop_assert!(part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_%.".contains(&b)));
            }
            // The store's own encoding changes nothing.
            let path = object_store::path::Path::parse(&key).unwrap();
            prop_assert_eq!(path.as_ref(), &key);
        }
    }
}
