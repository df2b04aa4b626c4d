//! The workers' storage in a round: how it fails, and whether every file is there at the end.
//!
//! In one plan of two it is a directory, which disappears. In the other it is a bucket that speaks
//! S3 and fails: it answers 500, 403 and `SlowDown`, drops connections in the middle of a part,
//! carries a request out and drops the answer, or is slow. The test compares the files with what
//! the provider offers, byte by byte, without makegood.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hyper::StatusCode;
use sha2::{Digest as _, Sha256};
use url::Url;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::World;
use super::plan::{Step, to_a_bucket};
use super::server::lines;
use crate::binary::Makegood;
use crate::real_input::seed::file_url;
use crate::s3::bucket::{Bucket, How};

/// Where files go.
pub enum Storage {
    /// `outputs` in this folder.
    Folder(PathBuf),
    /// A bucket, its address, and the faults that its clients met.
    Bucket(Bucket, String, Arc<Struck>),
}

/// The faults that workers met at the bucket, counted on the way to them.
#[derive(Debug, Default)]
pub struct Struck {
    refused: AtomicU64,
    broke_off: AtomicU64,
}

impl Storage {
    /// The one of this seed.
    pub async fn of(seed: u64, folder: &Path) -> Self {
        if !to_a_bucket(seed) {
            return Self::Folder(folder.to_owned());
        }
        let bucket = Bucket::default();
        let struck = Arc::new(Struck::default());
        let endpoint = watched(bucket.serve().await, Arc::clone(&struck)).await;
        Self::Bucket(bucket, endpoint, struck)
    }

    /// How many requests were refused, and how many broke off.
    pub fn struck(&self) -> (u64, u64) {
        match self {
            Self::Folder(_) => (0, 0),
            Self::Bucket(_, _, struck) => {
                (struck.refused.load(Ordering::SeqCst), struck.broke_off.load(Ordering::SeqCst))
            }
        }
    }

    /// Points a run at it.
    pub fn given_to(&self, run: Makegood) -> Makegood {
        match self {
            Self::Folder(_) => run.env("MAKEGOOD__STORAGE__URL", "file:./outputs"),
            Self::Bucket(_, endpoint, _) => run
                .env("MAKEGOOD__STORAGE__URL", "s3://outputs/recovered")
                .env("AWS_ENDPOINT", endpoint)
                .env("AWS_ALLOW_HTTP", "true")
                .env("AWS_REGION", "eu-central-1")
                .env("AWS_ACCESS_KEY_ID", "id")
                .env("AWS_SECRET_ACCESS_KEY", "secret"),
        }
    }

    /// The fault of this step from its beginning.
    pub fn stumble(&self, step: &Step) {
        let Self::Bucket(bucket, _, _) = self else { return };
        for fault in &step.bucket_faults {
            bucket.fail(fault.at, fault.times, fault.how);
        }
    }

    /// From now on nothing can be written, not even by root.
    pub fn fail(&self) {
        match self {
            // A file where its directory was.
            Self::Folder(folder) => {
                let (there, away) = (folder.join("outputs"), folder.join("outputs-away"));
                std::fs::create_dir_all(&there).unwrap();
                std::fs::rename(&there, &away).unwrap();
                // A worker may make the directory anew in between; then it writes there, and that
                // is moved back below.
                let _there_again = std::fs::write(&there, "no directory");
            }
            Self::Bucket(bucket, _, _) => {
                bucket.fail("", u32::MAX, How::Status(StatusCode::INTERNAL_SERVER_ERROR));
            }
        }
    }

    /// Nothing goes wrong any more.
    pub fn mend(&self) {
        match self {
            Self::Folder(folder) => mend_folder(folder),
            Self::Bucket(bucket, _, _) => bucket.mend(),
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
            Self::Bucket(bucket, _, _) => {
                let object = uri.strip_prefix("s3:/").and_then(|path| bucket.find(&path.replace('%', "%25")));
                object.map(Vec::from).ok_or_else(|| "no such object".to_owned())
            }
        }
    }

    /// How many files, and uploads in parts, there are.
    fn count(&self) -> usize {
        match self {
            Self::Folder(folder) => files_below(&folder.join("outputs")).len(),
            Self::Bucket(bucket, _, _) => {
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

/// Forwards requests to the bucket at `endpoint`, and its answers. Counts injected error answers,
/// and connections that end without an answer. The bucket itself gives none of these answers.
async fn watched(endpoint: String, struck: Arc<Struck>) -> String {
    let to = endpoint.strip_prefix("http://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (to, struck) = (to.clone(), Arc::clone(&struck));
            tokio::spawn(async move {
                if let Ok(bucket) = TcpStream::connect(&to).await {
                    watch(client, bucket, &struck).await;
                }
            });
        }
    });
    at
}

async fn watch(client: TcpStream, bucket: TcpStream, struck: &Struck) {
    const INSTEAD: [&[u8]; 3] = [b"HTTP/1.1 500", b"HTTP/1.1 503", b"HTTP/1.1 403"];
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_bucket, mut to_bucket) = bucket.into_split();
    let asked = AtomicBool::new(false);
    let up = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            asked.store(true, Ordering::SeqCst);
            if to_bucket.write_all(&buffer[..count]).await.is_err() {
                // It broke off in the middle of the request. Its treatment of the answer shows
                // that.
                return std::future::pending().await;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from_bucket.read(&mut buffer).await {
            asked.store(false, Ordering::SeqCst);
            let instead = INSTEAD.iter().any(|words| buffer[..count].starts_with(words));
            struck.refused.fetch_add(u64::from(instead), Ordering::SeqCst);
            if to_client.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
        struck.broke_off.fetch_add(u64::from(asked.load(Ordering::SeqCst)), Ordering::SeqCst);
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

impl World<'_> {
    /// Every recovered file is where its row says, complete, and the one that the provider offers
    /// for this item. Returns the number of other files.
    pub async fn files_are_there(&self) -> u64 {
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
            // Files without an index go in order to the items that still wait, and the platform may
            // have refunded an earlier one. So any file of the job is right, and no other. The same
            // holds for a provider that offers another file each time.
            let any = words[4].starts_with("two-of-three") || words[4].starts_with("ok-lies");
            let mut is_offered = false;
            for nth in if any { 0..2 } else { nth..nth + 1 } {
                let url = file_url(&self.simulator.base_url(), words[3], words[4], nth);
                is_offered |= self.offered(&client, url).await == hash;
            }
            if !is_offered || !hashes.insert(hash) {
                self.give_up(&format!("{line}: not the file of this item, or another's too"));
            }
            named.insert(words[0].to_owned());
        }
        (self.storage.count() - named.len()) as u64
    }

    /// The hash of what the provider offers there: always the same, so it is asked once.
    async fn offered(&self, client: &reqwest::Client, url: String) -> String {
        if let Some(hash) = self.offers.lock().unwrap().get(&url) {
            return hash.clone();
        }
        let bytes = client.get(&url).send().await.unwrap().bytes().await.unwrap();
        let hash = sha256(&bytes);
        self.offers.lock().unwrap().insert(url, hash.clone());
        hash
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
