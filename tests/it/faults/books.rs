//! Invariants after every step, as SQL of the test's own: each statement returns violations,
//! beginning with the item or the charge. `spoiled.rs` shows that each of them can find one.
//!
//! `$brake` is the brake's limit of refunds and `$brake_credits` that of credits. `$slack` is the
//! time by which the clock was wrong in all, if it was (`$wild`). Statements about money have no
//! tolerance, because nothing that counts credits depends on a clock.

/// True at any time at which no transaction is open.
pub const ALWAYS: &[(&str, &str)] = &[
    (
        "items with two current resolutions",
        "SELECT charge_id || '/' || output_index FROM makegood_resolutions WHERE superseded_at IS NULL
         GROUP BY charge_id, output_index HAVING count(*) > 1",
    ),
    (
        "items refunded twice by makegood",
        "SELECT charge_id || '/' || output_index FROM ledger_entries WHERE kind = 'refund' AND refund_id IS NOT NULL
         GROUP BY charge_id, output_index, bucket HAVING count(*) > 1
         UNION ALL
         SELECT charge_id || '/' || output_index FROM makegood_refunds GROUP BY charge_id, output_index HAVING count(*) > 1",
    ),
    (
        "charges of which makegood gave back more, in one bucket, than was drawn",
        "SELECT c.id || ' ' || b.bucket || ': drawn ' || b.drawn || ', refunded ' || l.credits
         FROM charges c
         CROSS JOIN LATERAL (VALUES ('subscription', c.subscription_credits), ('wallet', c.wallet_credits)) AS b(bucket, drawn)
         JOIN (SELECT charge_id, bucket, sum(credits) AS credits FROM ledger_entries
               WHERE kind = 'refund' AND refund_id IS NOT NULL GROUP BY charge_id, bucket) l ON l.charge_id = c.id AND l.bucket = b.bucket
         WHERE l.credits > b.drawn",
    ),
    (
        // Who looks into the ledger without the balance's lock may refund in the moment in which
        // makegood does: UNAVOIDABLE_RACES.
        "charges of which makegood and the platform together gave back more, in one bucket, than was drawn",
        "SELECT c.id || ' ' || b.bucket || ': drawn ' || b.drawn || ', refunded ' || l.credits
         FROM charges c
         CROSS JOIN LATERAL (VALUES ('subscription', c.subscription_credits), ('wallet', c.wallet_credits)) AS b(bucket, drawn)
         JOIN (SELECT charge_id, bucket, sum(credits) AS credits FROM ledger_entries
               WHERE kind = 'refund' GROUP BY charge_id, bucket) l ON l.charge_id = c.id AND l.bucket = b.bucket
         WHERE l.credits > b.drawn
           AND NOT EXISTS (SELECT 1 FROM makegood_refunds r JOIN faults.visible v
                           ON v.charge_id = r.charge_id AND v.output_index = r.output_index AND v.what = 'refund' WHERE r.charge_id = c.id)",
    ),
    (
        "balances that are not what they opened with and the ledger since, or were made or lost",
        "SELECT coalesce(b.account_id, o.account_id, l.account_id) || ' ' || coalesce(b.bucket, o.bucket, l.bucket) || ': '
                || coalesce(b.credits::text, 'none') || ' instead of ' || coalesce((o.credits + coalesce(l.credits, 0))::text, 'none')
         FROM faults.opening o
         FULL JOIN balances b ON (b.account_id, b.bucket) = (o.account_id, o.bucket)
         FULL JOIN (SELECT account_id, bucket, sum(credits) AS credits FROM ledger_entries GROUP BY account_id, bucket) l
                ON l.account_id = coalesce(b.account_id, o.account_id) AND l.bucket = coalesce(b.bucket, o.bucket)
         WHERE b.credits IS NULL OR o.credits IS NULL OR b.credits <> o.credits + coalesce(l.credits, 0)",
    ),
    (
        "refunds that the ledger does not show, per bucket, or shows on another account",
        "SELECT r.charge_id || '/' || r.output_index || ' ' || b.bucket FROM makegood_refunds r
         CROSS JOIN LATERAL (VALUES ('subscription', r.subscription_credits), ('wallet', r.wallet_credits)) AS b(bucket, credits)
         JOIN charges c ON c.id = r.charge_id
         LEFT JOIN (SELECT refund_id, account_id, bucket, sum(credits) AS credits FROM ledger_entries WHERE kind = 'refund'
                    GROUP BY refund_id, account_id, bucket) l
                ON l.refund_id = r.id AND l.bucket = b.bucket AND l.account_id = c.account_id
         WHERE coalesce(l.credits, 0) <> b.credits",
    ),
    (
        "entries that are not the platform's and of no refund of ours: of its charge, item, account and sum",
        "SELECT coalesce(l.charge_id, '-') || '/' || coalesce(l.output_index, -9) || ' ' || l.id
         FROM ledger_entries l
         LEFT JOIN charges c ON c.id = l.charge_id
         LEFT JOIN makegood_refunds r ON r.id = l.refund_id AND r.charge_id = l.charge_id AND r.output_index = l.output_index
         WHERE (l.refund_id IS NOT NULL OR l.id NOT LIKE 'taken:%' AND l.id NOT LIKE 'own:%')
           AND (l.kind = 'refund' AND l.account_id = c.account_id AND r.account_id = c.account_id
                AND l.credits = CASE l.bucket WHEN 'subscription' THEN r.subscription_credits WHEN 'wallet' THEN r.wallet_credits END) IS NOT TRUE",
    ),
    (
        "entries of the platform's that are others than it made",
        "SELECT l.charge_id || '/' || coalesce(l.output_index, -9) || ' ' || l.id
         FROM ledger_entries l
         LEFT JOIN charges c ON c.id = l.charge_id
         LEFT JOIN charge_items i ON i.charge_id = l.charge_id AND i.output_index = l.output_index
         WHERE l.id LIKE 'taken:%' AND (l.kind = 'charge' AND l.account_id = c.account_id AND l.output_index IS NULL AND l.refund_id IS NULL
                    AND -l.credits = CASE l.bucket WHEN 'subscription' THEN c.subscription_credits ELSE c.wallet_credits END) IS NOT TRUE
            OR l.id LIKE 'own:%' AND (l.kind = 'refund' AND l.account_id = c.account_id AND l.refund_id IS NULL AND l.credits = i.credits) IS NOT TRUE",
    ),
    (
        "charges whose row is not the sum of their refunds",
        "SELECT m.charge_id FROM makegood_charges m
         LEFT JOIN (SELECT charge_id, sum(subscription_credits) AS s, sum(wallet_credits) AS w FROM makegood_refunds GROUP BY charge_id) r
                ON r.charge_id = m.charge_id
         WHERE (m.subscription_refunded, m.wallet_refunded) IS DISTINCT FROM (coalesce(r.s, 0), coalesce(r.w, 0))",
    ),
    (
        "items refunded by another sum than they cost",
        "SELECT r.charge_id || '/' || r.output_index FROM makegood_refunds r
         LEFT JOIN charge_items i ON i.charge_id = r.charge_id AND i.output_index = r.output_index
         WHERE i.credits IS DISTINCT FROM r.subscription_credits + r.wallet_credits",
    ),
    (
        "resolutions without exactly one event of their own, or events without a resolution",
        "SELECT coalesce(r.charge_id, e.charge_id) || '/' || coalesce(r.output_index, e.output_index) || ' ' || coalesce(r.kind, e.kind)
                || ': ' || coalesce(r.many, 0) || ' resolutions, ' || coalesce(e.many, 0) || ' events'
         FROM (SELECT charge_id, output_index, kind, count(*) AS many FROM makegood_resolutions GROUP BY 1, 2, 3) r
         FULL JOIN (SELECT charge_id, output_index, kind, count(*) AS many FROM makegood_orphan_events
                    WHERE kind IN ('refund', 'recover', 'relink', 'close') GROUP BY 1, 2, 3) e
                ON (e.charge_id, e.output_index, e.kind) = (r.charge_id, r.output_index, r.kind)
         WHERE r.many IS DISTINCT FROM e.many",
    ),
    (
        "orphans that do not stand as their current resolution says",
        "SELECT o.charge_id || '/' || o.output_index || ' is ' || o.state || ', resolved by ' || coalesce(r.kind, 'nothing')
         FROM makegood_orphans o
         LEFT JOIN makegood_resolutions r ON r.charge_id = o.charge_id AND r.output_index = o.output_index AND r.superseded_at IS NULL
         WHERE o.state IS DISTINCT FROM CASE r.kind WHEN 'refund' THEN 'refunded' WHEN 'recover' THEN 'recovered' WHEN 'relink' THEN 'relinked'
                                                    WHEN 'close' THEN 'closed' ELSE CASE WHEN o.state = 'held' THEN 'held' ELSE 'open' END END",
    ),
    (
        "orphans without exactly one event of their opening",
        "SELECT o.charge_id || '/' || o.output_index FROM makegood_orphans o
         WHERE (SELECT count(*) FROM makegood_orphan_events e WHERE e.orphan_id = o.id AND e.kind = 'opened') <> 1",
    ),
    (
        "held orphans whose last event is no hold for the same reason",
        "SELECT o.charge_id || '/' || o.output_index || ' held for ' || coalesce(o.reason, '-') || ', last ' || coalesce(e.kind || ' ' || coalesce(e.reason, '-'), 'nothing')
         FROM makegood_orphans o
         LEFT JOIN LATERAL (SELECT kind, reason FROM makegood_orphan_events e WHERE e.orphan_id = o.id ORDER BY e.id DESC LIMIT 1) e ON true
         WHERE o.state = 'held' AND (e.kind = 'hold' AND e.reason = o.reason) IS NOT TRUE",
    ),
    (
        "items that were not reopened exactly as often as a resolution of theirs was superseded",
        "SELECT coalesce(r.charge_id, e.charge_id) || '/' || coalesce(r.output_index, e.output_index)
         FROM (SELECT charge_id, output_index, count(*) AS many FROM makegood_resolutions WHERE superseded_at IS NOT NULL GROUP BY 1, 2) r
         FULL JOIN (SELECT charge_id, output_index, count(*) AS many FROM makegood_orphan_events WHERE kind = 'reopened' GROUP BY 1, 2) e
                ON (e.charge_id, e.output_index) = (r.charge_id, r.output_index)
         WHERE r.many IS DISTINCT FROM e.many",
    ),
    (
        "a brake that does not stand as its last event says, or whose events do not alternate",
        "SELECT 'the brake: ' || coalesce(max(x.kind), 'nothing') FROM (
             SELECT kind, lag(kind) OVER (ORDER BY id) AS before, lead(kind) OVER (ORDER BY id) AS after FROM makegood_brake_events) x
         HAVING coalesce(bool_or(x.kind = coalesce(x.before, 'released')), false)
             OR coalesce(max(x.kind) FILTER (WHERE x.after IS NULL), 'released')
                <> (SELECT CASE WHEN engaged_at IS NULL THEN 'released' ELSE 'engaged' END FROM makegood_brake)",
    ),
    (
        "items closed as completed after a cancel that nobody made",
        "SELECT r.charge_id || '/' || r.output_index FROM makegood_resolutions r JOIN charges c ON c.id = r.charge_id
         WHERE r.reason = 'completed_after_cancel' AND c.cancelled_at IS NULL",
    ),
    (
        "refunds without a resolution, or resolutions by refund without one",
        "SELECT coalesce(r.charge_id, s.charge_id) || '/' || coalesce(r.output_index, s.output_index) FROM makegood_refunds r
         FULL JOIN (SELECT * FROM makegood_resolutions WHERE kind = 'refund') s ON s.id = r.resolution_id
         WHERE r.id IS NULL OR s.id IS NULL",
    ),
    (
        "items that were brought home twice, or brought home and refunded",
        "SELECT v.charge_id || '/' || v.output_index FROM makegood_recoveries v
         LEFT JOIN makegood_refunds r ON r.charge_id = v.charge_id AND r.output_index = v.output_index
         WHERE v.kind = 'recover'
         GROUP BY v.charge_id, v.output_index HAVING count(DISTINCT v.id) > 1 OR count(r.id) > 0",
    ),
    (
        "recoveries without their stored output, or outputs of makegood's without a recovery",
        "SELECT coalesce(v.charge_id, s.charge_id) || '/' || coalesce(v.output_index, s.output_index)
         FROM (SELECT * FROM makegood_recoveries WHERE kind = 'recover') v
         FULL JOIN (SELECT * FROM stored_outputs WHERE id LIKE 'makegood:%') s
                ON s.id = v.stored_output_id AND (s.charge_id, s.output_index, s.sha256) = (v.charge_id, v.output_index, v.sha256)
         WHERE v.id IS NULL OR s.id IS NULL",
    ),
    (
        // Committed before it was seen, so before the transaction began that refunded, so before
        // settle's last look. Or, a restart having kept us from seeing it at once: about to be
        // committed long before.
        "refunds of items whose output or refund by the platform was to be seen before",
        "SELECT r.charge_id || '/' || r.output_index || ': ' || v.what || ' noted ' || v.noted || ', seen ' || v.seen || ', the transaction that refunded began ' || r.began
         FROM faults.refunds r
         JOIN faults.visible v ON v.charge_id = r.charge_id AND v.output_index = r.output_index AND v.what IN ('output', 'refund')
         WHERE v.seen < r.began OR v.noted < r.began - interval '2 seconds'",
    ),
    (
        "refunds that were not noted as they happened",
        "SELECT r.charge_id || '/' || r.output_index FROM makegood_refunds r
         WHERE (SELECT count(*) FROM faults.refunds f WHERE f.charge_id = r.charge_id AND f.output_index = r.output_index) <> 1",
    ),
    (
        // Whichever was first: both hold the balance before they look.
        "refunds of items that the platform refunded under the balance's lock",
        "SELECT r.charge_id || '/' || r.output_index || ': given ' || v.noted FROM makegood_refunds r
         JOIN faults.visible v ON v.charge_id = r.charge_id AND v.output_index = r.output_index AND v.what = 'given'",
    ),
    (
        "refunds of items whose output makegood_store_output had taken in",
        "SELECT r.charge_id || '/' || r.output_index || ': taken in ' || v.noted || ', refunded ' || r.refunded_at FROM makegood_refunds r
         JOIN faults.visible v ON v.charge_id = r.charge_id AND v.output_index = r.output_index AND v.what = 'kept'",
    ),
    (
        "counters that are not the books'",
        "SELECT x.metric || ': ' || coalesce(c.value, 0) || ' instead of ' || x.books FROM (
           SELECT 'refunded_credits' AS metric, (SELECT coalesce(sum(credits), 0) FROM ledger_entries WHERE refund_id IS NOT NULL) AS books
           UNION ALL SELECT 'refunds', (SELECT count(*) FROM makegood_refunds)
           UNION ALL SELECT 'recoveries', (SELECT count(*) FROM makegood_recoveries)) x
         LEFT JOIN (SELECT metric, sum(value) AS value FROM makegood_counters GROUP BY metric) c ON c.metric = x.metric
         WHERE coalesce(c.value, 0) <> x.books",
    ),
    // In the order of the transactions, not of the clock: a refund that is dated ahead counts, and
    // a release discounts all refunds before it.
    (
        "refunds beyond the brake's limit in some hour, counted from its last release",
        "SELECT r.charge_id || '/' || r.output_index FROM makegood_refunds r
         WHERE $brake > 0 AND (SELECT count(*) FROM makegood_refunds b
                WHERE b.xmin::text::bigint <= r.xmin::text::bigint AND b.refunded_at > r.refunded_at - interval '1 hour'
                  AND b.xmin::text::bigint > coalesce((SELECT max(e.xmin::text::bigint) FROM makegood_brake_events e
                                                       WHERE e.kind = 'released' AND e.xmin::text::bigint < r.xmin::text::bigint), 0)) > $brake",
    ),
    (
        "refunds beyond the brake's limit of credits in some hour, counted from its last release",
        "SELECT r.charge_id || '/' || r.output_index FROM makegood_refunds r
         WHERE $brake > 0 AND (SELECT sum(b.subscription_credits + b.wallet_credits) FROM makegood_refunds b
                WHERE b.xmin::text::bigint <= r.xmin::text::bigint AND b.refunded_at > r.refunded_at - interval '1 hour'
                  AND b.xmin::text::bigint > coalesce((SELECT max(e.xmin::text::bigint) FROM makegood_brake_events e
                                                       WHERE e.kind = 'released' AND e.xmin::text::bigint < r.xmin::text::bigint), 0)) > $brake_credits",
    ),
    (
        // As many or more: a row may still hold what was refunded before, in the same minute of an
        // earlier day by a wrong clock.
        "sums of the brake that hold less than was refunded since its last release",
        "SELECT m.provider || ' ' || m.minute FROM (
             SELECT r.provider, date_trunc('minute', r.refunded_at) AS minute, count(*) AS refunds FROM makegood_refunds r
             WHERE r.xmin::text::bigint > coalesce((SELECT max(xmin::text::bigint) FROM makegood_brake_events WHERE kind = 'released'), 0)
               AND r.refunded_at > (SELECT max(refunded_at) FROM makegood_refunds) - interval '1 day'
             GROUP BY 1, 2) m
         WHERE m.refunds > coalesce((SELECT s.refunds FROM makegood_refund_sums s
                                     WHERE s.provider = m.provider AND s.began_at >= m.minute
                                       AND s.slot = mod(floor(extract(epoch FROM m.minute) / 60)::bigint, 2880)), 0)",
    ),
];

/// True once an undisturbed pass has ended.
pub const CALM: &[(&str, &str)] = &[
    (
        // A clock that went back leaves leases of the dead that run out later than they should.
        "orphans that are leased",
        "SELECT charge_id || '/' || output_index || ' until ' || leased_until FROM makegood_orphans
         WHERE leased_until IS NOT NULL AND (NOT $wild OR leased_until < clock_timestamp())",
    ),
    (
        "orphans that were due when the last pass began, and still are",
        "SELECT o.charge_id || '/' || o.output_index || ' since ' || o.due_at FROM makegood_orphans o
         WHERE o.state IN ('open', 'held') AND o.due_at <= (SELECT started_at FROM makegood_passes ORDER BY id DESC LIMIT 1)
           AND NOT ($wild AND EXISTS (SELECT 1 FROM makegood_orphans l WHERE l.leased_until > clock_timestamp()
                                      AND (l.id = o.id OR l.provider_job_id = o.provider_job_id)))",
    ),
    (
        // A charge that was committed more than an hour late is found by the scan at 20 hours, if
        // not by the one at 6.
        "items past their grace without an output, of which nothing is known",
        "SELECT i.charge_id || '/' || i.output_index || ' committed ' || i.late_by || ' minutes late' FROM faults.items i JOIN charges c ON c.id = i.charge_id
         WHERE c.charged_at < (SELECT started_at FROM makegood_passes ORDER BY id DESC LIMIT 1)
                              - CASE WHEN i.late_by <= 60 AND NOT $wild THEN interval '15 minutes' ELSE interval '20 hours' + interval '$slack' END
           AND NOT EXISTS (SELECT 1 FROM makegood_orphans o WHERE o.charge_id = i.charge_id AND o.output_index = i.output_index)
           AND NOT EXISTS (SELECT 1 FROM stored_outputs s WHERE s.charge_id = i.charge_id AND s.output_index = i.output_index)",
    ),
    (
        "items open past the end of their window",
        "SELECT o.charge_id || '/' || o.output_index || ' ' || o.state || ' ' || coalesce(o.reason, '-') || ', charged ' || c.charged_at || ', opened ' || o.opened_at
         FROM makegood_orphans o JOIN charges c ON c.id = o.charge_id
         WHERE o.state IN ('open', 'held') AND o.opened_at <= c.charged_at + interval '20 hours'
           AND c.charged_at + interval '24 hours' + interval '$slack' < clock_timestamp()",
    ),
    (
        // Within these two hours it is asked three times over half an hour, if there are passes to
        // ask. Two questions that count are at most a quarter of an hour apart, and undisturbed
        // passes at least eight minutes, so three of five passes ask. If the provider does not
        // answer, its circuit may stay open until the two hours are over: then the five passes
        // count from there.
        "items that were opened late, and are open longer than passes need",
        "SELECT o.charge_id || '/' || o.output_index || ' ' || o.state || ' ' || coalesce(o.reason, '-') || ', charged ' || c.charged_at || ', opened ' || o.opened_at
                || ', asked ' || o.questions
         FROM makegood_orphans o JOIN charges c ON c.id = o.charge_id
         CROSS JOIN LATERAL (SELECT o.opened_at + CASE WHEN o.provider = 'offline' OR o.provider IN (SELECT provider FROM faults.away)
                                                       THEN interval '2 hours' ELSE '0' END AS since) x
         WHERE o.state IN ('open', 'held') AND o.opened_at > c.charged_at + interval '20 hours'
           AND (SELECT max(k.at) > o.opened_at + interval '150 minutes' + interval '$slack' AND count(*) >= 5
                FROM faults.calm k WHERE k.at >= x.since)",
    ),
    (
        "items that ended otherwise than their job's fate has it, and nobody touched them",
        "SELECT i.charge_id || '/' || i.output_index || ' (' || i.kind || '): wanted ' || i.want || ', is ' || o.state || ' ' || coalesce(o.reason, '-')
         FROM faults.items i JOIN makegood_orphans o ON o.charge_id = i.charge_id AND o.output_index = i.output_index
         WHERE NOT i.touched AND o.state <> 'open'
           -- Files that nobody numbered go in order to those that still wait: touching one moves them all.
           AND (i.kind <> 'two of three' OR NOT EXISTS (SELECT 1 FROM faults.items t WHERE t.charge_id = i.charge_id AND t.touched)) AND (o.state <> 'held' OR o.reason <> 'brake') AND i.want NOT LIKE '%' || o.state || '%'",
    ),
];

/// True when every window has closed.
pub const AT_THE_END: &[(&str, &str)] = &[
    (
        "items that ended in neither an output nor a refund",
        "SELECT i.charge_id || '/' || i.output_index || ' (' || i.kind || '): ' || coalesce(o.state || ' ' || coalesce(o.reason, ''), 'nothing known')
         FROM faults.items i LEFT JOIN makegood_orphans o ON o.charge_id = i.charge_id AND o.output_index = i.output_index
         WHERE NOT EXISTS (SELECT 1 FROM stored_outputs s JOIN charges c ON c.id = i.charge_id
                           WHERE s.charge_id = i.charge_id AND s.output_index = i.output_index
                             AND (s.project_id, s.node_id) = (c.project_id, c.node_id))
           AND NOT EXISTS (SELECT 1 FROM ledger_entries l WHERE l.kind = 'refund' AND l.charge_id = i.charge_id AND l.output_index = i.output_index)
           AND NOT (coalesce(o.reason, '-') = 'completed_after_cancel' AND EXISTS (SELECT 1 FROM charges c WHERE c.id = i.charge_id AND c.cancelled_at IS NOT NULL))",
    ),
    (
        "orphans that are open or held",
        "SELECT charge_id || '/' || output_index || ' ' || state || ' ' || coalesce(reason, '-') FROM makegood_orphans WHERE state IN ('open', 'held')",
    ),
];

/// Items that the platform refunded or stored while makegood refunded them, neither under the lock
/// that the other takes. These races are unavoidable. Avoidable ones are found above.
pub const UNAVOIDABLE_RACES: &str = "SELECT count(*) FROM makegood_refunds r
    JOIN faults.visible v ON v.charge_id = r.charge_id AND v.output_index = r.output_index AND v.what IN ('output', 'refund')";

/// Actions of the platform without a lock, each of which could have been such a race.
pub const UNLOCKED_ACTIONS: &str = "SELECT count(*) FROM faults.visible WHERE what IN ('output', 'refund')";

/// The history of one item, in order of the database's time.
pub const STORY: &str = "
    SELECT to_char(at, 'DD HH24:MI:SS.US ') || said FROM (
      SELECT c.charged_at AS at, 0 AS nth, 'charged ' || i.credits || ' by ' || c.provider || ', job ' || coalesce(i.provider_job_id, c.provider_job_id, '-') AS said
        FROM charge_items i JOIN charges c ON c.id = i.charge_id WHERE i.charge_id = '$charge' AND i.output_index = $index
      UNION ALL SELECT at, id, 'event ' || kind || ' ' || coalesce(reason, '') || ', rule ' || coalesce(rule::text, '-') || ', token ' || coalesce(lease_token::text, '-')
             || ', pass ' || coalesce(pass_id::text, '-') || ' ' || coalesce(detail, '') FROM makegood_orphan_events WHERE charge_id = '$charge' AND output_index = $index
      UNION ALL SELECT refunded_at, 1, 'refund ' || subscription_credits || '+' || wallet_credits FROM makegood_refunds WHERE charge_id = '$charge' AND output_index = $index
      UNION ALL SELECT posted_at, 2, 'ledger ' || id || ' ' || kind || ' ' || bucket || ' ' || credits FROM ledger_entries WHERE charge_id = '$charge' AND coalesce(output_index, $index) = $index
      UNION ALL SELECT stored_at, 3, 'output ' || id || ' of ' || provider_job_id || '#' || provider_output_index || ' on ' || coalesce(charge_id, '-') || '/' || coalesce(output_index, -9)
        FROM stored_outputs WHERE (charge_id = '$charge' AND output_index = $index) OR id = 'lost:$charge'
      UNION ALL SELECT noted + (SELECT minutes + wrong_by FROM faults.clock) * interval '1 minute', 4, what || ' by the platform, at ' || noted || ' (by the clock that does not leap), seen ' || coalesce(seen::text, '-')
        FROM faults.visible WHERE charge_id = '$charge' AND output_index = $index
      UNION ALL SELECT began + (SELECT minutes + wrong_by FROM faults.clock) * interval '1 minute', 5, 'the refund''s transaction began at ' || began || ' (by the same)' FROM faults.refunds WHERE charge_id = '$charge' AND output_index = $index
      UNION ALL SELECT a.asked_at, 5, 'answer ' || a.verdict || ' ' || coalesce(a.message, '') FROM makegood_answers a JOIN charges c ON a.provider_job_id = c.provider_job_id AND c.id = '$charge'
      UNION ALL SELECT due_at, 6, 'stands as ' || state || ' ' || coalesce(reason, '-') || ', due here, token ' || lease_token || ', questions ' || questions || ', refund_by ' || refund_by
        FROM makegood_orphans WHERE charge_id = '$charge' AND output_index = $index
    ) AS x ORDER BY at, nth";
