//! Creates and resets the demo's directory.
//!
//! A marker file identifies a directory that a demo created. A non-empty directory without it is
//! refused and not changed. With the marker, the demo's own files are replaced and all other files
//! are kept.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use url::Url;

use super::DemoError;
use super::simulator;

/// The name of the marker file.
const MARKER: &str = ".makegood-demo";
/// The files that the demo creates, besides the marker.
const FILES: [&str; 5] =
    ["makegood.toml", "answer.json", "platform.db", "platform.db-wal", "platform.db-shm"];
const FOLDERS: [&str; 2] = ["outputs", "providers"];

/// The default address of `makegood simulate-provider`.
const LATER_PROVIDER: &str = "http://127.0.0.1:9465";

/// The file of a provider that is down: nothing listens on that port. Its circuit breaker is
/// disabled, because its pause is real time and the demo's day is simulated.
const CIRRUS: &str = r#"# A provider that is down: nothing listens on this port.

[provider]
name = "cirrus"
retries = 0
circuit_opens_after = 1000000
output_hosts = []

[ask]
request = "GET http://127.0.0.1:1/jobs/{job}"
read = '{verdict: "unreadable", message: "nobody should have answered"}'
"#;

/// The demo's directory.
#[derive(Clone, Debug)]
pub struct DemoDirectory {
    /// The path as the user wrote it, for the commands to try next.
    pub named: PathBuf,
    root: PathBuf,
}

impl DemoDirectory {
    /// Creates the directory, or removes the files of an earlier demo from it.
    ///
    /// # Errors
    /// It was not created by a demo, or is not writable.
    pub fn prepare(dir: &Path) -> Result<Self, DemoError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| DemoError::Files { path, source }
        };
        std::fs::create_dir_all(dir).map_err(failed(dir))?;
        let root = dir.canonicalize().map_err(failed(dir))?;
        let marker = root.join(MARKER);
        if !marker.exists() {
            let mut entries = std::fs::read_dir(&root).map_err(failed(&root))?;
            if entries.next().is_some() {
                return Err(DemoError::NotOurs { dir: dir.to_owned() });
            }
            let text =
                "`makegood demo` created this directory, and replaces its own files when it is run again.\n";
            std::fs::write(&marker, text).map_err(failed(&marker))?;
        }
        for name in FILES {
            let path = root.join(name);
            ignore_not_found(std::fs::remove_file(&path)).map_err(failed(&path))?;
        }
        for name in FOLDERS {
            let path = root.join(name);
            ignore_not_found(std::fs::remove_dir_all(&path)).map_err(failed(&path))?;
        }
        Ok(Self { named: dir.to_owned(), root })
    }

    /// The path of the settings file.
    pub fn config(&self) -> PathBuf {
        self.root.join("makegood.toml")
    }

    /// The URL of the database.
    pub fn database_url(&self) -> Result<String, DemoError> {
        Ok(format!("sqlite://{}", self.url("platform.db")?.path()))
    }

    fn url(&self, name: &str) -> Result<Url, DemoError> {
        Url::from_file_path(self.root.join(name)).map_err(|()| DemoError::Path { dir: self.named.clone() })
    }

    /// Writes the settings file: the demo's database, provider files and storage. All other
    /// settings are defaults.
    pub fn write_config(&self) -> Result<(), DemoError> {
        let providers = self.root.join("providers");
        let providers = providers.to_str().ok_or_else(|| DemoError::Path { dir: self.named.clone() })?;
        // A JSON string is a TOML string too.
        let text = format!(
            "# The example platform of `makegood demo`. All other settings have their defaults.\n\n\
             [database]\nurl = {}\n\n\
             [providers]\n# These files point to `makegood simulate-provider` on this machine.\ndir = {}\n\n\
             [storage]\nurl = {}\n\n\
             [recovery]\n# Only because the simulated provider's files come from this machine. Never in production.\n\
             allow_loopback = true\n",
            json!(self.database_url()?),
            json!(providers),
            json!(self.url("outputs")?.as_str()),
        );
        self.write("makegood.toml", &text)
    }

    /// Writes provider files that point to the simulated provider at `base_url`.
    pub fn write_providers(&self, base_url: &str) -> Result<(), DemoError> {
        let dir = self.root.join("providers");
        simulator::write_provider_files(&dir, base_url)
            .map_err(|source| DemoError::Files { path: dir.clone(), source })?;
        self.write("providers/cirrus.toml", CIRRUS)
    }

    /// Writes the files that the commands to try next need: provider files for `makegood
    /// simulate-provider`, and an answer.
    pub fn write_next_steps(&self) -> Result<(), DemoError> {
        self.write_providers(LATER_PROVIDER)?;
        let answer = json!({
            "id": "failed-p03-two-balances", "model": "lumen/still-life", "status": "failed", "output": null,
            "error": "CUDA out of memory", "data_removed": false, "logs": "", "source": "api",
        });
        self.write("answer.json", &format!("{answer:#}\n"))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), DemoError> {
        let path = self.root.join(name);
        std::fs::write(&path, text).map_err(|source| DemoError::Files { path, source })
    }
}

/// Treats a missing file as removed.
fn ignore_not_found(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_the_marker_is_refused_and_not_changed() {
        let home = tempfile::tempdir().unwrap();
        let theirs = home.path().join("outputs");
        std::fs::create_dir(&theirs).unwrap();
        std::fs::write(theirs.join("thesis.txt"), "years of work").unwrap();

        let refused = DemoDirectory::prepare(home.path()).unwrap_err();

        assert!(matches!(refused, DemoError::NotOurs { .. }), "{refused:?}");
        assert_eq!(std::fs::read_to_string(theirs.join("thesis.txt")).unwrap(), "years of work");
        assert!(!home.path().join(MARKER).exists());
    }

    #[test]
    fn a_directory_with_the_marker_is_reset_and_other_files_are_kept() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("a demo, 100 % mine?#");
        let directory = DemoDirectory::prepare(&dir).unwrap();
        directory.write_config().unwrap();
        directory.write_providers("http://127.0.0.1:1").unwrap();
        std::fs::write(dir.join("notes.txt"), "mine").unwrap();

        DemoDirectory::prepare(&dir).unwrap();

        let mut left: Vec<_> =
            std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [MARKER, "notes.txt"]);
    }

    #[test]
    fn the_written_settings_are_valid_and_name_the_directory() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("a demo, 100 % mine?#");
        let directory = DemoDirectory::prepare(&dir).unwrap();
        directory.write_config().unwrap();
        directory.write_next_steps().unwrap();

        let args = crate::config::LoadArgs { file: Some(directory.config()), ..Default::default() };
        let settings = crate::config::Settings::load(&args).unwrap();

        assert_eq!(settings.storage.url.to_file_path().unwrap(), dir.canonicalize().unwrap().join("outputs"));
        let providers = settings.providers.dir.unwrap();
        let providers =
            crate::provider::Providers::load(Some(&providers), crate::clock::Clock::default()).unwrap();
        assert!(providers.get("cirrus").is_some_and(|cirrus| cirrus.limits.retries == 0));
        assert!(settings.recovery.allow_loopback);
    }
}
