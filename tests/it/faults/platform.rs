//! The platform around makegood, which goes on charging, storing late outputs and refunding by
//! itself.
//!
//! All of it is plain SQL that may be sent twice without harm, because the server may be restarted
//! during a statement. The expected results are written into the schema `faults`, which makegood
//! never reads. The database's clock is the test's: `clock_timestamp()` is found in that schema
//! first, and the test sets it. The real clock (`pg_catalog`) tells which came first, an action of
//! the platform or a refund: makegood's own timestamps come from a clock that moves, and may be
//! minutes early.

use std::time::Duration;

use sqlx::PgPool;

use super::answers::Lie;
use super::plan::{ACCOUNTS, NewCharge, Own};
use super::server::{ROLE, lines, number, run};

/// A job's result, and the expected end of its items if the platform does not act.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub name: &'static str,
    weight: u64,
    provider: &'static str,
    job: Job,
    /// One for each item: how its orphan has to end.
    wants: &'static [&'static str],
}

#[derive(Clone, Copy, Debug)]
enum Job {
    None,
    /// One for all items.
    One(&'static str),
    /// One for each item.
    Each(&'static [&'static str]),
    /// The provider says that it runs; some steps later it ends like this.
    Slow(&'static str),
    /// Stored by the platform, and linked to nothing.
    Unlinked(&'static str),
    /// Every question is answered otherwise than the one before.
    Lies(Lie),
}

const RECOVERED: &str = "recovered";
const REFUNDED: &str = "refunded";
/// Refunded, or closed because the user had cancelled.
const GONE: &str = "refunded or closed";

/// One of both, and which of them depends on the question that counted.
const EITHER: &str = "recovered or refunded";

/// A provider without a server.
pub const OFFLINE: &str = "offline";

const fn kind(
    name: &'static str,
    weight: u64,
    provider: &'static str,
    job: Job,
    wants: &'static [&'static str],
) -> Kind {
    Kind { name, weight, provider, job, wants }
}

pub const KINDS: &[Kind] = &[
    kind("a small file", 3, "replicate", Job::One("ok"), &[RECOVERED]),
    // Larger than what can be written where the disk is full.
    kind("a file", 4, "replicate", Job::One("ok-size=2000"), &[RECOVERED]),
    // In two parts, where the storage is a bucket.
    kind("a large file", 2, "replicate", Job::One("ok-size=9000000"), &[RECOVERED]),
    kind("a batch", 4, "fal", Job::One("ok4-size=2000"), &[RECOVERED; 4]),
    kind("a pair", 3, "veo-gemini", Job::One("ok2"), &[RECOVERED; 2]),
    kind("two of three", 3, "fal", Job::One("two-of-three"), &[RECOVERED, RECOVERED, REFUNDED]),
    kind(
        "jobs of their own",
        4,
        "replicate",
        Job::Each(&["ok-size=2000", "failed", "ok"]),
        &[RECOVERED, REFUNDED, RECOVERED],
    ),
    kind("failed", 5, "replicate", Job::One("failed"), &[REFUNDED]),
    kind("a failed batch", 5, "fal", Job::One("failed"), &[REFUNDED; 4]),
    kind("unsafe", 3, "veo-gemini", Job::One("safety"), &[REFUNDED]),
    kind("unknown", 3, "fal", Job::One("unknown"), &[REFUNDED]),
    kind("never submitted", 2, "fal", Job::None, &[REFUNDED]),
    kind("files gone", 2, "replicate", Job::One("gone"), &[GONE]),
    kind("slow", 3, "replicate", Job::Slow("ok-size=2000"), &[RECOVERED]),
    kind("endless", 2, "fal", Job::One("running"), &[REFUNDED]),
    kind("file unreachable", 1, "replicate", Job::One("file-down"), &[REFUNDED]),
    kind("provider unreachable", 1, OFFLINE, Job::One("failed"), &[REFUNDED]),
    kind("unlinked", 3, "veo-gemini", Job::Unlinked("ok"), &["relinked"]),
    kind("failed, or not", 3, "replicate", Job::Lies(Lie::FailedOrNot), &[EITHER]),
    kind("there, or unknown", 3, "replicate", Job::Lies(Lie::ThereOrUnknown), &[EITHER]),
    kind("another file each time", 3, "replicate", Job::Lies(Lie::AnotherFile), &[EITHER]),
];

/// Kinds with their weights, to draw from.
pub fn weights() -> Vec<(u64, usize)> {
    KINDS.iter().enumerate().map(|(nth, kind)| (kind.weight, nth)).collect()
}

/// A charge that was made.
#[derive(Clone, Debug)]
pub struct Made {
    pub id: String,
    pub kind: &'static Kind,
    /// A job that the provider says is running, and the step in which it ends.
    pub slow: Option<(String, usize)>,
    /// The jobs that it was bought from.
    pub jobs: Vec<String>,
    pub lie: Option<Lie>,
    /// Everything was drawn from this bucket; none: from both.
    bucket: Option<&'static str>,
}

impl Kind {
    pub const fn provider(&self) -> &'static str {
        self.provider
    }
}

/// The clock. It is there before makegood's tables, so that what is made with them
/// (`makegood_store_output`) goes by it too.
pub fn clock(database: &str, skew: i64) -> String {
    format!(
        "CREATE SCHEMA faults;
         CREATE TABLE faults.clock (minutes bigint NOT NULL, wrong_by bigint NOT NULL);
         INSERT INTO faults.clock VALUES ({skew}, 0);
         CREATE FUNCTION faults.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
             AS 'SELECT pg_catalog.clock_timestamp() + (SELECT minutes + wrong_by FROM faults.clock) * interval ''1 minute''';
         GRANT USAGE ON SCHEMA faults TO {ROLE};
         GRANT SELECT ON faults.clock TO {ROLE};
         ALTER DATABASE {database} SET search_path = public, faults, pg_catalog"
    )
}

/// The accounts, and what the books are held against.
pub fn begin() -> String {
    let accounts: Vec<String> = (0..ACCOUNTS).map(|nth| format!("('account-{nth}', 'user')")).collect();
    format!(
        "CREATE TABLE faults.items (charge_id text, output_index bigint, kind text, want text, late_by bigint, touched boolean NOT NULL DEFAULT false,
                                    PRIMARY KEY (charge_id, output_index));
         -- A deed: its transaction's begin, its last word before the commit, and when it was to be seen by others.
         CREATE TABLE faults.visible (charge_id text, output_index bigint, what text, began timestamptz NOT NULL, noted timestamptz NOT NULL,
                                      seen timestamptz, PRIMARY KEY (charge_id, output_index, what));
         CREATE TABLE faults.opening (account_id text, bucket text, credits bigint);
         -- When passes began that nothing happened to.
         CREATE TABLE faults.calm (at timestamptz);
         CREATE TABLE faults.away (provider text PRIMARY KEY);
         -- A refund: when its transaction began, which is before settle's last look.
         CREATE TABLE faults.refunds (charge_id text, output_index bigint, began timestamptz NOT NULL);
         CREATE FUNCTION faults.note_refund() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN
             INSERT INTO faults.refunds VALUES (NEW.charge_id, NEW.output_index, pg_catalog.transaction_timestamp());
             RETURN NULL;
         END $$;
         CREATE TRIGGER faults_refund AFTER INSERT ON makegood_refunds FOR EACH ROW EXECUTE FUNCTION faults.note_refund();
         -- Which worker claimed an orphan last.
         CREATE TABLE faults.claims (orphan_id bigint PRIMARY KEY, token bigint NOT NULL, worker text);
         CREATE FUNCTION faults.note_claim() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN
             INSERT INTO faults.claims VALUES (NEW.id, NEW.lease_token, current_setting('faults.worker', true))
             ON CONFLICT (orphan_id) DO UPDATE SET token = excluded.token, worker = excluded.worker;
             RETURN NULL;
         END $$;
         CREATE TRIGGER faults_claim AFTER UPDATE ON makegood_orphans FOR EACH ROW
             WHEN (NEW.lease_token <> OLD.lease_token) EXECUTE FUNCTION faults.note_claim();
         INSERT INTO accounts VALUES {};
         INSERT INTO balances SELECT a.id, b.bucket, 100000 FROM accounts a, (VALUES ('subscription'), ('wallet')) AS b(bucket);
         INSERT INTO faults.opening SELECT * FROM balances;",
        accounts.join(", ")
    )
}

/// The items that this worker has claimed and not given back: charge, item and token.
pub async fn claimed_by(pool: &PgPool, worker: &str) -> Vec<String> {
    let sql = format!(
        "SELECT concat_ws(' ', o.charge_id, o.output_index, o.lease_token) FROM makegood_orphans o
         JOIN faults.claims c ON c.orphan_id = o.id AND c.token = o.lease_token AND c.worker = '{worker}'
         WHERE o.leased_until IS NOT NULL AND o.state IN ('open', 'held') ORDER BY o.id"
    );
    lines(pool, &sql).await
}

/// The database is another from now on, with another clock.
pub async fn fail_over(pool: &PgPool, hours: i64) {
    run(pool, &format!("UPDATE faults.clock SET wrong_by = {}", hours * 60)).await;
}

/// A provider is down. Items that reach `refund_by` meanwhile may be refunded although the job
/// succeeded.
pub async fn is_away(pool: &PgPool, provider: &str) {
    run(
        pool,
        &format!(
            "INSERT INTO faults.away VALUES ('{provider}') ON CONFLICT DO NOTHING;
             UPDATE faults.items i SET touched = true FROM charges c
             WHERE c.id = i.charge_id AND c.provider = '{provider}' AND c.charged_at < clock_timestamp() - interval '12 hours'"
        ),
    )
    .await;
}

/// Moves the database's clock.
pub async fn leap(pool: &PgPool, minutes: i64) {
    // Sent twice, it would leap twice: so the goal is named, not the way.
    let goal = number(pool, "SELECT minutes FROM faults.clock").await + minutes;
    run(pool, &format!("UPDATE faults.clock SET minutes = greatest(minutes, {goal})")).await;
}

/// Makes a charge: the deduction in balance and ledger, the rows, and for some an output.
pub async fn charge(pool: &PgPool, id: String, step: usize, new: NewCharge) -> Made {
    let kind = &KINDS[new.kind];
    let job_of = |fate: &str, part: &str| {
        makegood::demo::simulator::job_id(
            if kind.provider == OFFLINE { "replicate" } else { kind.provider },
            fate,
            &format!("{id}{part}"),
        )
    };
    let job = match kind.job {
        Job::One(fate) | Job::Slow(fate) | Job::Unlinked(fate) => Some(job_of(fate, "")),
        Job::Lies(_) => Some(job_of("ok-lies", "")),
        Job::None | Job::Each(_) => None,
    };
    let text = |text: Option<&String>| text.map_or_else(|| "NULL".to_owned(), |text| format!("'{text}'"));
    let prices: Vec<i64> = (7..).take(kind.wants.len()).collect();
    let total: i64 = prices.iter().sum();
    let subscription = total * new.subscription / 100;
    let wallet = total - subscription;
    let account = format!("account-{}", new.account);
    // Young enough to be finished inside its window.
    let age = if matches!(kind.job, Job::Slow(_)) { new.age.min(120) } else { new.age };
    let mut sql = format!(
        "INSERT INTO charges SELECT '{id}', '{account}', 'p-{id}', 'n-{id}', '{}', 'a/model', {}, clock_timestamp() - interval '{age} minutes', {subscription}, {wallet}, NULL
         ON CONFLICT DO NOTHING;
         WITH taken AS (INSERT INTO ledger_entries SELECT 'taken:{id}:' || bucket, '{account}', bucket, -credits, 'charge', '{id}', NULL, NULL, clock_timestamp()
                        FROM (VALUES ('subscription', {subscription}), ('wallet', {wallet})) AS d(bucket, credits) WHERE credits > 0
                        ON CONFLICT DO NOTHING RETURNING account_id, bucket, credits)
         UPDATE balances b SET credits = b.credits + taken.credits FROM taken WHERE b.account_id = taken.account_id AND b.bucket = taken.bucket;",
        kind.provider,
        text(job.as_ref())
    );
    let mut jobs: Vec<String> = job.iter().cloned().collect();
    for (nth, (price, want)) in prices.iter().zip(kind.wants).enumerate() {
        let own = match kind.job {
            Job::Each(fates) => Some(job_of(fates[nth], &format!("-{nth}"))),
            Job::None | Job::One(_) | Job::Slow(_) | Job::Unlinked(_) | Job::Lies(_) => None,
        };
        jobs.extend(own.clone());
        let more = format!(
            "INSERT INTO charge_items VALUES ('{id}', {nth}, {price}, {}, NULL, NULL) ON CONFLICT DO NOTHING;
             INSERT INTO faults.items VALUES ('{id}', {nth}, '{}', '{want}', {age}) ON CONFLICT DO NOTHING;",
            text(own.as_ref()),
            kind.name
        );
        sql += &more;
    }
    if let (Job::Unlinked(_), Some(job)) = (kind.job, &job) {
        let more = format!(
            "INSERT INTO stored_outputs VALUES ('lost:{id}', NULL, NULL, '{}', '{job}', 0, 'p-{id}', 'n-{id}', 'file:///lost', 'image/png', 3, 'lost-{id}', clock_timestamp())
             ON CONFLICT DO NOTHING;",
            kind.provider
        );
        sql += &more;
    }
    run(pool, &sql).await;
    let slow = match (kind.job, job) {
        (Job::Slow(_), Some(job)) => Some((job, step + 1 + new.finished_after)),
        _ => None,
    };
    let bucket = match (subscription, wallet) {
        (0, _) => Some("wallet"),
        (_, 0) => Some("subscription"),
        _ => None,
    };
    let lie = if let Job::Lies(lie) = kind.job { Some(lie) } else { None };
    Made { id, kind, slow, jobs, lie, bucket }
}

/// For so long the platform holds balances now and then.
pub const HELD: Duration = Duration::from_millis(400);

/// When an action's transaction began, and now, just before its commit. The commit is between the
/// two, or a moment later.
const NOTED: &str = "pg_catalog.transaction_timestamp(), pg_catalog.clock_timestamp()";

/// The action on an item is committed, and visible to every snapshot from now on.
async fn seen(pool: &PgPool, id: &str, nth: usize) {
    run(
        pool,
        &format!(
            "UPDATE faults.visible SET seen = pg_catalog.clock_timestamp() WHERE charge_id = '{id}' AND output_index = {nth} AND seen IS NULL"
        ),
    )
    .await;
}

/// Does something to an item of `made`, as a webhook or a person would: first it looks whether that
/// is needed.
pub async fn act(pool: &PgPool, made: &Made, what: Own, item: usize) {
    let (id, nth) = (&made.id, item % made.kind.wants.len());
    let touch =
        format!("UPDATE faults.items SET touched = true WHERE charge_id = '{id}' AND output_index = {nth};");
    let no_refund = format!(
        "NOT EXISTS (SELECT 1 FROM ledger_entries l WHERE l.kind = 'refund' AND l.charge_id = '{id}' AND l.output_index = {nth})"
    );
    let no_output = format!(
        "NOT EXISTS (SELECT 1 FROM stored_outputs s WHERE s.charge_id = '{id}' AND s.output_index = {nth})"
    );
    match what {
        // There, only the hash tells which of the job's files belongs to which item, and this one
        // has none.
        Own::Store | Own::StoreUnderLock if made.kind.name == "two of three" => {}
        Own::StoreUnderLock => {
            run(pool, &touch).await;
            // Its result is recorded in the same transaction: `stored` promises that nothing will
            // be refunded.
            run(
                pool,
                &format!(
                    "WITH said AS (
                         SELECT makegood_store_output('late:{id}:{nth}', '{id}', {nth}, 'file:///late', 'image/png', 3, encode(sha256('late-{id}-{nth}'::bytea), 'hex')) AS word
                         FROM charges c JOIN charge_items i ON i.charge_id = c.id AND i.output_index = {nth}
                         WHERE c.id = '{id}' AND coalesce(i.provider_job_id, c.provider_job_id) IS NOT NULL AND {no_output} AND {no_refund}
                           AND NOT EXISTS (SELECT 1 FROM stored_outputs s WHERE s.id = 'lost:{id}'))
                     INSERT INTO faults.visible SELECT '{id}', {nth}, 'kept', {NOTED} FROM said WHERE word = 'stored'
                     ON CONFLICT DO NOTHING"
                ),
            )
            .await;
        }
        Own::Store => {
            run(pool, &touch).await;
            run(pool, &format!(
                "WITH kept AS (INSERT INTO stored_outputs
                 SELECT 'late:{id}:{nth}', '{id}', {nth}, c.provider, coalesce(i.provider_job_id, c.provider_job_id),
                        CASE WHEN i.provider_job_id IS NULL THEN {nth} ELSE 0 END, c.project_id, c.node_id, 'file:///late',
                        'image/png', 3, 'late-{id}-{nth}', clock_timestamp()
                 FROM charges c JOIN charge_items i ON i.charge_id = c.id AND i.output_index = {nth}
                 WHERE c.id = '{id}' AND coalesce(i.provider_job_id, c.provider_job_id) IS NOT NULL AND {no_output} AND {no_refund}
                   AND NOT EXISTS (SELECT 1 FROM stored_outputs s WHERE s.id = 'lost:{id}')
                 ON CONFLICT DO NOTHING RETURNING 1)
                 INSERT INTO faults.visible SELECT '{id}', {nth}, 'output', {NOTED} FROM kept ON CONFLICT DO NOTHING"
            )).await;
            seen(pool, id, nth).await;
        }
        Own::Refund | Own::RefundUnderLock => {
            // To the only bucket that the charge drew from: with two, only makegood knows what is
            // left of each.
            let Some(bucket) = made.bucket else { return };
            run(pool, &touch).await;
            // Each statement of one message sees what was committed before it, and all are one
            // transaction.
            let (lock, word) = if matches!(what, Own::RefundUnderLock) {
                let account = format!("(SELECT account_id FROM charges WHERE id = '{id}')");
                let lock = format!("SELECT 1 FROM balances WHERE bucket = '{bucket}' AND account_id = {account} FOR UPDATE;");
                (lock, "given")
            } else {
                (String::new(), "refund")
            };
            let sql = format!(
                "{lock}
                 WITH given AS (INSERT INTO ledger_entries
                     SELECT 'own:{id}:{nth}', c.account_id, '{bucket}', i.credits, 'refund', '{id}', {nth}, NULL, clock_timestamp()
                     FROM charges c JOIN charge_items i ON i.charge_id = c.id AND i.output_index = {nth}
                     WHERE c.id = '{id}' AND {no_refund} AND {no_output}
                     ON CONFLICT DO NOTHING RETURNING account_id, bucket, credits
                 ), added AS (UPDATE balances b SET credits = b.credits + given.credits FROM given
                     WHERE b.account_id = given.account_id AND b.bucket = given.bucket RETURNING 1
                 )
                 INSERT INTO faults.visible SELECT '{id}', {nth}, '{word}', {NOTED} FROM added ON CONFLICT DO NOTHING"
            );
            run(pool, &sql).await;
            seen(pool, id, nth).await;
        }
        Own::Fail => {
            // A job that still runs is given up because of it, although it might have succeeded.
            run(pool, &touch).await;
            run(
                pool,
                &format!(
                    "UPDATE charge_items SET failed_at = clock_timestamp()
                     WHERE charge_id = '{id}' AND output_index = {nth} AND failed_at IS NULL"
                ),
            )
            .await;
        }
        // One message is one transaction: the rows stay locked until it has slept.
        Own::HoldBalances => {
            run(
                pool,
                &format!(
                    "SELECT FROM balances WHERE account_id = (SELECT account_id FROM charges WHERE id = '{id}') FOR UPDATE;
                     SELECT pg_sleep({})",
                    HELD.as_secs_f64()
                ),
            )
            .await;
        }
        Own::Cancel => run(pool, &format!(
            "UPDATE charges SET cancelled_at = clock_timestamp() WHERE id = '{id}' AND cancelled_at IS NULL"
        )).await,
    }
}
