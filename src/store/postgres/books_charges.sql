-- books_charges: the next charges that the ledger names, for `makegood check --books`. $1: the
-- charge after which they begin. $2: at most so many entries are cut, by the index on the charge;
-- each charge that they name is then read in full. strays: entries that bear an id of makegood's
-- and belong to no refund of this charge. refunded_*: what the ledger gives back, makegood's and
-- the platform's own, in two halves (times 2^32, and the rest). subscription, wallet: what the
-- charge drew; null: there is no such charge. Each charge's entries are read by key, once a charge
-- (OFFSET 0: no join order to choose).
WITH chunk AS MATERIALIZED (
    SELECT e.charge_id FROM ledger_entries e WHERE e.charge_id > $1 ORDER BY e.charge_id LIMIT $2
), named AS MATERIALIZED (
    SELECT DISTINCT charge_id FROM chunk
)
SELECT d.charge_id, s.entries, s.strays, s.stray, s.refunded_high, s.refunded_low,
       (SELECT min(c.subscription_credits) FROM charges c WHERE c.id = d.charge_id) AS subscription,
       (SELECT min(c.wallet_credits) FROM charges c WHERE c.id = d.charge_id) AS wallet
FROM named d
CROSS JOIN LATERAL (
    SELECT count(*) AS entries,
           count(*) FILTER (WHERE n.is_stray > 0) AS strays,
           min(n.id) FILTER (WHERE n.is_stray > 0) AS stray,
           coalesce(sum(n.credits >> 32) FILTER (WHERE n.is_refund), 0)::bigint
               AS refunded_high,
           coalesce(sum(n.credits & 4294967295) FILTER (WHERE n.is_refund), 0)::bigint
               AS refunded_low
    FROM (SELECT e.id, e.credits, e.kind = 'refund' AS is_refund,
                 CASE WHEN substr(e.refund_id, 1, 9) = 'makegood:' OR substr(e.id, 1, 9) = 'makegood:'
                      THEN (SELECT 1 - count(*) FROM makegood_refunds r
                            WHERE r.id = e.refund_id AND r.charge_id = e.charge_id)
                      ELSE 0 END AS is_stray
          FROM ledger_entries e
          WHERE e.charge_id = d.charge_id
          OFFSET 0) AS n
) AS s
ORDER BY d.charge_id
