//! What is kept of a round that fails, for whoever looks into it: the whole database, what its
//! server said, the settings, the files and the story of the workers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::server::Server;

/// Keeps all of it if it is dropped by a panic, whatever that was about.
#[derive(Debug)]
pub struct Keep<'a> {
    pub server: &'a Server,
    pub database: String,
    /// The workers' folder.
    pub folder: PathBuf,
    pub told: Arc<Mutex<Vec<String>>>,
}

impl Drop for Keep<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&self.database);
            match self.keep(&kept) {
                Ok(()) => eprintln!("everything that is needed to look into it: {}", kept.display()),
                Err(error) => eprintln!("not all could be kept in {}: {error}", kept.display()),
            }
        }
    }
}

impl Keep<'_> {
    fn keep(&self, kept: &Path) -> std::io::Result<()> {
        if kept.exists() {
            std::fs::remove_dir_all(kept)?;
        }
        std::fs::create_dir_all(kept)?;
        // Whoever holds it may be the one that panicked.
        let told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::fs::write(kept.join("told.txt"), told.join("\n"))?;
        copy(&self.folder, &kept.join("folder"))?;
        self.server.keep(&self.database, kept)
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
