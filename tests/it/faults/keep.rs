//! Keeps everything of a round that failed for whoever examines it: the whole database, the
//! server's log, the settings, the files and the history of the workers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::server::Server;

/// Keeps everything if it is dropped by a panic.
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
        // The lock may be held by the thread that panicked.
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
