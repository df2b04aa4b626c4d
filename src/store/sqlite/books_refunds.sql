-- books_refunds: the next refunds of makegood's, each with the ledger's entries about it, for
-- `makegood check --books`. $1: the refund after which they begin. $2: at most so many refunds. A
-- row is a refund with one entry: of this refund (of_refund 1), or of the platform's own for the
-- same item. A refund without entries has one row whose entry is null.
WITH chunk AS MATERIALIZED (
    SELECT r.id, r.resolution_id, r.charge_id, r.output_index, r.account_id, r.subscription_credits,
           r.wallet_credits
    FROM makegood_refunds r
    WHERE r.id > $1
    ORDER BY r.id
    LIMIT $2
)
SELECT r.id, r.charge_id, r.output_index, r.account_id, r.subscription_credits, r.wallet_credits,
       (SELECT count(*) FROM makegood_refund_reversals v WHERE v.refund_id = r.id) AS reversals,
       (SELECT count(*) FROM makegood_charges c WHERE c.charge_id = r.charge_id) AS charges,
       (SELECT count(*) FROM makegood_resolutions s
        WHERE s.id = r.resolution_id AND s.charge_id = r.charge_id
          AND s.output_index = r.output_index AND s.kind = 'refund') AS resolutions,
       (SELECT min(i.credits) FROM charge_items i
        WHERE i.charge_id = r.charge_id AND i.output_index = r.output_index) AS price,
       e.id AS entry, CAST(CASE WHEN e.refund_id = r.id THEN 1 ELSE 0 END AS bigint) AS of_refund,
       e.bucket, e.credits, e.kind, e.account_id AS entry_account, e.output_index AS entry_index
FROM chunk r
LEFT JOIN ledger_entries e ON e.charge_id = r.charge_id
    AND (e.refund_id = r.id OR (e.kind = 'refund' AND e.output_index = r.output_index))
ORDER BY r.id
