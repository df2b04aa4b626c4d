//! Invariants at the end, as SQL of the test's own, and an end state as lines that can be compared.

/// Each names rows that must not be there; run by `World::books_agree`.
pub const NONE: &[(&str, &str)] = &[
    (
        "items with another end than their story's",
        "SELECT coalesce(e.charge_id, o.charge_id) || '/' || coalesce(e.output_index, o.output_index) || ' (' || i.kind || '): wanted '
                || coalesce(e.want, '-') || ', is ' || coalesce(o.state || ' ' || coalesce(o.reason, ''), '-')
         FROM real_input.expected e
         FULL JOIN makegood_orphans o ON o.charge_id = e.charge_id AND o.output_index = e.output_index
         LEFT JOIN real_input.items i ON i.charge_id = coalesce(e.charge_id, o.charge_id)
                                     AND i.output_index = coalesce(e.output_index, o.output_index)
         WHERE coalesce(e.want, '-') IS DISTINCT FROM CASE WHEN e.want = 'open *' AND o.state = 'open' THEN e.want
                                            ELSE coalesce(o.state || ' ' || coalesce(o.reason, ''), '-') END",
    ),
    (
        "charges that got back something else, per bucket, than they are due",
        "SELECT coalesce(d.charge_id, r.charge_id) || ': due ' || d.subscription || '+' || d.wallet || ', got ' || r.subscription || '+' || r.wallet
         FROM real_input.due d
         FULL JOIN (SELECT charge_id, sum(subscription_credits) AS subscription, sum(wallet_credits) AS wallet
                    FROM makegood_refunds GROUP BY charge_id) r ON r.charge_id = d.charge_id
         WHERE (d.subscription, d.wallet) IS DISTINCT FROM (r.subscription, r.wallet)",
    ),
    (
        "items refunded by another sum than they cost",
        "SELECT i.charge_id || '/' || i.output_index FROM makegood_refunds r
         LEFT JOIN real_input.items i ON i.charge_id = r.charge_id AND i.output_index = r.output_index
         WHERE i.credits IS DISTINCT FROM r.subscription_credits + r.wallet_credits",
    ),
    (
        "charges whose ledger gave something else, per bucket, than they are due",
        "SELECT coalesce(d.charge_id, l.charge_id)
         FROM real_input.due d
         FULL JOIN (SELECT e.charge_id, coalesce(sum(e.credits) FILTER (WHERE e.bucket = 'subscription'), 0) AS subscription,
                           coalesce(sum(e.credits) FILTER (WHERE e.bucket = 'wallet'), 0) AS wallet
                    FROM ledger_entries e LEFT JOIN real_input.ledger_before b ON b.id = e.id
                    WHERE b.id IS NULL GROUP BY e.charge_id) l ON l.charge_id = d.charge_id
         WHERE (d.subscription, d.wallet) IS DISTINCT FROM (l.subscription, l.wallet)",
    ),
    (
        "entries of the platform's that changed or went",
        "SELECT b.id FROM real_input.ledger_before b LEFT JOIN ledger_entries e ON e.id = b.id WHERE e IS DISTINCT FROM b::text::ledger_entries",
    ),
    (
        "entries of another account, or of no refund of ours, or of another sum than it",
        "SELECT e.id FROM ledger_entries e
         LEFT JOIN real_input.ledger_before b ON b.id = e.id
         LEFT JOIN charges c ON c.id = e.charge_id
         LEFT JOIN makegood_refunds r ON r.id = e.refund_id AND r.charge_id = e.charge_id AND r.output_index = e.output_index
         WHERE b.id IS NULL
           AND ((e.account_id = c.account_id AND e.kind = 'refund'
                 AND e.credits = CASE e.bucket WHEN 'subscription' THEN r.subscription_credits ELSE r.wallet_credits END) IS NOT TRUE)",
    ),
    (
        "balances that did not rise by exactly what their accounts are due",
        "SELECT b.account_id || ' ' || b.bucket || ': ' || n.credits - b.credits || ' instead of ' || coalesce(d.credits, 0)
         FROM real_input.balances_before b
         FULL JOIN balances n ON n.account_id = b.account_id AND n.bucket = b.bucket
         LEFT JOIN (SELECT account_id, 'subscription' AS bucket, sum(subscription) AS credits FROM real_input.due GROUP BY account_id
                    UNION ALL SELECT account_id, 'wallet', sum(wallet) FROM real_input.due GROUP BY account_id) d
                ON d.account_id = n.account_id AND d.bucket = n.bucket
         WHERE n.credits IS DISTINCT FROM b.credits + coalesce(d.credits, 0)",
    ),
    (
        "charges whose own row does not say what was drawn and given back",
        "SELECT m.charge_id FROM makegood_charges m
         LEFT JOIN charges c ON c.id = m.charge_id LEFT JOIN real_input.due d ON d.charge_id = m.charge_id
         WHERE (m.account_id, m.subscription_drawn, m.wallet_drawn, m.subscription_refunded, m.wallet_refunded)
               IS DISTINCT FROM (c.account_id, c.subscription_credits, c.wallet_credits, coalesce(d.subscription, 0), coalesce(d.wallet, 0))",
    ),
    (
        "orphans without exactly the events of their way",
        "SELECT o.charge_id || '/' || o.output_index || ' ' || o.state || ': ' || coalesce(e.kinds, '')
         FROM makegood_orphans o
         LEFT JOIN (SELECT orphan_id, string_agg(kind, ' ' ORDER BY id) AS kinds FROM makegood_orphan_events
                    WHERE kind <> 'wait' GROUP BY orphan_id) e ON e.orphan_id = o.id
         WHERE e.kinds IS DISTINCT FROM 'opened' || CASE o.state WHEN 'refunded' THEN ' refund' WHEN 'recovered' THEN ' recover'
               WHEN 'relinked' THEN ' relink' WHEN 'closed' THEN ' close' WHEN 'held' THEN ' hold' ELSE '' END",
    ),
    (
        "ended orphans without exactly one resolution like them",
        "SELECT o.charge_id || '/' || o.output_index FROM makegood_orphans o
         LEFT JOIN makegood_resolutions r ON r.charge_id = o.charge_id AND r.output_index = o.output_index
         WHERE (o.state NOT IN ('open', 'held')) <> (r.id IS NOT NULL) OR r.superseded_at IS NOT NULL OR r.reason <> o.reason
            OR r.kind <> CASE o.state WHEN 'refunded' THEN 'refund' WHEN 'recovered' THEN 'recover' WHEN 'relinked' THEN 'relink' ELSE 'close' END",
    ),
    (
        "recovered items without exactly one output in their place",
        "SELECT i.charge_id || '/' || i.output_index FROM real_input.items i
         JOIN charges c ON c.id = i.charge_id
         LEFT JOIN stored_outputs s ON s.charge_id = i.charge_id AND s.output_index = i.output_index AND s.id LIKE 'makegood:%'
         LEFT JOIN makegood_recoveries v ON v.stored_output_id = s.id AND v.kind = 'recover'
         WHERE (i.want LIKE 'recovered %' OR s.id IS NOT NULL)
         GROUP BY i.charge_id, i.output_index, i.want
         HAVING count(s.id) <> 1 OR count(v.id) <> 1 OR i.want NOT LIKE 'recovered %'
             OR bool_or((s.project_id, s.node_id, s.provider_job_id, s.sha256, s.size_bytes) IS DISTINCT FROM
                        (c.project_id, c.node_id, coalesce(i.own_job, i.charge_job), v.sha256, v.size_bytes))",
    ),
    (
        "items whose output was put back and is not in its place",
        "SELECT i.charge_id || '/' || i.output_index FROM real_input.items i
         JOIN charges c ON c.id = i.charge_id
         LEFT JOIN stored_outputs s ON s.id = 'o' || i.g || '-' || i.output_index
         LEFT JOIN makegood_recoveries v ON v.stored_output_id = s.id AND v.kind = 'relink'
         WHERE i.want LIKE 'relinked %'
           AND (v.id IS NULL OR (s.charge_id, s.output_index, s.project_id, s.node_id) IS DISTINCT FROM
                                (i.charge_id, i.output_index, c.project_id, c.node_id))",
    ),
    (
        "outputs that nobody had to touch and somebody did",
        "SELECT s.id FROM stored_outputs s
         LEFT JOIN real_input.items i ON s.id = 'o' || i.g || '-' || i.output_index
         JOIN real_input.kinds k ON k.name = i.kind
         WHERE s.id NOT LIKE 'makegood:%' AND k.stored_at IN ('its place', 'deleted', 'moved')
           AND (s.charge_id, s.output_index) IS DISTINCT FROM (i.charge_id, i.output_index)",
    ),
    (
        "sums of the counters that are not the books'",
        "SELECT x.metric FROM (
           SELECT 'refunded_credits' AS metric, (SELECT sum(credits) FROM real_input.due) AS books
           UNION ALL SELECT 'refunds', (SELECT count(*) FROM real_input.items WHERE want LIKE 'refunded %')
           UNION ALL SELECT 'recoveries', (SELECT count(*) FROM real_input.items WHERE want LIKE 'recovered %' OR want LIKE 'relinked %')) x
         LEFT JOIN (SELECT metric, sum(value) AS value FROM makegood_counters GROUP BY metric) c ON c.metric = x.metric
         WHERE c.value IS DISTINCT FROM x.books",
    ),
    (
        "a total that does not add up: everything drawn is kept, refunded or still open",
        "SELECT 'sum of balances' WHERE (SELECT sum(credits) FROM balances) - (SELECT sum(credits) FROM real_input.balances_before)
                <> (SELECT sum(l.credits) FROM ledger_entries l WHERE l.refund_id LIKE 'makegood:%')
         UNION ALL
         SELECT 'billable: ' || u.account_id FROM billable_usage u
         JOIN (SELECT c.account_id, sum(i.credits) AS credits FROM charge_items i JOIN charges c ON c.id = i.charge_id
               LEFT JOIN real_input.expected e ON e.charge_id = i.charge_id AND e.output_index = i.output_index
               WHERE e.want IS NULL OR e.want NOT LIKE 'refunded %' AND e.want NOT LIKE '% already_refunded'
               GROUP BY c.account_id) m ON m.account_id = u.account_id
         WHERE u.credits <> m.credits",
    ),
];

/// The end state as lines: everything except what may differ from run to run (times, ids, tokens,
/// places on disk, how often an open case was examined, leftovers of killed copies, and how the
/// items of one charge share its two buckets).
pub const STATE: &str = "
    SELECT 'orphan ' || charge_id || '/' || output_index || ' ' || provider || ' ' || coalesce(provider_job_id, '-') || ' ' || state
           || CASE WHEN state = 'open' THEN '' ELSE ' ' || coalesce(reason, '-') END AS line FROM makegood_orphans
    UNION ALL SELECT 'resolution ' || charge_id || '/' || output_index || ' ' || kind || ' ' || reason || ' ' || rule || ' ' || decided_by
           || CASE WHEN superseded_at IS NULL THEN '' ELSE ' superseded' END FROM makegood_resolutions
    UNION ALL SELECT 'refund ' || id || ' ' || account_id || ' ' || provider || ' ' || model || ' ' || reason || ' '
           || subscription_credits + wallet_credits FROM makegood_refunds
    UNION ALL SELECT 'charge ' || charge_id || ' ' || subscription_drawn || ' ' || wallet_drawn || ' ' || subscription_refunded || ' '
           || wallet_refunded FROM makegood_charges
    UNION ALL SELECT 'ledger ' || account_id || ' ' || charge_id || ' ' || bucket || ' ' || kind || ' ' || sum(credits) FROM ledger_entries
           GROUP BY account_id, charge_id, bucket, kind
    UNION ALL SELECT 'balance ' || account_id || ' ' || bucket || ' ' || credits FROM balances
    UNION ALL SELECT 'output ' || coalesce(charge_id, '-') || '/' || coalesce(output_index, -9) || ' ' || provider || ' ' || provider_job_id
           || '/' || provider_output_index || ' ' || project_id || ' ' || node_id || ' ' || content_type || ' ' || size_bytes || ' ' || sha256
           || CASE WHEN moved_at IS NULL THEN '' ELSE ' moved' END || CASE WHEN deleted_at IS NULL THEN '' ELSE ' deleted' END
           FROM stored_outputs
    UNION ALL SELECT 'recovery ' || charge_id || '/' || output_index || ' ' || kind || ' ' || coalesce(from_charge_id, '-') || ' '
           || coalesce(sha256, '-') || ' ' || coalesce(size_bytes, 0) FROM makegood_recoveries
    UNION ALL SELECT 'event ' || charge_id || '/' || output_index || ' ' || kind || ' ' || coalesce(reason, '-') || ' ' || count(*)
           FROM makegood_orphan_events WHERE kind <> 'wait' GROUP BY charge_id, output_index, kind, reason
    UNION ALL SELECT 'counter ' || metric || ' ' || label_a || ' ' || label_b || ' ' || value FROM makegood_counters
           WHERE metric NOT LIKE 'resolution%' AND metric <> 'swept'
    UNION ALL SELECT 'brake ' || coalesce(reason, 'off') FROM makegood_brake
    ORDER BY 1";
