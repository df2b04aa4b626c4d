-- newest_charges: the newest charges with their items, outputs and entries, for `makegood check`.
-- $1: at most this many. The index on the time of the charge selects them; everything else is read
-- by key, once for each charge, so the cost does not follow the size of the tables. Sums come in
-- two halves (times 2^32, and the rest), so that none overflows. taken_*: entries of the ledger
-- that name the charge, are no refunds and have no refund_id; lowest_taken: below zero if credits
-- were taken.
WITH newest AS MATERIALIZED (
    SELECT c.id, c.account_id, c.provider, c.provider_job_id, c.charged_at,
           c.subscription_credits, c.wallet_credits
    FROM charges c
    WHERE c.charged_at IS NOT NULL
    ORDER BY c.charged_at DESC, c.id DESC
    LIMIT $1
)
SELECT n.id, n.provider, n.charged_at, n.subscription_credits, n.wallet_credits,
       CAST(CASE WHEN coalesce(n.provider_job_id, '') <> '' THEN 1
                 ELSE (SELECT count(*) FROM charge_items i
                       WHERE i.charge_id = n.id AND coalesce(i.provider_job_id, '') <> '')
            END AS bigint) AS jobs,
       (SELECT count(*) FROM charges c WHERE c.id = n.id) AS rows_of_id,
       (SELECT count(*) FROM charge_items i WHERE i.charge_id = n.id) AS items,
       (SELECT count(*) - count(DISTINCT i.output_index)
        FROM charge_items i WHERE i.charge_id = n.id) AS items_twice,
       (SELECT CAST(coalesce(sum(i.credits >> 32), 0) AS bigint)
        FROM charge_items i WHERE i.charge_id = n.id) AS items_high,
       (SELECT CAST(coalesce(sum(i.credits & 4294967295), 0) AS bigint)
        FROM charge_items i WHERE i.charge_id = n.id) AS items_low,
       (SELECT count(*)
        FROM balances b
        WHERE b.account_id = n.account_id AND b.bucket = 'subscription') AS subscription_rows,
       (SELECT count(*)
        FROM balances b WHERE b.account_id = n.account_id AND b.bucket = 'wallet') AS wallet_rows,
       (SELECT count(*) FROM stored_outputs s WHERE s.charge_id = n.id) AS outputs,
       (SELECT count(*)
        FROM stored_outputs s
        WHERE s.charge_id = n.id AND coalesce(s.sha256, '') = '') AS without_hash,
       (SELECT count(*) FROM makegood_deliveries v WHERE v.charge_id = n.id) AS delivered,
       (SELECT min(e.credits) FROM ledger_entries e
        WHERE e.charge_id = n.id AND e.refund_id IS NULL
          AND coalesce(e.kind, '') <> 'refund') AS lowest_taken,
       (SELECT CAST(coalesce(sum(e.credits >> 32), 0) AS bigint) FROM ledger_entries e
        WHERE e.charge_id = n.id AND e.refund_id IS NULL
          AND coalesce(e.kind, '') <> 'refund') AS taken_high,
       (SELECT CAST(coalesce(sum(e.credits & 4294967295), 0) AS bigint) FROM ledger_entries e
        WHERE e.charge_id = n.id AND e.refund_id IS NULL
          AND coalesce(e.kind, '') <> 'refund') AS taken_low
FROM newest n
ORDER BY n.charged_at DESC, n.id DESC
