//! Where the workers keep files in a round, how it fails, and whether every file is there in the end.
//!
//! In one plan of two it is a directory, which vanishes; in the other a bucket that speaks S3 and stumbles: it answers
//! 500, 403 and `SlowDown`, drops connections in the middle of a part, does what it was asked and loses the answer, or
//! takes its time. The files are held against what the provider offers, byte by byte, past the program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hyper::StatusCode;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::World;
use super::plan::Step;
use super::server::lines;
use crate::binary::Makegood;
use crate::real_input::seed::file_url;
use crate::s3::bucket::{Bucket, How};

/// Where files go.
pub enum Storage {
    /// `outputs` in this folder.
    Folder(PathBuf),
    /// A bucket, and where it is served.
    Bucket(Bucket, String),
}

impl Storage {
    /// The one of this seed.
    pub async fn of(seed: u64, folder: &Path) -> Self {
        if seed.is_multiple_of(2) {
            return Self::Folder(folder.to_owned());
        }
        let bucket = Bucket::default();
        let endpoint = bucket.serve().await;
        Self::Bucket(bucket, endpoint)
    }

    /// Points a run at it.
    pub fn given_to(&self, run: Makegood) -> Makegood {
        match self {
            Self::Folder(_) => run.env("MAKEGOOD__STORAGE__URL", "file:./outputs"),
            Self::Bucket(_, endpoint) => run
                .env("MAKEGOOD__STORAGE__URL", "s3://outputs/recovered")
                .env("AWS_ENDPOINT", endpoint)
                .env("AWS_ALLOW_HTTP", "true")
                .env("AWS_REGION", "eu-central-1")
                .env("AWS_ACCESS_KEY_ID", "id")
                .env("AWS_SECRET_ACCESS_KEY", "secret"),
        }
    }

    /// What goes wrong in this step from its beginning. Returns how much that is.
    pub fn stumble(&self, step: &Step) -> u64 {
        let Self::Bucket(bucket, _) = self else { return 0 };
        for fault in &step.bucket_faults {
            bucket.fail(fault.at, fault.times, fault.how);
        }
        step.bucket_faults.len() as u64
    }

    /// From now on nothing can be written, by root neither.
    pub fn fail(&self) {
        match self {
            // A file where its directory was.
            Self::Folder(folder) => {
                let (there, away) = (folder.join("outputs"), folder.join("outputs-away"));
                std::fs::create_dir_all(&there).unwrap();
                std::fs::rename(&there, &away).unwrap();
                // A worker may make the directory anew in between; then it writes there, and that is moved back below.
                let _there_again = std::fs::write(&there, "no directory");
            }
            Self::Bucket(bucket, _) => {
                bucket.fail("", u32::MAX, How::Status(StatusCode::INTERNAL_SERVER_ERROR));
            }
        }
    }

    /// Nothing goes wrong any more.
    pub fn mend(&self) {
        match self {
            Self::Folder(folder) => mend_folder(folder),
            Self::Bucket(bucket, _) => bucket.mend(),
        }
    }

    /// The file that a row names, or why there is none and what is beside it.
    fn file(&self, uri: &str) -> Result<Vec<u8>, String> {
        match self {
            Self::Folder(_) => {
                let path = Url::parse(uri).unwrap().to_file_path().unwrap();
                std::fs::read(&path)
                    .map_err(|error| format!("{error}; beside it: {:?}", files_below(path.parent().unwrap())))
            }
            // The client encodes the `%` of the key once more for its URL.
            Self::Bucket(bucket, _) => {
                let object = uri.strip_prefix("s3:/").and_then(|path| bucket.find(&path.replace('%', "%25")));
                object.map(Vec::from).ok_or_else(|| "no such object".to_owned())
            }
        }
    }

    /// How many files, and uploads in parts, there are.
    fn count(&self) -> usize {
        match self {
            Self::Folder(folder) => files_below(&folder.join("outputs")).len(),
            Self::Bucket(bucket, _) => {
                let (objects, uploads) = bucket.left();
                objects.len() + uploads
            }
        }
    }
}

fn mend_folder(folder: &Path) {
    let (there, away) = (folder.join("outputs"), folder.join("outputs-away"));
    if !away.exists() {
        return;
    }
    if there.is_dir() {
        for from in files_below(&there) {
            let to = away.join(from.strip_prefix(&there).unwrap());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::rename(from, to).unwrap();
        }
        std::fs::remove_dir_all(&there).unwrap();
    } else {
        std::fs::remove_file(&there).unwrap();
    }
    std::fs::rename(&away, &there).unwrap();
}

impl World<'_> {
    /// Every recovered file is where its row says, whole, and the one that the provider offers for this item.
    pub async fn files_are_there(&self) {
        let sql = "SELECT concat_ws(' ', uri, sha256, size_bytes, provider, provider_job_id, provider_output_index, charge_id, output_index)
                   FROM stored_outputs WHERE id LIKE 'makegood:%'";
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let (mut named, mut hashes) = (BTreeSet::new(), BTreeSet::new());
        for line in lines(&self.pool, sql).await {
            let words: Vec<&str> = line.split(' ').collect();
            let bytes = match self.storage.file(words[0]) {
                Ok(bytes) => bytes,
                Err(why) => {
                    let left = "SELECT concat_ws(' ', orphan_id, lease_token, nth, path, begun_at, tried_at, swept_at) FROM makegood_uploads";
                    let notes = lines(&self.pool, left).await.join("\n  ");
                    let story = self.story(words[6], words[7].parse().unwrap()).await;
                    self.give_up(&format!(
                        "{line}: the file is not there: {why}\nnotes that are left:\n  {notes}\n{story}"
                    ));
                }
            };
            let hash = sha256(&bytes);
            if hash != words[1] || bytes.len().to_string() != words[2] {
                self.give_up(&format!("{line}: the file is another, {hash}, {} bytes", bytes.len()));
            }
            let nth: i64 = words[5].parse().unwrap();
            // Files that the provider does not number go in order to the items that still wait, and the platform
            // may have refunded an earlier one: any of the job's, but nobody else's.
            let any = words[4].starts_with("two-of-three");
            let mut is_offered = false;
            for nth in if any { 0..2 } else { nth..nth + 1 } {
                let url = file_url(&self.simulator.base_url(), words[3], words[4], nth);
                let offered = client.get(&url).send().await.unwrap().bytes().await.unwrap();
                is_offered |= sha256(&offered) == hash;
            }
            if !is_offered || !hashes.insert(hash) {
                self.give_up(&format!("{line}: not the file of this item, or another's too"));
            }
            named.insert(words[0].to_owned());
        }
        let unnamed = self.storage.count() - named.len();
        self.count(|tally| tally.unnamed += unnamed as u64);
    }
}

fn files_below(folder: &std::path::Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        // Nothing was recovered yet.
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
