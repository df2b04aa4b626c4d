//! What a local write leaves behind when it is killed: temporary files beside the object.

use std::path::Path as FilePath;

/// Removes the files `name#1`, `name#2`, … beside a local object: what a write makes before it
/// renames.
pub(super) fn remove_temporary(object: &FilePath) -> std::io::Result<()> {
    let (Some(directory), Some(name)) = (object.parent(), object.file_name()) else { return Ok(()) };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
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
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
