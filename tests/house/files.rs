//! Reads the project's own files. Skips what git does not keep: builds, and what tools write.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold nothing that a person wrote for readers.
const SKIPPED: [&str; 6] = [".git", "target", "corpus", "artifacts", "mutants.out", "tls"];

/// The project's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One file of the project.
pub struct File {
    /// Its path from the project's folder, with `/` on every system.
    pub path: String,
    /// Its whole text.
    pub text: String,
}

impl File {
    /// The part of its name after the last dot; the whole name where there is none.
    pub fn extension(&self) -> &str {
        self.path.rsplit(['.', '/']).next().unwrap_or_default()
    }
}

/// The text of one file.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("could not read {path}: {error}"))
}

/// Every text file under these files and folders, in the order of their paths.
pub fn under(places: &[&str]) -> Vec<File> {
    let mut paths = Vec::new();
    for place in places {
        collect(&root().join(place), &mut paths);
    }
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
        // A file that is not UTF-8 is data and not text.
        Some(File { path: name, text: fs::read_to_string(&path).ok()? })
    };
    paths.into_iter().filter_map(read).collect()
}

fn collect(path: &Path, into: &mut Vec<PathBuf>) {
    if path.is_file() {
        into.push(path.to_owned());
        return;
    }
    let entries =
        fs::read_dir(path).unwrap_or_else(|error| panic!("could not read {}: {error}", path.display()));
    for entry in entries {
        let entry = entry.unwrap();
        if !SKIPPED.contains(&entry.file_name().to_string_lossy().as_ref()) {
            collect(&entry.path(), into);
        }
    }
}
