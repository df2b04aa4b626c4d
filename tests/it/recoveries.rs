//! Ten thousand recoveries of 1 KB to 2 GB by the built binary, killed in the middle. An experiment
//! with figures.
//!
//! Bodies are generated from a seed while they are sent, so the provider stores nothing. In a
//! directory, files are hashed from the disk and removed; the bucket keeps hashes only. Ignored by
//! default: see docs/testing.md.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use makegood::clock::Clock;
use sha2::{Digest, Sha256};

use crate::binary::{Makegood, makegood};
use crate::leftovers::stored;
use crate::s3::bucket::{Bucket, listen};
use crate::world::World;

/// How many files of which size. 5.5 GB in all.
const SIZES: [(u64, u64); 6] =
    [(9_600, 1 << 10), (300, 100 << 10), (70, 5 << 20), (20, 50 << 20), (9, 200 << 20), (1, 2 << 30)];
const PIECE: u64 = 1 << 20;

/// The size of the nth file: large ones in between, the largest after a third.
fn size(nth: u64) -> u64 {
    let mut places = SIZES.map(|(count, size)| (count, size));
    places.reverse();
    let mixed = nth.wrapping_mul(7_919) % 10_000;
    let mut from = 0;
    for (count, size) in places {
        from += count;
        if mixed < from {
            return size;
        }
    }
    1 << 10
}

/// A piece of a file: noise derived from file and position, so that a missing or repeated piece is
/// noticed.
fn piece(nth: u64, at: u64, length: u64) -> Bytes {
    let mut state =
        (nth + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (at + 1).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap() + 8);
    if at == 0 {
        bytes.extend_from_slice(b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41");
    }
    while (bytes.len() as u64) < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(usize::try_from(length).unwrap());
    bytes.into()
}

fn pieces(nth: u64) -> impl Iterator<Item = Bytes> + Send {
    let size = size(nth);
    (0..size.div_ceil(PIECE)).map(move |which| piece(nth, which, PIECE.min(size - which * PIECE)))
}

fn hash(nth: u64) -> String {
    let mut hash = Sha256::new();
    pieces(nth).for_each(|piece| hash.update(&piece));
    hex::encode(hash.finalize())
}

/// Answers about jobs and serves their files; counts what it sent.
async fn provider() -> (u16, Arc<AtomicU64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let port = listen(move |request| {
        let path = request.uri().path().to_owned();
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        let sent = Arc::clone(&counted);
        async move {
            if let Some(job) = path.strip_prefix("/jobs/") {
                let body = serde_json::json!({"url": format!("http://{host}/files/{job}")}).to_string();
                return Ok(Response::new(Full::new(Bytes::from(body)).boxed()));
            }
            let nth: u64 = path.strip_prefix("/files/").unwrap().parse().unwrap();
            let frames = pieces(nth).map(move |piece| {
                sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                Ok(Frame::data(piece))
            });
            let mut answer = Response::new(StreamBody::new(stream::iter(frames)).boxed());
            answer.headers_mut().insert("content-length", size(nth).into());
            Ok(answer)
        }
    })
    .await;
    (port, sent)
}

struct Run<'a> {
    world: &'a World,
    endpoint: Option<&'a str>,
}

impl Run<'_> {
    fn command(&self) -> Makegood {
        let run = makegood(&["run", "--output", "json"])
            .within(self.world.folder.path())
            .env("DATABASE_URL", &self.world.database.url)
            .env("MAKEGOOD__PROVIDERS__DIR", "providers")
            .env("MAKEGOOD__RECOVERY__ALLOW_LOOPBACK", "true")
            .env("MAKEGOOD_LOG", "warn");
        match self.endpoint {
            None => run.env("MAKEGOOD__STORAGE__URL", "file:./outputs"),
            Some(endpoint) => run
                .env("MAKEGOOD__STORAGE__URL", "s3://outputs/recovered")
                .env("AWS_ENDPOINT", endpoint)
                .env("AWS_ALLOW_HTTP", "true")
                .env("AWS_REGION", "eu-central-1")
                .env("AWS_ACCESS_KEY_ID", "id")
                .env("AWS_SECRET_ACCESS_KEY", "secret"),
        }
    }
}

/// Charges `from..to`, each with a job of its own number, three hours old.
async fn charges(world: &World, from: u64, to: u64) {
    let at = world.at(world.now() - Duration::from_hours(3));
    let mut sql = String::new();
    for nth in from..to {
        let _ = write!(
            sql,
            "INSERT INTO charges VALUES ('c{nth}', 'ada', 'p', 'n{nth}', 'mass', 'm', '{nth}', {at}, 0, 1, NULL);
             INSERT INTO charge_items VALUES ('c{nth}', 0, 1, NULL, NULL, NULL);"
        );
    }
    world.run(&sql).await;
}

async fn world(port: u16) -> World {
    let world = World::postgres().await;
    world.clock.set(Clock::System.now());
    world.balance("ada", 0, 0).await;
    let file = format!(
        "[provider]\nname = \"mass\"\nmax_concurrency = 64\noutput_hosts = [\"127.0.0.1\"]\n[recovery]\nmakes = [\"video\"]\n[ask]\n\
         request = \"GET http://127.0.0.1:{port}/jobs/{{job}}\"\nread = '{{verdict: \"succeeded\", outputs: [{{index: 0, url: .body.url}}]}}'\n"
    );
    std::fs::write(world.folder.path().join("providers/mass.toml"), file).unwrap();
    world
}

/// The most memory that a process ever had, in MiB.
fn peak(id: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<f64>().ok()? / 1024.0)
}

/// Runs to the end; how long it took, and its peak memory in MiB.
async fn measured(run: &Run<'_>) -> (f64, f64) {
    let began = Instant::now();
    let mut process = run.command().start();
    let id = process.id().unwrap();
    let mut most: f64 = 0.0;
    while !process.has_ended() {
        most = most.max(peak(id).unwrap_or(0.0));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = began.elapsed().as_secs_f64();
    let ended = process.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    (took, most)
}

fn hash_of_file(path: &Path) -> String {
    let mut file = std::fs::File::open(path).unwrap();
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = std::io::Read::read(&mut file, &mut buffer).unwrap();
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    hex::encode(hash.finalize())
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').take(1).collect()
}

async fn ten_thousand(into_bucket: bool) {
    let what = if into_bucket { "bucket" } else { "directory" };
    let (port, sent) = provider().await;
    let bucket = Bucket::forgetful();
    let endpoint = bucket.serve().await;
    let world = world(port).await;
    let run = Run { world: &world, endpoint: into_bucket.then_some(endpoint.as_str()) };
    let total: u64 = (0..10_000).map(size).sum();
    charges(&world, 0, 10_000).await;

    // Killed when about half of the bytes have come, large files under way.
    let mut killed = run.command().start();
    let begun = Instant::now();
    while sent.load(Ordering::Relaxed) < total / 2 {
        assert!(!killed.has_ended(), "it ended before it could be killed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    killed.kill();
    killed.ended().await;
    let killed_after = begun.elapsed().as_secs_f64();
    let done = world.number("SELECT count(*) AS v FROM stored_outputs").await;
    let noted = world.number("SELECT count(*) AS v FROM makegood_uploads").await;
    let left = if into_bucket {
        let (objects, uploads) = bucket.left();
        objects.len() + uploads
    } else {
        stored(&world).len()
    };
    let left = i64::try_from(left).unwrap() - done;
    println!("{what}: killed after {killed_after:.1} s, {done} settled, {noted} noted, {left} left over");
    assert!(noted > 0 && left > 0, "nothing was under way");

    world.run("UPDATE makegood_orphans SET leased_until = now() - interval '1 second' WHERE leased_until IS NOT NULL").await;
    world.run("UPDATE makegood_provider_shares SET version = version + 1, holdings = '[]'").await;
    let (took, most) = measured(&run).await;
    println!(
        "{what}: the next pass did the other {} in {took:.1} s, peak memory {most:.0} MiB, load {}",
        10_000 - done,
        load()
    );
    let waiting = "SELECT coalesce(o.reason, '-') || ' ' || coalesce(e.detail, '-') || ' x ' || count(*) AS v
                   FROM makegood_orphans o
                   LEFT JOIN makegood_orphan_events e ON e.charge_id = o.charge_id AND e.output_index = o.output_index
                   WHERE o.state <> 'recovered' GROUP BY o.reason, e.detail ORDER BY count(*) DESC LIMIT 10";
    for row in world.texts(waiting).await {
        println!("{what}: not home: {row}");
    }
    assert_eq!(world.number("SELECT count(*) AS v FROM stored_outputs").await, 10_000);
    assert_eq!(world.number("SELECT count(*) AS v FROM makegood_uploads WHERE swept_at IS NULL").await, 0);

    let recorded = world
        .texts(
            "SELECT charge_id || ' ' || sha256 || ' ' || size_bytes || ' ' || uri AS v FROM stored_outputs",
        )
        .await;
    let hashes: BTreeMap<String, String> = bucket.hashes();
    for row in &recorded {
        let [charge, sha256, bytes, uri] = row.splitn(4, ' ').collect::<Vec<_>>().try_into().unwrap();
        let nth: u64 = charge[1..].parse().unwrap();
        assert_eq!((sha256, bytes), (hash(nth).as_str(), size(nth).to_string().as_str()), "{charge}");
        let there = if into_bucket {
            hashes[&uri.replace("s3://", "/")].clone()
        } else {
            hash_of_file(&url::Url::parse(uri).unwrap().to_file_path().unwrap())
        };
        assert_eq!(there, sha256, "{charge}");
    }
    if into_bucket {
        let (objects, uploads) = bucket.left();
        assert_eq!((objects.len(), uploads), (10_000, 0));
    } else {
        assert_eq!(stored(&world).len(), 10_000, "no temporary file is left");
        std::fs::remove_dir_all(world.folder.path().join("outputs")).unwrap();
    }
    println!("{what}: 10000 files, {:.1} GB, every hash right, nothing left over", total as f64 / 1e9);
    world.books_balance().await;
}

/// One file of 2 GB alone, small files alone, and the same large file by `curl | sha256sum`.
async fn figures(into_bucket: bool) {
    let what = if into_bucket { "bucket" } else { "directory" };
    let (port, _) = provider().await;
    let bucket = Bucket::forgetful();
    let endpoint = bucket.serve().await;
    let large = (0..10_000).find(|nth| size(*nth) == 2 << 30).unwrap();
    for round in 1..=2 {
        let one = world(port).await;
        charges(&one, large, large + 1).await;
        let (took, most) =
            measured(&Run { world: &one, endpoint: into_bucket.then_some(endpoint.as_str()) }).await;
        println!(
            "{what}, round {round}: 2 GB in {took:.1} s, {:.0} MB/s, peak memory {most:.0} MiB, load {}",
            2147.5 / took,
            load()
        );
        assert_eq!(one.texts("SELECT sha256 AS v FROM stored_outputs").await, [hash(large)]);
        drop(one);
        let began = Instant::now();
        let script = format!("curl -s http://127.0.0.1:{port}/files/{large} | sha256sum");
        let said = tokio::process::Command::new("sh").args(["-c", &script]).output().await.unwrap();
        let took = began.elapsed().as_secs_f64();
        assert!(String::from_utf8(said.stdout).unwrap().starts_with(&hash(large)));
        println!(
            "curl | sha256sum, round {round}: 2 GB in {took:.1} s, {:.0} MB/s, load {}",
            2147.5 / took,
            load()
        );
    }
    let small = world(port).await;
    let at = small.at(small.now() - Duration::from_hours(3));
    let mut sql = String::new();
    let all: Vec<u64> = (0..10_000).filter(|nth| size(*nth) == 1 << 10).take(5_000).collect();
    for nth in &all {
        let _ = write!(
            sql,
            "INSERT INTO charges VALUES ('c{nth}', 'ada', 'p', 'n{nth}', 'mass', 'm', '{nth}', {at}, 0, 1, NULL);
             INSERT INTO charge_items VALUES ('c{nth}', 0, 1, NULL, NULL, NULL);"
        );
    }
    small.run(&sql).await;
    let (took, most) =
        measured(&Run { world: &small, endpoint: into_bucket.then_some(endpoint.as_str()) }).await;
    println!(
        "{what}: {} files of 1 KiB in {took:.1} s, {:.0} a second, peak memory {most:.0} MiB, load {}",
        all.len(),
        all.len() as f64 / took,
        load()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and 6 GB of disk, of a release build best"]
async fn ten_thousand_recoveries_into_a_directory() {
    ten_thousand(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and 6 GB of memory, of a release build best"]
async fn ten_thousand_recoveries_into_a_bucket() {
    ten_thousand(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures, of a release build"]
async fn figures_of_recoveries() {
    for into_bucket in [false, true] {
        figures(into_bucket).await;
    }
}
