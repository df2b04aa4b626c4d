//! What is special about a directory of this machine: links that lead out of it, and what a killed
//! write leaves.
//!
//! Whoever can write into the directory could put a symbolic link where a charge's directory or a
//! file belongs, and have makegood write, read or delete what it points to. Promise: no link below
//! the configured directory is followed. Every part of a path is looked at before it is used and
//! again after something was written. Between a look and its use a link can still be slipped in;
//! what was written through one is noticed by the second look, fails the copy and is never
//! recorded. The configured directory itself may be a link, and so may what it lies in: that is the
//! operator's word.

use std::io::ErrorKind;
use std::path::{Path as FilePath, PathBuf};

/// The parts of an object's path that makegood makes: charge, index, file.
const OWN_PARTS: usize = 3;

/// The first symbolic link among the parts of `object` that lie below `root`. An object that lies
/// elsewhere, in a directory that was configured once, is looked at in the parts that makegood
/// made.
pub(super) fn link_below(root: &FilePath, object: &FilePath) -> std::io::Result<Option<PathBuf>> {
    let own = object.strip_prefix(root).map_or(OWN_PARTS, |below| below.components().count());
    let mut parts: Vec<&FilePath> = object.ancestors().take(own).collect();
    parts.reverse();
    for part in parts {
        match std::fs::symlink_metadata(part) {
            Ok(found) if found.file_type().is_symlink() => return Ok(Some(part.to_owned())),
            Ok(_) => {}
            // Nothing is there, and so nothing below it.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Removes the files `name#1`, `name#2`, … beside a local object: what a write makes before it
/// renames.
pub(super) fn remove_temporary(object: &FilePath) -> std::io::Result<()> {
    let (Some(directory), Some(name)) = (object.parent(), object.file_name()) else { return Ok(()) };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let left = entry.file_name();
        let suffix = left.as_encoded_bytes().strip_prefix(name.as_encoded_bytes());
        let suffix = suffix.and_then(|rest| rest.strip_prefix(b"#"));
        if suffix.is_some_and(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)) {
            match std::fs::remove_file(entry.path()) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
