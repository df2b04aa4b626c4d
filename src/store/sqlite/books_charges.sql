-- books_charges: the next charges that the ledger names, for `makegood check --books`. $1: the
-- charge after which they begin. $2: at most so many entries are cut, by the index on the charge;
-- each charge that they name is then read in full. strays: entries that bear an id of makegood's
-- and belong to no refund of this charge. refunded_*: what the ledger gives back, makegood's and
-- the platform's own, in two halves (times 2^32, and the rest). subscription, wallet: what the
-- charge drew; null: there is no such charge.
WITH chunk AS MATERIALIZED (
    SELECT e.charge_id FROM ledger_entries e WHERE e.charge_id > $1 ORDER BY e.charge_id LIMIT $2
), named AS MATERIALIZED (
    SELECT DISTINCT charge_id FROM chunk
), entries AS (
    SELECT d.charge_id, e.id, e.credits, CASE WHEN e.kind = 'refund' THEN 1 ELSE 0 END AS is_refund,
           CASE WHEN substr(e.refund_id, 1, 9) = 'makegood:' OR substr(e.id, 1, 9) = 'makegood:'
                THEN (SELECT 1 - count(*) FROM makegood_refunds r
                            WHERE r.id = e.refund_id AND r.charge_id = e.charge_id)
                ELSE 0 END AS is_stray
    FROM named d
    JOIN ledger_entries e ON e.charge_id = d.charge_id
)
SELECT n.charge_id, count(*) AS entries,
       CAST(sum(CASE WHEN n.is_stray > 0 THEN 1 ELSE 0 END) AS bigint) AS strays,
       min(CASE WHEN n.is_stray > 0 THEN n.id END) AS stray,
       CAST(sum(CASE WHEN n.is_refund = 1 THEN n.credits >> 32 ELSE 0 END) AS bigint)
           AS refunded_high,
       CAST(sum(CASE WHEN n.is_refund = 1 THEN n.credits & 4294967295 ELSE 0 END) AS bigint)
           AS refunded_low,
       (SELECT min(c.subscription_credits) FROM charges c WHERE c.id = n.charge_id) AS subscription,
       (SELECT min(c.wallet_credits) FROM charges c WHERE c.id = n.charge_id) AS wallet
FROM entries n
GROUP BY n.charge_id
ORDER BY n.charge_id
