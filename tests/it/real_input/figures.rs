//! The cost of a pass: items and questions a second, CPU for each item, memory, and the database's
//! share. Beside it the floor: the same rows written by plain SQL, and the same number of requests
//! sent by a plain client.
//!
//! Everything is measured from outside: `/proc` for the process, `pg_stat_database` for the
//! database, the simulated provider's count for the questions. On a busy machine the times are
//! upper bounds; CPU and memory hardly change.

#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use sqlx::Connection as _;

use super::seed::Size;
use super::{World, report};

/// Requests under way at once in the plain client.
const CONNECTIONS: usize = 64;

/// The resources that a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    cpu: Duration,
    peak_kib: u64,
}

/// Reads `/proc`; none once the process has exited.
fn used(id: u32) -> Option<Used> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let peak_kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // After the name in brackets: state is field 3, utime 14 and stime 15, in hundredths of a
    // second.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Used { cpu: Duration::from_millis(ticks * 10), peak_kib })
}

/// Measures one world of each size and prints a line for each, then the floor of the last.
pub async fn print(size: Size) {
    println!("binary {}", super::binary());
    let larger = Size { charges: size.charges * 2, orphans: size.orphans * 4, ..size };
    for size in [size, larger] {
        measure(size).await;
    }
}

async fn measure(size: Size) {
    let began = Instant::now();
    let world = World::new(size).await;
    println!("\n{} charges, seeded in {:.1} s", size.charges, began.elapsed().as_secs_f64());
    let (hits, busy) = (world.simulator.total_hits(), database_time(&world).await);
    let began = Instant::now();
    let mut run = world.makegood(&["run"]).start();
    let mut last = Used::default();
    while !run.has_ended() {
        last = run.id().and_then(used).unwrap_or(last);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = began.elapsed();
    let ended = run.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // PostgreSQL reports a session's times when it ends.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (hits, busy) = (world.simulator.total_hits() - hits, database_time(&world).await - busy);
    let claimed = report(&ended)["claimed"].as_u64().unwrap();
    let items = claimed as f64;
    println!(
        "  {claimed} items in {:.2} s: {:.0} items/s, {:.0} requests/s ({hits} in all)",
        took.as_secs_f64(),
        items / took.as_secs_f64(),
        hits as f64 / took.as_secs_f64()
    );
    println!(
        "  CPU {:.2} s: {:.2} ms an item; peak memory {:.1} MiB",
        last.cpu.as_secs_f64(),
        last.cpu.as_secs_f64() * 1000.0 / items,
        last.peak_kib as f64 / 1024.0
    );
    println!("  the database was busy for {:.2} s: {:.2} ms an item", busy / 1000.0, busy / items);

    let began = Instant::now();
    let again = world.pass().await;
    assert_eq!(again.code, Some(0), "{again:?}");
    println!("  a second run took {:.2} s", began.elapsed().as_secs_f64());

    let sql = raw_sql(&world).await;
    println!(
        "  floor: the same rows by plain SQL, 256 orphans a commit: {:.2} s, {:.2} ms an item",
        sql.as_secs_f64(),
        sql.as_secs_f64() * 1000.0 / items
    );
    let http = raw_http(&world, hits).await;
    println!(
        "  floor: {hits} plain requests over {CONNECTIONS} connections: {:.2} s, {:.0} requests/s",
        http.as_secs_f64(),
        hits as f64 / http.as_secs_f64()
    );
}

/// The execution time of all statements in this database so far, over all sessions, in
/// milliseconds.
async fn database_time(world: &World) -> f64 {
    let sql = "SELECT active_time FROM pg_stat_database WHERE datname = current_database()";
    sqlx::query_scalar(sql).fetch_one(&world.pool).await.unwrap()
}

/// Writes all that the pass wrote into tables of the same make, in commits of 256 orphans.
async fn raw_sql(world: &World) -> Duration {
    world
        .run(
            "CREATE SCHEMA floor;
             CREATE TABLE floor.orphans (LIKE makegood_orphans INCLUDING ALL); CREATE TABLE floor.resolutions (LIKE makegood_resolutions INCLUDING ALL);
             CREATE TABLE floor.refunds (LIKE makegood_refunds INCLUDING ALL); CREATE TABLE floor.charges (LIKE makegood_charges INCLUDING ALL);
             CREATE TABLE floor.recoveries (LIKE makegood_recoveries INCLUDING ALL); CREATE TABLE floor.events (LIKE makegood_orphan_events INCLUDING ALL);
             CREATE TABLE floor.answers (LIKE makegood_answers INCLUDING ALL); CREATE TABLE floor.ledger (LIKE ledger_entries INCLUDING ALL);
             CREATE TABLE floor.outputs (LIKE stored_outputs INCLUDING ALL); CREATE TABLE floor.balances (LIKE balances INCLUDING ALL);
             INSERT INTO floor.balances SELECT * FROM real_input.balances_before;
             ANALYZE;",
        )
        .await;
    let mut connection = sqlx::PgConnection::connect(&world.database.url).await.unwrap();
    let began = Instant::now();
    let replay = "DO $$
        DECLARE lo bigint; hi bigint;
        BEGIN
          FOR lo IN SELECT generate_series(0, (SELECT max(id) FROM makegood_orphans), 256) LOOP
            hi := lo + 256;
            CREATE TEMP TABLE batch ON COMMIT DROP AS SELECT id, charge_id, output_index FROM makegood_orphans WHERE id > lo AND id <= hi;
            INSERT INTO floor.orphans OVERRIDING SYSTEM VALUE SELECT o.* FROM makegood_orphans o JOIN batch USING (id);
            INSERT INTO floor.answers OVERRIDING SYSTEM VALUE SELECT a.* FROM makegood_answers a
              WHERE a.id IN (SELECT e.answer_id FROM makegood_orphan_events e JOIN batch b ON b.charge_id = e.charge_id AND b.output_index = e.output_index) ON CONFLICT DO NOTHING;
            INSERT INTO floor.charges SELECT DISTINCT c.* FROM makegood_charges c JOIN batch USING (charge_id) ON CONFLICT DO NOTHING;
            INSERT INTO floor.resolutions OVERRIDING SYSTEM VALUE SELECT r.* FROM makegood_resolutions r JOIN batch b USING (charge_id, output_index);
            INSERT INTO floor.refunds SELECT r.* FROM makegood_refunds r JOIN batch b USING (charge_id, output_index);
            INSERT INTO floor.ledger SELECT l.* FROM ledger_entries l JOIN batch b USING (charge_id, output_index) WHERE l.refund_id LIKE 'makegood:%';
            UPDATE floor.balances f SET credits = f.credits + d.credits
              FROM (SELECT l.account_id, l.bucket, sum(l.credits) AS credits FROM ledger_entries l JOIN batch b USING (charge_id, output_index)
                    WHERE l.refund_id LIKE 'makegood:%' GROUP BY 1, 2) d WHERE d.account_id = f.account_id AND d.bucket = f.bucket;
            INSERT INTO floor.outputs SELECT s.* FROM stored_outputs s JOIN batch b USING (charge_id, output_index) WHERE s.id LIKE 'makegood:%';
            INSERT INTO floor.recoveries OVERRIDING SYSTEM VALUE SELECT v.* FROM makegood_recoveries v JOIN batch b USING (charge_id, output_index);
            INSERT INTO floor.events OVERRIDING SYSTEM VALUE SELECT e.* FROM makegood_orphan_events e JOIN batch b USING (charge_id, output_index);
            COMMIT;
          END LOOP;
        END $$";
    sqlx::raw_sql(replay).execute(&mut connection).await.unwrap();
    began.elapsed()
}

/// Sends this many questions, one after the other on each of a few connections.
async fn raw_http(world: &World, requests: u64) -> Duration {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let base = world.simulator.base_url();
    let began = Instant::now();
    let mut answers = stream::iter(0..requests)
        .map(|nth| client.get(format!("{base}/replicate/v1/predictions/ok-x{nth}")).send())
        .buffer_unordered(CONNECTIONS);
    while let Some(answer) = answers.next().await {
        let body = answer.unwrap().bytes().await.unwrap();
        assert!(!body.is_empty());
    }
    began.elapsed()
}
