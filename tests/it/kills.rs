//! Kills the built binary at every point of a copy, on PostgreSQL, into a local directory and into
//! a bucket.
//!
//! Each point is reached for certain: the bucket holds back a request, the provider holds back a
//! file, or a lock blocks the settle. After the kill and the expiry of its lease, one more pass
//! recovers the file, and nothing of the killed copy is left.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::Response;
use hyper::body::Frame;
use makegood::clock::Clock;
use makegood::demo::simulator::Canned;
use sha2::{Digest, Sha256};

use crate::binary::{Makegood, makegood};
use crate::database::as_least_privileged;
use crate::leftovers::stored;
use crate::s3::bucket::{Bucket, How, listen};
use crate::s3::film;
use crate::world::{Sql, World};

/// A world at the real time, with one charge whose job is done and has one file of `length` bytes.
/// `held`: the file stops after this many bytes as long as the flag is set.
async fn world_with_a_file(
    length: usize,
    held: Option<usize>,
) -> (World, Bytes, std::sync::Arc<std::sync::atomic::AtomicBool>) {
    let world = World::postgres().await;
    world.clock.set(Clock::System.now());
    world.balance("ada", 0, 0).await;
    world.charge("c1").job("ok-1").insert().await;
    let file = Bytes::from(film(length));
    let holds = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(held.is_some()));
    let (served, holding) = (file.clone(), std::sync::Arc::clone(&holds));
    let port = listen(move |_| {
        let stops = holding.load(std::sync::atomic::Ordering::SeqCst);
        let first = held.filter(|_| stops).map_or(served.len(), |held| held);
        let pieces = stream::iter([Ok::<_, std::io::Error>(Frame::data(served.slice(..first)))]);
        let rest = stream::once(async move {
            if stops {
                std::future::pending::<()>().await;
            }
            Ok(Frame::data(Bytes::new()))
        });
        let mut answer = Response::new(StreamBody::new(pieces.chain(rest)));
        answer.headers_mut().insert("content-length", served.len().into());
        std::future::ready(Ok(answer))
    })
    .await;
    let url = format!("http://127.0.0.1:{port}/film.mp4");
    let answer = serde_json::json!({"id": "ok-1", "status": "succeeded", "output": url, "error": null});
    world.simulator.set_answer("ok-1", Canned::json(200, &answer));
    (world, file, holds)
}

async fn run(world: &World, storage: Option<&str>) -> Makegood {
    let run = makegood(&["run"])
        .within(world.folder.path())
        .env("DATABASE_URL", &as_least_privileged(&world.database).await)
        .env("MAKEGOOD__PROVIDERS__DIR", "providers")
        .env("MAKEGOOD__RECOVERY__ALLOW_LOOPBACK", "true");
    match storage {
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

/// The lease runs out, and passes come until one has the file.
async fn next_pass(world: &World, storage: Option<&str>) {
    world.run("UPDATE makegood_orphans SET leased_until = now() - interval '1 second' WHERE leased_until IS NOT NULL").await;
    world.run("UPDATE makegood_provider_shares SET version = version + 1, holdings = '[]'").await;
    for _ in 0..50 {
        let ended = run(world, storage).await.output().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        if world.fate("c1", 0).await == "recovered output_available" {
            return;
        }
        // The database may not have noticed yet that the killed one is gone.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never brought home: {}", world.fate("c1", 0).await);
}

/// The file is recorded once with its hash, and all notes are of what was removed.
async fn came_home(world: &World, file: &Bytes, point: &str) {
    assert_eq!(
        world.texts("SELECT sha256 AS v FROM stored_outputs").await,
        [hex::encode(Sha256::digest(file))],
        "{point}"
    );
    assert_eq!(
        world.number("SELECT count(*) AS v FROM makegood_uploads WHERE swept_at IS NULL").await,
        0,
        "{point}"
    );
    world.books_balance().await;
}

/// Holds every settle that brings something home, until it is dropped.
async fn locked(world: &World) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let Sql::Postgres(pool) = &world.sql else { panic!("PostgreSQL is meant") };
    let mut lock = pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE stored_outputs IN SHARE MODE").execute(&mut *lock).await.unwrap();
    lock
}

#[tokio::test]
async fn p16_killed_at_every_step_of_a_write_into_a_bucket() {
    for (length, step, objects, uploads) in [
        (1 << 10, "PUT ", 0, 0),
        (17 << 20, "POST uploads", 0, 0),
        (17 << 20, "PUT partNumber=1", 0, 1),
        (17 << 20, "PUT partNumber=3", 0, 1),
        (17 << 20, "POST uploadId", 0, 1),
    ] {
        let (world, file, _) = world_with_a_file(length, None).await;
        let bucket = Bucket::default();
        let endpoint = bucket.serve().await;
        bucket.fail(step, 1, How::Hold);
        let mut killed = run(&world, Some(&endpoint)).await.start();
        bucket.held().await;
        killed.kill();
        killed.ended().await;
        let left = bucket.left();
        assert_eq!((left.0.len(), left.1), (objects, uploads), "{step}");
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_uploads").await, 1, "{step}");
        bucket.mend();
        next_pass(&world, Some(&endpoint)).await;
        let left = bucket.left();
        assert_eq!((left.0.len(), left.1), (1, 0), "{step}: {left:?}");
        assert!(bucket.bytes(&left.0[0].0) == file, "{step}");
        came_home(&world, &file, step).await;
    }
}

#[tokio::test]
async fn p16_killed_in_the_middle_of_a_file_and_between_file_and_settle() {
    for (point, storage) in [("midway", false), ("unsettled", false), ("unsettled", true)] {
        let (world, file, holds) = world_with_a_file(17 << 20, (point == "midway").then_some(16 << 20)).await;
        let bucket = Bucket::default();
        let endpoint = bucket.serve().await;
        let storage = storage.then_some(endpoint.as_str());
        let lock = if point == "unsettled" { Some(locked(&world).await) } else { None };
        let mut killed = run(&world, storage).await.start();
        let there = || match storage {
            None if point == "midway" => stored(&world).iter().any(|name| name.ends_with(".mp4#1")),
            None => stored(&world).iter().any(|name| !name.contains('#')),
            Some(_) => bucket.left().0.len() == 1,
        };
        while !there() {
            assert!(!killed.has_ended(), "{point}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        killed.kill();
        killed.ended().await;
        holds.store(false, std::sync::atomic::Ordering::SeqCst);
        drop(lock);
        assert!(there(), "{point}: what a kill leaves");
        assert_eq!(world.number("SELECT count(*) AS v FROM stored_outputs").await, 0, "{point}");
        next_pass(&world, storage).await;
        if storage.is_some() {
            let left = bucket.left();
            assert_eq!((left.0.len(), left.1), (1, 0), "{point}: {left:?}");
            assert!(bucket.bytes(&left.0[0].0) == file, "{point}");
        } else {
            let left = stored(&world);
            assert_eq!(left.len(), 1, "{point}: {left:?}");
            assert!(std::fs::read(world.folder.path().join("outputs").join(&left[0])).unwrap() == file);
        }
        came_home(&world, &file, point).await;
    }
}
