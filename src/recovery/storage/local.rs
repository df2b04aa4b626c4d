//! Storage on local disk: refuses symbolic links, and removes the temporary files of killed writes.
//!
//! Another program with write access to the directory could place a symbolic link there and make
//! makegood write, read or delete the link's target. Promise: no link below the configured
//! directory is followed. Every part of a path is checked before use, and again after a write. A
//! link created between the check and the write (a time-of-check race) is found by the second
//! check: the copy fails and nothing is recorded. The configured directory and its parents may be
//! links, because the operator chose them.

use std::io::ErrorKind;
use std::path::{Path as FilePath, PathBuf};

/// The number of path components that makegood creates: charge, index, file.
const OWN_PARTS: usize = 3;

/// The first symbolic link among the components of `object` below `root`. An object outside `root`,
/// from a directory that was configured earlier, is checked in its last [`OWN_PARTS`] components.
pub(super) fn find_link(root: &FilePath, object: &FilePath) -> std::io::Result<Option<PathBuf>> {
    let own = object.strip_prefix(root).map_or(OWN_PARTS, |below| below.components().count());
    let mut parts: Vec<&FilePath> = object.ancestors().take(own).collect();
    parts.reverse();
    for part in parts {
        match std::fs::symlink_metadata(part) {
            Ok(found) if found.file_type().is_symlink() => return Ok(Some(part.to_owned())),
            Ok(_) => {}
            // It does not exist, so neither does anything below it.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Removes the temporary files `name#1`, `name#2`, … beside a local object. A write creates one and
/// renames it at the end.
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
