//! Invariants of a world, as SQL of the test's own: each statement returns violations, beginning
//! with the item or the charge. Both databases read the same text, with times in microseconds
//! (`database`).

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
        "balances that are not what they opened with and the ledger since, or that came or went",
        "SELECT coalesce(b.account_id, x.account_id) || ' ' || coalesce(b.bucket, x.bucket) || ': ' || coalesce(CAST(b.credits AS text), 'none') || ' instead of '
                || coalesce(CAST(x.credits AS text), 'none')
         FROM balances b
         FULL JOIN (SELECT o.account_id, o.bucket, 100000 + coalesce(sum(l.credits), 0) AS credits
                    FROM (SELECT a.id AS account_id, k.column1 AS bucket FROM accounts a, (VALUES ('subscription'), ('wallet')) AS k) o
                    LEFT JOIN ledger_entries l ON l.account_id = o.account_id AND l.bucket = o.bucket
                    GROUP BY o.account_id, o.bucket) x ON x.account_id = b.account_id AND x.bucket = b.bucket
         WHERE b.credits IS DISTINCT FROM x.credits",
    ),
    (
        "balances with two rows, or accounts that came or went",
        "SELECT account_id || ' ' || bucket FROM balances GROUP BY account_id, bucket HAVING count(*) > 1
         UNION ALL SELECT 'accounts' FROM (SELECT count(*) AS many FROM accounts) AS a WHERE many <> 4",
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
        "entries on another account, charge, item or time than their refund, or of nothing",
        "SELECT r.charge_id || '/' || r.output_index || ' ' || l.id FROM ledger_entries l
         JOIN makegood_refunds r ON r.id = l.refund_id JOIN charges c ON c.id = r.charge_id
         WHERE (l.account_id, l.charge_id, l.output_index, l.posted_at, l.kind) <> (c.account_id, r.charge_id, r.output_index, r.refunded_at, 'refund')
            OR l.output_index IS NULL OR l.credits <= 0 OR r.account_id <> c.account_id",
    ),
    (
        "charges whose row is not the sum of their refunds, or does not say what was drawn",
        "SELECT m.charge_id FROM makegood_charges m JOIN charges c ON c.id = m.charge_id
         LEFT JOIN (SELECT charge_id, sum(subscription_credits) AS s, sum(wallet_credits) AS w FROM makegood_refunds GROUP BY charge_id) r
                ON r.charge_id = m.charge_id
         WHERE (m.subscription_refunded, m.wallet_refunded, m.subscription_drawn, m.wallet_drawn)
               <> (coalesce(r.s, 0), coalesce(r.w, 0), c.subscription_credits, c.wallet_credits)",
    ),
    (
        "refunds without a resolution, or resolutions by refund without one",
        "SELECT coalesce(r.charge_id, s.charge_id) || '/' || coalesce(r.output_index, s.output_index) FROM makegood_refunds r
         FULL JOIN (SELECT * FROM makegood_resolutions WHERE kind = 'refund') s
                ON s.id = r.resolution_id AND s.charge_id = r.charge_id AND s.output_index = r.output_index AND s.reason = r.reason
         WHERE r.id IS NULL OR s.id IS NULL",
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
        "resolutions without exactly one event of their own, or events without a resolution",
        "SELECT coalesce(r.charge_id, e.charge_id) || '/' || coalesce(r.output_index, e.output_index) || ' ' || coalesce(r.kind, e.kind)
                || ': ' || coalesce(r.many, 0) || ' resolutions, ' || coalesce(e.many, 0) || ' events'
         FROM (SELECT charge_id, output_index, kind, reason, count(*) AS many FROM makegood_resolutions GROUP BY 1, 2, 3, 4) r
         FULL JOIN (SELECT charge_id, output_index, kind, reason, count(*) AS many FROM makegood_orphan_events
                    WHERE kind IN ('refund', 'recover', 'relink', 'close') GROUP BY 1, 2, 3, 4) e
                ON e.charge_id = r.charge_id AND e.output_index = r.output_index AND e.kind = r.kind AND e.reason = r.reason
         WHERE r.many IS DISTINCT FROM e.many",
    ),
    (
        "orphans without exactly one event of their opening, dated as they are, or events of no orphan",
        "SELECT o.charge_id || '/' || o.output_index FROM makegood_orphans o
         LEFT JOIN makegood_orphan_events e ON e.orphan_id = o.id AND e.kind = 'opened' AND e.charge_id = o.charge_id
                                           AND e.output_index = o.output_index AND e.at = o.opened_at
         GROUP BY o.id, o.charge_id, o.output_index HAVING count(e.id) <> 1
         UNION ALL
         SELECT e.charge_id || '/' || e.output_index || ' ' || e.kind FROM makegood_orphan_events e
         LEFT JOIN makegood_orphans o ON o.id = e.orphan_id AND o.charge_id = e.charge_id AND o.output_index = e.output_index
         WHERE o.id IS NULL OR (e.kind = 'opened' AND e.at <> o.opened_at)",
    ),
    (
        "events and resolutions of an answer or a pass that does not exist",
        "SELECT e.charge_id || '/' || e.output_index || ' ' || e.kind FROM makegood_orphan_events e
         WHERE (e.answer_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM makegood_answers a WHERE a.id = e.answer_id))
            OR (e.pass_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM makegood_passes p WHERE p.id = e.pass_id))
         UNION ALL
         SELECT r.charge_id || '/' || r.output_index || ' ' || r.kind FROM makegood_resolutions r
         WHERE (r.answer_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM makegood_answers a WHERE a.id = r.answer_id))
            OR (r.pass_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM makegood_passes p WHERE p.id = r.pass_id))",
    ),
    (
        "refunds without their resolution or makegood's row of their charge",
        "SELECT f.id FROM makegood_refunds f
         WHERE NOT EXISTS (SELECT 1 FROM makegood_resolutions r
                           WHERE r.id = f.resolution_id AND r.charge_id = f.charge_id
                             AND r.output_index = f.output_index AND r.kind = 'refund')
            OR NOT EXISTS (SELECT 1 FROM makegood_charges c WHERE c.charge_id = f.charge_id)",
    ),
    (
        "resolutions that were superseded without an event of reopening, or the reverse",
        "SELECT coalesce(r.charge_id, e.charge_id) || '/' || coalesce(r.output_index, e.output_index)
         FROM (SELECT charge_id, output_index, count(*) AS many FROM makegood_resolutions WHERE superseded_at IS NOT NULL GROUP BY 1, 2) r
         FULL JOIN (SELECT charge_id, output_index, count(*) AS many FROM makegood_orphan_events WHERE kind = 'reopened' GROUP BY 1, 2) e
                ON e.charge_id = r.charge_id AND e.output_index = r.output_index
         WHERE r.many IS DISTINCT FROM e.many",
    ),
    (
        "orphans that are held, and whose last event does not say so",
        "SELECT o.charge_id || '/' || o.output_index || ' is held for ' || o.reason FROM makegood_orphans o
         WHERE o.state = 'held' AND (SELECT e.kind || ' ' || e.reason FROM makegood_orphan_events e WHERE e.orphan_id = o.id
                                     ORDER BY e.id DESC LIMIT 1) IS DISTINCT FROM 'hold ' || o.reason",
    ),
    (
        "brakes whose events do not tell how they stand",
        // Two brakes, distinguished by their reasons: that of all refunds, and that of refunds for
        // our own faults.
        "WITH pulled AS (SELECT id, at, CASE WHEN reason LIKE '%faults of ours%' THEN 1 ELSE 0 END AS ours FROM makegood_brake_events WHERE kind = 'engaged'),
              stands AS (SELECT 0 AS ours, engaged_at AS at FROM makegood_brake UNION ALL SELECT 1, own_faults_at FROM makegood_brake)
         SELECT 'brake ' || s.ours || ' is on without an event' FROM stands s
         WHERE s.at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM pulled p WHERE p.ours = s.ours AND p.at = s.at)
         UNION ALL
         SELECT 'brake ' || s.ours || ' is off without an event' FROM stands s
         WHERE s.at IS NULL AND EXISTS (SELECT 1 FROM pulled p WHERE p.ours = s.ours AND NOT EXISTS
                   (SELECT 1 FROM makegood_brake_events e WHERE e.kind = 'released' AND e.id > p.id))
         UNION ALL
         SELECT 'brake ' || p.ours || ' was pulled twice' FROM pulled p JOIN pulled q ON q.ours = p.ours AND q.id > p.id
         WHERE NOT EXISTS (SELECT 1 FROM makegood_brake_events e WHERE e.kind = 'released' AND e.id > p.id AND e.id < q.id)
         UNION ALL
         SELECT 'brake ' || ours || ' without a limit' FROM pulled WHERE CASE WHEN ours = 1 THEN $own_faults ELSE $brake END = 0",
    ),
    // An orphan that was found while the clock was ahead was found earlier than its time; the
    // oracle knows when.
    (
        "refunds without proof before their time: 22 hours after the charge, 2 after it was found",
        "SELECT r.charge_id || '/' || r.output_index || ' ' || r.reason FROM makegood_refunds r
         JOIN charges c ON c.id = r.charge_id
         JOIN makegood_orphans o ON o.charge_id = r.charge_id AND o.output_index = r.output_index
         WHERE r.reason IN ('timed_out', 'unconfirmed', 'recovery_failed')
           AND (r.refunded_at < c.charged_at + 22 * 3600000000 OR r.refunded_at < o.opened_at - $ahead_us + 2 * 3600000000)",
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
         WHERE v.kind = 'recover' AND (v.sha256 IS NULL OR v.size_bytes IS NULL OR s.uri IS DISTINCT FROM v.uri OR s.size_bytes IS DISTINCT FROM v.size_bytes)
           AND v.stored_output_id NOT IN (SELECT id FROM lost_rows)",
    ),
    (
        "items that were refunded, or brought home again, after the platform had lost what had been brought home",
        "SELECT r.charge_id || '/' || r.output_index FROM makegood_refunds r
         JOIN lost_rows d ON d.charge_id = r.charge_id AND d.output_index = r.output_index
         UNION ALL
         SELECT charge_id || '/' || output_index FROM makegood_recoveries WHERE kind = 'recover'
         GROUP BY charge_id, output_index HAVING count(*) > 1",
    ),
    // In the order of the refunds, not of the clock: one that is dated ahead counts.
    (
        "refunds beyond the brake's limit in some hour, counted from its last release by a person",
        "SELECT r.charge_id || '/' || r.output_index FROM makegood_refunds r
         WHERE $brake > 0 AND (SELECT count(*) FROM makegood_refunds b
                WHERE b.resolution_id <= r.resolution_id AND b.refunded_at > r.refunded_at - 3600000000
                  AND b.resolution_id > coalesce((SELECT max(l.resolution_id) FROM brake_releases l
                                                  WHERE l.resolution_id < r.resolution_id), 0)) > $brake",
    ),
    (
        "refunds for faults of ours beyond their limit in some day, counted from its last release by a person",
        "WITH own AS (SELECT r.charge_id, r.output_index, r.refunded_at, r.resolution_id FROM makegood_refunds r
                      JOIN makegood_resolutions s ON s.id = r.resolution_id LEFT JOIN makegood_answers a ON a.id = s.answer_id
                      WHERE r.reason = 'recovery_failed' OR r.reason = 'unconfirmed' AND a.verdict IN ('unauthorized', 'unreadable'))
         SELECT r.charge_id || '/' || r.output_index FROM own r
         WHERE $own_faults > 0 AND (SELECT count(*) FROM own b
                WHERE b.resolution_id <= r.resolution_id AND b.refunded_at > r.refunded_at - 24 * 3600000000
                  AND b.resolution_id > coalesce((SELECT max(l.resolution_id) FROM brake_releases l
                                                  WHERE l.resolution_id < r.resolution_id), 0)) > $own_faults",
    ),
];

/// P15 (made good within 24 hours): items whose window has closed, with neither an output in its
/// place nor a refund, their state, and whether the brake held them at any time after `?2`. `?1`:
/// charged before this. The plan knows what excuses them.
pub const OVERDUE: &str = "
    SELECT i.charge_id || '/' || i.output_index || ' ' || coalesce(o.state || ' ' || coalesce(o.reason, '-'), 'unknown -') || ' ' || CASE WHEN
             EXISTS (SELECT 1 FROM makegood_orphan_events e WHERE e.orphan_id = o.id AND e.kind = 'hold' AND e.reason = 'brake' AND e.at > ?2)
             OR (o.reason = 'brake' AND EXISTS (SELECT 1 FROM makegood_brake_events b WHERE b.kind = 'released' AND b.at > ?2))
             OR (o.reason = 'brake' AND EXISTS (SELECT 1 FROM makegood_brake b WHERE b.engaged_at IS NOT NULL)) THEN 'braked' ELSE '-' END
    FROM charge_items i JOIN charges c ON c.id = i.charge_id
    LEFT JOIN makegood_orphans o ON o.charge_id = i.charge_id AND o.output_index = i.output_index
    WHERE c.charged_at < ?1
      AND NOT EXISTS (SELECT 1 FROM stored_outputs s WHERE s.charge_id = i.charge_id AND s.output_index = i.output_index
                                                       AND s.project_id = c.project_id AND s.node_id = c.node_id)
      AND NOT EXISTS (SELECT 1 FROM ledger_entries l WHERE l.kind = 'refund' AND l.charge_id = i.charge_id AND l.output_index = i.output_index)
      AND NOT EXISTS (SELECT 1 FROM lost_rows d WHERE d.charge_id = i.charge_id AND d.output_index = i.output_index)";

/// Decisions after the event `?1`, with their times in minutes since `?2`.
pub const DECIDED: &str = "
    SELECT e.id || ' ' || e.charge_id || ' ' || e.output_index || ' ' || e.kind || ' ' || e.reason || ' ' || ((e.at - ?2) / 60000000) || ' '
             || ((o.opened_at - ?2) / 60000000)
    FROM makegood_orphan_events e JOIN makegood_orphans o ON o.id = e.orphan_id
    WHERE e.id > ?1 AND e.kind IN ('refund', 'recover', 'relink', 'close', 'wait', 'hold') ORDER BY e.id";

/// The state of an item.
pub const STANDS: &str = "SELECT state || ' ' || coalesce(reason, '-') FROM makegood_orphans WHERE charge_id = '$charge' AND output_index = $index";

/// The items that there are.
pub const ITEMS: &str =
    "SELECT charge_id || '/' || output_index FROM charge_items ORDER BY charge_id, output_index";

/// Items that are neither stored nor made good, whether or not a pass has examined them.
pub const WAITING: &str = "
    SELECT i.charge_id || '/' || i.output_index FROM charge_items i
    WHERE NOT EXISTS (SELECT 1 FROM makegood_orphans o WHERE o.charge_id = i.charge_id AND o.output_index = i.output_index AND o.state NOT IN ('open', 'held'))
      AND NOT EXISTS (SELECT 1 FROM makegood_deliveries d WHERE d.charge_id = i.charge_id AND d.output_index = i.output_index)
    ORDER BY i.charge_id, i.output_index";

/// Held orphans, with the reason.
pub const HELD: &str = "SELECT charge_id || '/' || output_index || ' ' || coalesce(reason, '-') FROM makegood_orphans WHERE state = 'held'";

/// How items ended.
pub const ENDS: &str = "SELECT kind || ' ' || reason FROM makegood_resolutions WHERE superseded_at IS NULL";

/// The history of one item.
pub const STORY: &str = "
    SELECT printf('%7.1f min  ', (at - $start) / 60000000.0) || said FROM (
      SELECT c.charged_at AS at, 0 AS nth, 'charged ' || i.credits || ' by ' || c.provider AS said
        FROM charge_items i JOIN charges c ON c.id = i.charge_id WHERE i.charge_id = '$charge' AND i.output_index = $index
      UNION ALL SELECT at, id, kind || ' ' || coalesce(reason, '') || ', rule ' || coalesce(CAST(rule AS text), '-') || ', token ' || coalesce(CAST(lease_token AS text), '-')
             || ', pass ' || coalesce(CAST(pass_id AS text), '-') || ' ' || coalesce(detail, '')
        FROM makegood_orphan_events WHERE charge_id = '$charge' AND output_index = $index
      UNION ALL SELECT posted_at, 2, 'ledger: ' || kind || ' ' || bucket || ' ' || credits || ' (' || id || ')'
        FROM ledger_entries WHERE charge_id = '$charge' AND coalesce(output_index, $index) = $index
      UNION ALL SELECT stored_at, 3, 'output ' || id || ' of ' || provider_job_id || '#' || provider_output_index || ' on ' || coalesce(charge_id, '-') || '/' || coalesce(CAST(output_index AS text), '-')
        FROM stored_outputs WHERE (charge_id = '$charge' AND output_index = $index) OR id = 'own:$charge:$index'
      UNION ALL SELECT o.resolved_at, 3, 'the platform has lost the row of ' || d.id FROM lost_rows d
        JOIN makegood_orphans o ON o.charge_id = d.charge_id AND o.output_index = d.output_index
        WHERE d.charge_id = '$charge' AND d.output_index = $index
      UNION ALL SELECT at, 4, 'the brake is ' || kind FROM makegood_brake_events
      UNION ALL SELECT due_at, 5, 'stands as ' || state || ' ' || coalesce(reason, '-') || ' and is due here; token ' || lease_token || ', asked ' || questions
             || ' times, refund_by ' || printf('%.1f', (refund_by - $start) / 60000000.0)
        FROM makegood_orphans WHERE charge_id = '$charge' AND output_index = $index
    ) AS x ORDER BY at, nth";
