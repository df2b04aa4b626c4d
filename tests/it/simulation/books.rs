//! What must be true of a world, in SQL of the test's own for SQLite: each statement names what must not be there,
//! beginning with the item or the charge.

/// At any time.
pub const ALWAYS: &[(&str, &str)] = &[
    (
        "items with two current resolutions",
        "SELECT charge_id || '/' || output_index FROM makegood_resolutions WHERE superseded_at IS NULL
         GROUP BY charge_id, output_index HAVING count(*) > 1",
    ),
    (
        "items refunded twice by makegood",
        "SELECT charge_id || '/' || output_index FROM ledger_entries WHERE kind = 'refund' AND refund_id IS NOT NULL
         GROUP BY charge_id, output_index, bucket HAVING count(*) > 1",
    ),
    (
        "charges of which more was given back, in one bucket, than was drawn",
        "SELECT c.id || ' ' || l.bucket FROM charges c
         JOIN (SELECT charge_id, bucket, sum(credits) AS credits FROM ledger_entries WHERE kind = 'refund' GROUP BY charge_id, bucket) l
              ON l.charge_id = c.id
         WHERE l.credits > CASE l.bucket WHEN 'wallet' THEN c.wallet_credits ELSE c.subscription_credits END",
    ),
    (
        "balances that are not what they opened with and the ledger since",
        "SELECT b.account_id || ' ' || b.bucket FROM balances b
         LEFT JOIN (SELECT account_id, bucket, sum(credits) AS credits FROM ledger_entries GROUP BY account_id, bucket) l
              ON l.account_id = b.account_id AND l.bucket = b.bucket
         WHERE b.credits <> 100000 + coalesce(l.credits, 0)",
    ),
    (
        "refunds that the ledger does not show, or entries of no refund",
        "SELECT r.charge_id || '/' || r.output_index FROM makegood_refunds r
         WHERE r.subscription_credits <> (SELECT coalesce(sum(credits), 0) FROM ledger_entries l WHERE l.refund_id = r.id AND l.bucket = 'subscription')
            OR r.wallet_credits <> (SELECT coalesce(sum(credits), 0) FROM ledger_entries l WHERE l.refund_id = r.id AND l.bucket = 'wallet')
         UNION ALL
         SELECT l.charge_id || '/' || l.output_index FROM ledger_entries l
         WHERE l.refund_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM makegood_refunds r WHERE r.id = l.refund_id)",
    ),
    (
        "items refunded by another sum than they cost",
        "SELECT r.charge_id || '/' || r.output_index FROM makegood_refunds r
         JOIN charge_items i ON i.charge_id = r.charge_id AND i.output_index = r.output_index
         WHERE i.credits <> r.subscription_credits + r.wallet_credits",
    ),
    (
        "items refunded by makegood and by the platform",
        "SELECT r.charge_id || '/' || r.output_index FROM makegood_refunds r
         JOIN ledger_entries l ON l.charge_id = r.charge_id AND l.output_index = r.output_index AND l.kind = 'refund' AND l.refund_id IS NULL",
    ),
    (
        "items refunded although their output was where it belongs",
        "SELECT r.charge_id || '/' || r.output_index FROM makegood_refunds r JOIN charges c ON c.id = r.charge_id
         JOIN stored_outputs s ON s.charge_id = r.charge_id AND s.output_index = r.output_index AND s.project_id = c.project_id AND s.node_id = c.node_id
         WHERE s.id LIKE 'makegood:%' OR s.stored_at < r.refunded_at - $slack_us",
    ),
    (
        "resolutions without exactly one event of their own",
        "SELECT r.charge_id || '/' || r.output_index || ' ' || r.kind FROM makegood_resolutions r
         GROUP BY r.charge_id, r.output_index, r.kind
         HAVING count(*) <> (SELECT count(*) FROM makegood_orphan_events e
                             WHERE e.charge_id = r.charge_id AND e.output_index = r.output_index AND e.kind = r.kind)",
    ),
    (
        "orphans that do not stand as their current resolution says",
        "SELECT o.charge_id || '/' || o.output_index || ' ' || o.state FROM makegood_orphans o
         LEFT JOIN makegood_resolutions r ON r.charge_id = o.charge_id AND r.output_index = o.output_index AND r.superseded_at IS NULL
         WHERE o.state <> CASE r.kind WHEN 'refund' THEN 'refunded' WHEN 'recover' THEN 'recovered' WHEN 'relink' THEN 'relinked'
                                      WHEN 'close' THEN 'closed' ELSE CASE WHEN o.state = 'held' THEN 'held' ELSE 'open' END END",
    ),
    (
        "items with two outputs of makegood's, or one that no recovery names",
        "SELECT s.charge_id || '/' || s.output_index FROM stored_outputs s
         LEFT JOIN makegood_recoveries v ON v.stored_output_id = s.id AND v.kind = 'recover'
         WHERE s.id LIKE 'makegood:%'
         GROUP BY s.charge_id, s.output_index HAVING count(*) > 1 OR count(v.id) <> 1",
    ),
    (
        "recoveries whose stored output does not say what they say",
        "SELECT v.charge_id || '/' || v.output_index FROM makegood_recoveries v LEFT JOIN stored_outputs s ON s.id = v.stored_output_id
         WHERE v.kind = 'recover' AND (v.sha256 IS NULL OR v.size_bytes IS NULL OR s.uri IS NOT v.uri OR s.size_bytes IS NOT v.size_bytes)",
    ),
    (
        "refunds beyond the brake's limit in some hour, counted from its last release",
        "SELECT r.charge_id || '/' || r.output_index FROM makegood_refunds r
         WHERE $brake > 0 AND (SELECT count(*) FROM makegood_refunds b
                WHERE b.refunded_at <= r.refunded_at AND b.refunded_at > r.refunded_at - 3600000000
                  AND b.refunded_at > coalesce((SELECT max(e.at) FROM makegood_brake_events e
                                                WHERE e.kind = 'released' AND e.at <= r.refunded_at), 0)) > $brake",
    ),
];

/// P15: items whose window has closed, with neither an output in its place nor a refund, and for no good reason.
/// `$before`: charged before this. A brake that holds it, or did at any time after `$held_since`, and the user's own
/// cancelling are reasons.
pub const OVERDUE: &str = "
    SELECT i.charge_id || '/' || i.output_index || ' is ' || coalesce(o.state || ' ' || coalesce(o.reason, '-'), 'not even known')
    FROM charge_items i JOIN charges c ON c.id = i.charge_id
    LEFT JOIN makegood_orphans o ON o.charge_id = i.charge_id AND o.output_index = i.output_index
    WHERE c.charged_at < $before
      AND NOT EXISTS (SELECT 1 FROM stored_outputs s WHERE s.charge_id = i.charge_id AND s.output_index = i.output_index
                                                       AND s.project_id = c.project_id AND s.node_id = c.node_id)
      AND NOT EXISTS (SELECT 1 FROM ledger_entries l WHERE l.kind = 'refund' AND l.charge_id = i.charge_id AND l.output_index = i.output_index)
      AND coalesce(o.reason, '-') NOT IN ('completed_after_cancel', 'duplicate_job')
      AND coalesce(o.state, '-') <> 'held'
      AND NOT EXISTS (SELECT 1 FROM makegood_orphan_events e WHERE e.orphan_id = o.id AND e.kind = 'hold' AND e.reason = 'brake' AND e.at > $held_since)
      AND NOT (o.reason = 'brake' AND EXISTS (SELECT 1 FROM makegood_brake_events b WHERE b.kind = 'released' AND b.at > $held_since))";

/// What is waiting for its release, with the reason.
pub const HELD: &str = "SELECT charge_id || '/' || output_index || ' ' || coalesce(reason, '-') FROM makegood_orphans WHERE state = 'held'";

/// How items ended.
pub const ENDS: &str = "SELECT kind || ' ' || reason FROM makegood_resolutions WHERE superseded_at IS NULL";

/// The story of one item.
pub const STORY: &str = "
    SELECT printf('%7.1f min  ', (at - $start) / 60000000.0) || said FROM (
      SELECT c.charged_at AS at, 0 AS nth, 'charged ' || i.credits || ' by ' || c.provider AS said
        FROM charge_items i JOIN charges c ON c.id = i.charge_id WHERE i.charge_id = '$charge' AND i.output_index = $index
      UNION ALL SELECT at, id, kind || ' ' || coalesce(reason, '') || ', rule ' || coalesce(rule, '-') || ', token ' || coalesce(lease_token, '-')
             || ', pass ' || coalesce(pass_id, '-') || ' ' || coalesce(detail, '')
        FROM makegood_orphan_events WHERE charge_id = '$charge' AND output_index = $index
      UNION ALL SELECT posted_at, 2, 'ledger: ' || kind || ' ' || bucket || ' ' || credits || ' (' || id || ')'
        FROM ledger_entries WHERE charge_id = '$charge' AND coalesce(output_index, $index) = $index
      UNION ALL SELECT stored_at, 3, 'output ' || id || ' of ' || provider_job_id || '#' || provider_output_index || ' on ' || coalesce(charge_id, '-') || '/' || coalesce(output_index, '-')
        FROM stored_outputs WHERE (charge_id = '$charge' AND output_index = $index) OR id = 'own:$charge:$index'
      UNION ALL SELECT at, 4, 'the brake is ' || kind FROM makegood_brake_events
      UNION ALL SELECT due_at, 5, 'stands as ' || state || ' ' || coalesce(reason, '-') || ' and is due here; token ' || lease_token || ', asked ' || questions
             || ' times, refund_by ' || printf('%.1f', (refund_by - $start) / 60000000.0)
        FROM makegood_orphans WHERE charge_id = '$charge' AND output_index = $index
    ) AS x ORDER BY at, nth";
