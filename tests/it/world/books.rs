//! Invariants of any world at any time, as SQL of the tests' own that both databases read: each
//! statement returns violations, as `v`.
//!
//! A world remembers the balances that it started with (`World::balance`). A test in which the
//! platform changes a balance without a ledger entry, or the ledger without a balance, declares it
//! (`World::opens_with`). Rows that cannot be added up, because an account, a bucket or credits are
//! NULL, are only checked for entries of makegood's.

use std::collections::BTreeMap;

use super::World;

/// The world's own records beside its database.
#[derive(Debug, Default)]
pub struct Remembered {
    /// By account and bucket.
    opening: BTreeMap<(String, String), i64>,
    /// Outputs whose rows the platform has removed.
    lost: Vec<String>,
}

impl Remembered {
    /// As a relation.
    fn opening(&self) -> String {
        let rows = self.opening.iter().map(|((account, bucket), credits)| {
            format!(" UNION ALL SELECT '{account}', '{bucket}', {credits}")
        });
        format!("SELECT NULL AS account_id, NULL AS bucket, 0 AS credits{}", rows.collect::<String>())
    }
}

const ALWAYS: &[(&str, &str)] = &[
    (
        "balances that are not what they opened with and the ledger since",
        "SELECT b.account_id || ' ' || b.bucket || ': ' || b.credits || ' instead of ' || (coalesce(o.credits, 0) + coalesce(l.credits, 0)) AS v
         FROM (SELECT account_id, bucket, sum(credits) AS credits FROM balances GROUP BY account_id, bucket) b
         LEFT JOIN ($opening) o ON o.account_id = b.account_id AND o.bucket = b.bucket
         LEFT JOIN (SELECT account_id, bucket, sum(credits) AS credits, max(refund_id) AS refund_id FROM ledger_entries GROUP BY account_id, bucket) l
                ON l.account_id = b.account_id AND l.bucket = b.bucket
         WHERE b.credits IS DISTINCT FROM coalesce(o.credits, 0) + coalesce(l.credits, 0)
           AND ((b.account_id IS NOT NULL AND b.bucket IS NOT NULL AND b.credits IS NOT NULL) OR l.refund_id IS NOT NULL)",
    ),
    (
        "entries of makegood's to a balance that is none",
        "SELECT l.id AS v FROM ledger_entries l JOIN makegood_refunds r ON r.id = l.refund_id
         WHERE NOT EXISTS (SELECT 1 FROM balances b WHERE b.account_id = l.account_id AND b.bucket = l.bucket)",
    ),
    (
        "refunds that the ledger does not show, once, per bucket, for their account, charge and item",
        "SELECT r.charge_id || '/' || r.output_index || ' ' || r.bucket || ': ' || r.credits AS v
         FROM (SELECT id, charge_id, output_index, account_id, 'subscription' AS bucket, subscription_credits AS credits FROM makegood_refunds
               UNION ALL SELECT id, charge_id, output_index, account_id, 'wallet', wallet_credits FROM makegood_refunds) r
         LEFT JOIN charges c ON c.id = r.charge_id
         WHERE (SELECT count(*) FROM ledger_entries l
                WHERE l.refund_id = r.id AND l.bucket = r.bucket AND l.credits = r.credits AND l.account_id = r.account_id
                  AND l.charge_id = r.charge_id AND l.output_index = r.output_index AND l.kind = 'refund') <> CASE r.credits WHEN 0 THEN 0 ELSE 1 END
            OR r.account_id <> c.account_id",
    ),
    (
        "entries that name a refund of makegood's which is none, or is another's",
        "SELECT l.id AS v FROM ledger_entries l
         WHERE l.refund_id LIKE 'makegood:%' AND l.id NOT LIKE '%:reversed:%'
           AND NOT EXISTS (SELECT 1 FROM makegood_refunds r
                           WHERE r.id = l.refund_id AND r.account_id = l.account_id AND r.charge_id = l.charge_id AND r.output_index = l.output_index
                             AND l.credits = CASE l.bucket WHEN 'subscription' THEN r.subscription_credits WHEN 'wallet' THEN r.wallet_credits END)",
    ),
    (
        "charges whose row is not the sum of their refunds, per bucket",
        "SELECT c.charge_id AS v FROM makegood_charges c
         LEFT JOIN (SELECT charge_id, sum(subscription_credits) AS subscription, sum(wallet_credits) AS wallet
                    FROM makegood_refunds GROUP BY charge_id) r ON r.charge_id = c.charge_id
         WHERE c.subscription_refunded <> coalesce(r.subscription, 0) OR c.wallet_refunded <> coalesce(r.wallet, 0)",
    ),
    (
        "charges of which more was given back, in one bucket, than was drawn: by makegood, or by both together",
        "SELECT g.charge_id || ' ' || g.bucket || ': drawn ' || d.drawn || ', makegood gave ' || g.ours || ' of ' || g.credits AS v
         FROM (SELECT charge_id, bucket, sum(credits) AS credits, sum(CASE WHEN refund_id LIKE 'makegood:%' THEN credits ELSE 0 END) AS ours
               FROM ledger_entries WHERE kind = 'refund' GROUP BY charge_id, bucket) g
         JOIN (SELECT id, 'subscription' AS bucket, subscription_credits AS drawn FROM charges
               UNION ALL SELECT id, 'wallet', wallet_credits FROM charges) d ON d.id = g.charge_id AND d.bucket = g.bucket
         WHERE g.ours > d.drawn OR g.credits > d.drawn",
    ),
    (
        "items refunded by another sum than they cost",
        "SELECT r.charge_id || '/' || r.output_index AS v FROM makegood_refunds r
         JOIN charge_items i ON i.charge_id = r.charge_id AND i.output_index = r.output_index
         WHERE i.credits <> r.subscription_credits + r.wallet_credits",
    ),
    (
        "items refunded twice",
        "SELECT charge_id || '/' || output_index AS v FROM makegood_refunds GROUP BY charge_id, output_index HAVING count(*) > 1",
    ),
    (
        "items with two current resolutions",
        "SELECT charge_id || '/' || output_index AS v FROM makegood_resolutions WHERE superseded_at IS NULL
         GROUP BY charge_id, output_index HAVING count(*) > 1",
    ),
    (
        "refunds without their resolution, resolutions by refund without one, or that are not current",
        "SELECT coalesce(r.charge_id, s.charge_id) || '/' || coalesce(r.output_index, s.output_index) AS v FROM makegood_refunds r
         FULL JOIN (SELECT * FROM makegood_resolutions WHERE kind = 'refund') s
                ON s.id = r.resolution_id AND s.charge_id = r.charge_id AND s.output_index = r.output_index AND s.superseded_at IS NULL
         WHERE r.id IS NULL OR s.id IS NULL",
    ),
    (
        "orphans that do not stand as their current resolution says",
        "SELECT o.charge_id || '/' || o.output_index || ' is ' || o.state || ' ' || coalesce(o.reason, '-') || ', resolved by '
                || coalesce(r.kind || ' ' || r.reason, 'nothing') AS v
         FROM makegood_orphans o
         LEFT JOIN makegood_resolutions r ON r.charge_id = o.charge_id AND r.output_index = o.output_index AND r.superseded_at IS NULL
         WHERE o.state <> CASE r.kind WHEN 'refund' THEN 'refunded' WHEN 'recover' THEN 'recovered' WHEN 'relink' THEN 'relinked'
                                      WHEN 'close' THEN 'closed' ELSE CASE o.state WHEN 'held' THEN 'held' ELSE 'open' END END
            OR r.reason <> o.reason OR (o.resolved_at IS NULL) <> (r.kind IS NULL)",
    ),
    (
        "resolutions of no orphan",
        "SELECT r.charge_id || '/' || r.output_index AS v FROM makegood_resolutions r
         WHERE NOT EXISTS (SELECT 1 FROM makegood_orphans o WHERE o.charge_id = r.charge_id AND o.output_index = r.output_index)",
    ),
    (
        "resolutions without exactly one event of their kind, or such events without a resolution",
        "SELECT coalesce(r.charge_id, e.charge_id) || '/' || coalesce(r.output_index, e.output_index) || ' ' || coalesce(r.kind, e.kind)
                || ': ' || coalesce(r.many, 0) || ' resolutions, ' || coalesce(e.many, 0) || ' events' AS v
         FROM (SELECT charge_id, output_index, kind, count(*) AS many FROM makegood_resolutions GROUP BY charge_id, output_index, kind) r
         FULL JOIN (SELECT charge_id, output_index, kind, count(*) AS many FROM makegood_orphan_events
                    WHERE kind IN ('refund', 'recover', 'relink', 'close') GROUP BY charge_id, output_index, kind) e
                ON e.charge_id = r.charge_id AND e.output_index = r.output_index AND e.kind = r.kind
         WHERE r.many IS DISTINCT FROM e.many",
    ),
    (
        "orphans without exactly one event of their opening",
        "SELECT o.charge_id || '/' || o.output_index AS v FROM makegood_orphans o
         WHERE (SELECT count(*) FROM makegood_orphan_events e WHERE e.orphan_id = o.id AND e.kind = 'opened') <> 1",
    ),
    (
        "resolutions by recover or relink without exactly one recovery of their kind",
        "SELECT r.charge_id || '/' || r.output_index AS v FROM makegood_resolutions r
         WHERE (SELECT count(*) FROM makegood_recoveries v WHERE v.resolution_id = r.id AND v.kind = r.kind AND v.charge_id = r.charge_id
                                                            AND v.output_index = r.output_index)
               <> CASE WHEN r.kind IN ('recover', 'relink') THEN 1 ELSE 0 END",
    ),
    (
        "current recoveries whose output is not there",
        "SELECT v.charge_id || '/' || v.output_index AS v FROM makegood_recoveries v
         JOIN makegood_resolutions r ON r.id = v.resolution_id AND r.superseded_at IS NULL
         WHERE v.kind = 'recover' AND NOT EXISTS (SELECT 1 FROM stored_outputs s WHERE s.id = v.stored_output_id AND s.sha256 = v.sha256)
           AND v.stored_output_id NOT IN ($lost)",
    ),
    (
        "reversals that do not take back exactly what their refund gave, or that the ledger does not show so, once per bucket, and such entries of none",
        "SELECT b.refund_id AS v FROM makegood_refund_reversals b LEFT JOIN makegood_refunds r ON r.id = b.refund_id
         WHERE (b.charge_id, b.output_index, b.account_id, b.subscription_credits, b.wallet_credits)
               IS DISTINCT FROM (r.charge_id, r.output_index, r.account_id, r.subscription_credits, r.wallet_credits)
            OR (SELECT count(*) FROM ledger_entries l
                WHERE l.id = b.id || ':' || l.bucket AND l.refund_id = b.refund_id AND l.account_id = b.account_id AND l.kind = 'refund'
                  AND l.charge_id = b.charge_id AND l.output_index = b.output_index
                  AND l.credits = -CASE l.bucket WHEN 'subscription' THEN b.subscription_credits ELSE b.wallet_credits END)
               <> CASE b.subscription_credits WHEN 0 THEN 0 ELSE 1 END + CASE b.wallet_credits WHEN 0 THEN 0 ELSE 1 END
         UNION ALL
         SELECT l.id FROM ledger_entries l WHERE l.id LIKE '%:reversed:%'
            AND NOT EXISTS (SELECT 1 FROM makegood_refund_reversals b WHERE l.id = b.id || ':' || l.bucket)",
    ),
    (
        "refunds taken back twice, or without exactly one event",
        "SELECT charge_id || '/' || output_index AS v FROM makegood_refund_reversals GROUP BY charge_id, output_index HAVING count(*) > 1
         UNION ALL
         SELECT b.charge_id || '/' || b.output_index FROM makegood_refund_reversals b
         WHERE (SELECT count(*) FROM makegood_orphan_events e
                WHERE e.kind = 'reversed' AND e.charge_id = b.charge_id AND e.output_index = b.output_index) <> 1",
    ),
    (
        "refunded items that are billable, or such ones that are not although the refund was taken back",
        "SELECT u.charge_id || '/' || u.output_index AS v FROM usage_history u
         JOIN makegood_refunds r ON r.charge_id = u.charge_id AND r.output_index = u.output_index
         LEFT JOIN makegood_refund_reversals b ON b.refund_id = r.id
         WHERE u.billable AND b.id IS NULL OR NOT u.billable AND b.id IS NOT NULL",
    ),
    (
        "counters that are not the books'",
        "SELECT x.metric || ' ' || x.label || ': ' || coalesce(c.value, 0) || ' instead of ' || x.books AS v
         FROM (SELECT 'refunded_credits' AS metric, 'subscription' AS label, (SELECT coalesce(sum(subscription_credits), 0) FROM makegood_refunds) AS books
               UNION ALL SELECT 'refunded_credits', 'wallet', (SELECT coalesce(sum(wallet_credits), 0) FROM makegood_refunds)
               UNION ALL SELECT 'refunds', '', (SELECT count(*) FROM makegood_refunds)
               UNION ALL SELECT 'recoveries', '', (SELECT count(*) FROM makegood_recoveries)) x
         LEFT JOIN (SELECT metric, CASE metric WHEN 'refunded_credits' THEN label_a ELSE '' END AS label, sum(value) AS value
                    FROM makegood_counters GROUP BY 1, 2) c ON c.metric = x.metric AND c.label = x.label
         WHERE coalesce(c.value, 0) <> x.books",
    ),
];

impl World {
    /// The platform creates a balance row with these credits, or changes one, as if the world had
    /// started with them.
    pub fn opens_with(&self, account: &str, bucket: &str, credits: i64) {
        let mut remembered = self.remembered.lock().unwrap();
        remembered.opening.insert((account.to_owned(), bucket.to_owned()), credits);
    }

    /// The platform removes these rows of `stored_outputs`.
    pub async fn loses(&self, which: &str) {
        let lost = self.texts(&format!("SELECT id AS v FROM stored_outputs WHERE {which}")).await;
        assert!(!lost.is_empty(), "{which}");
        self.run(&format!("DELETE FROM stored_outputs WHERE {which}")).await;
        self.remembered.lock().unwrap().lost.extend(lost);
    }

    /// The invariants of any world at any time.
    pub async fn books_balance(&self) {
        let (opening, lost) = {
            let remembered = self.remembered.lock().unwrap();
            let lost: Vec<String> = remembered.lost.iter().map(|id| format!(", '{id}'")).collect();
            (remembered.opening(), format!("''{}", lost.concat()))
        };
        for (what, sql) in ALWAYS {
            let sql = sql.replace("$opening", &opening).replace("$lost", &lost);
            assert_eq!(self.texts(&sql).await, Vec::<String>::new(), "{what}");
        }
    }
}
