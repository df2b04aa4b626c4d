//! Parses a storage URL into a directory, or into a bucket and a prefix.
//!
//! Pure, apart from the working directory. Ambiguous URLs are refused. No error repeats the URL:
//! somebody may have put a secret into it by mistake.

use std::path::{Component, Path as FilePath, PathBuf};

use object_store::path::Path;
use percent_encoding::percent_decode_str;

use super::StorageError;

/// The directory of a `file:` URL. `rest` is the URL after the colon.
pub(super) fn directory(rest: &str, working_dir: &FilePath) -> Result<PathBuf, StorageError> {
    let path = match rest.strip_prefix("//") {
        None => rest,
        Some(rest) => {
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            if !path.starts_with('/') {
                return Err(StorageError::Url {
                    why: "it names a host; a file URL with two slashes needs a third",
                });
            }
            path
        }
    };
    if path.is_empty() {
        return Err(StorageError::Url { why: "it names no directory" });
    }
    let path = percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| StorageError::Url { why: "its directory is not UTF-8" })?;
    let absolute = std::path::absolute(working_dir.join(path.as_ref()))
        .map_err(|_| StorageError::Url { why: "the working directory is not known" })?;
    // `..` is resolved by name, not through links, because the store's paths cannot contain it.
    let mut directory = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::ParentDir => {
                directory.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => directory.push(component),
        }
    }
    Ok(directory)
}

/// Bucket and prefix. `rest` is the URL after the colon: `//bucket/prefix`.
pub(super) fn bucket_and_prefix(rest: &str) -> Result<(&str, Path), StorageError> {
    let rest =
        rest.strip_prefix("//").ok_or(StorageError::Url { why: "two slashes must follow its scheme" })?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if bucket.is_empty() || !bucket.bytes().all(plain) {
        return Err(StorageError::Url { why: "its bucket is missing or has characters that no bucket has" });
    }
    Ok((bucket, bucket_prefix(prefix)?))
}

/// The prefix within a bucket. It is not percent-decoded.
fn bucket_prefix(prefix: &str) -> Result<Path, StorageError> {
    Path::parse(prefix).map_err(|_| StorageError::Url {
        why: "its prefix has an empty part, `.`, `..` or a control character",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory_of(url: &str) -> Result<PathBuf, StorageError> {
        directory(url.strip_prefix("file:").unwrap(), FilePath::new("/srv dir"))
    }

    #[test]
    fn file_urls_are_parsed_into_a_directory() {
        for (url, path) in [
            ("file:./out", "/srv dir/out"),
            ("file:out/deep/", "/srv dir/out/deep"),
            ("file:../out", "/out"),
            ("file:/abs", "/abs"),
            ("file:///abs", "/abs"),
            ("file:///a%20b/%C3%A9", "/a b/é"),
            ("file://localhost/abs", "/abs"),
            ("file:///a/./b/../c", "/a/c"),
        ] {
            assert_eq!(directory_of(url).unwrap(), FilePath::new(path), "{url}");
        }
        for url in ["file:", "file://host/abs", "file://out", "file:%FF"] {
            assert!(matches!(directory_of(url), Err(StorageError::Url { .. })), "{url}");
        }
    }
}
