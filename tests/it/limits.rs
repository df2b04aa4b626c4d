//! The limits of the database. A transient failure is retried as a whole transaction. Any other
//! failure ends the pass with one clear message and nothing half done, and the next pass completes
//! the work.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod again;
mod connections;
mod doubt;
mod no_writes;

use crate::binary::{Makegood, makegood};
use crate::world::World;

/// Something about the world's own database.
async fn alter_database(world: &World, what: &str) {
    world
        .run(&format!(
            "BEGIN READ WRITE;
             DO $do$ BEGIN EXECUTE format('ALTER DATABASE %I {what}', current_database()); END $do$;
             COMMIT"
        ))
        .await;
}

/// The built binary on the world's database, by `url`.
fn run(world: &World, url: &str) -> Makegood {
    makegood(&["run"])
        .within(world.folder.path())
        .env("DATABASE_URL", url)
        .env("MAKEGOOD__PROVIDERS__DIR", "providers")
        .env("MAKEGOOD__STORAGE__URL", "file:./outputs")
        .env("MAKEGOOD__RECOVERY__ALLOW_LOOPBACK", "true")
}

/// Two charges at the real time: one to be refunded, and one whose file is offered.
async fn two_charges(world: &World) {
    world.clock.set(makegood::clock::Clock::System.now());
    world.balance("ada", 0, 0).await;
    world.charge("c1").job("failed-1").insert().await;
    world.charge("c2").job("ok-2").insert().await;
}

/// Neither was changed visibly: no credit, no output, no resolution.
async fn nothing_half_done(world: &World) {
    for table in ["ledger_entries", "stored_outputs", "makegood_refunds", "makegood_resolutions"] {
        let count = format!("SELECT count(*) AS v FROM {table}");
        assert_eq!(world.number(&count).await, 0, "{table}");
    }
    assert_eq!(world.balance_of("ada").await, (0, 0));
}

/// Both are made good, once, and nothing is left over in the storage.
async fn all_made_good(world: &World) {
    assert_eq!(world.fate("c1", 0).await, "refunded provider_error");
    assert_eq!(world.fate("c2", 0).await, "recovered output_available");
    assert_eq!(world.balance_of("ada").await, (0, 10));
    let left = crate::leftovers::stored(world);
    assert_eq!(left.len(), 1, "{left:?}");
    let named = world.texts("SELECT uri AS v FROM stored_outputs").await;
    assert!(named.len() == 1 && named[0].ends_with(&left[0]), "{named:?} {left:?}");
    world.books_balance().await;
}
