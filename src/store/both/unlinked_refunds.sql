-- unlinked_refunds: refunds of the platform's own that no pass can see, or not in full. $1: at most
-- so many entries are read of each kind, by the index on the charge, however large the ledger is.
-- One row a kind:
--   no_charge: they name no charge. Looked for among the entries without one.
--   unknown_charge, no_item: they name a charge that there is not, or a charge and none of its
--   items. Looked for among the entries whose charge comes last in the order of ids.
-- entries: how many; examples: the first and the last of them.
WITH bare AS (
    SELECT id, kind, credits, refund_id
    FROM (SELECT id, kind, credits, refund_id FROM ledger_entries
          WHERE charge_id IS NULL LIMIT $1) AS of_none
    UNION ALL
    SELECT id, kind, credits, refund_id
    FROM (SELECT id, kind, credits, refund_id FROM ledger_entries
          WHERE charge_id = '' LIMIT $1) AS of_nothing
), named AS (
    SELECT id, kind, credits, refund_id, charge_id, output_index
    FROM ledger_entries WHERE charge_id > '' ORDER BY charge_id DESC LIMIT $1
), judged AS (
    SELECT 'no_charge' AS lack, w.id FROM bare w
    WHERE w.kind = 'refund' AND w.credits > 0
      AND (SELECT count(*) FROM makegood_refunds r WHERE r.id = w.refund_id) = 0
    UNION ALL
    SELECT CASE WHEN (SELECT count(*) FROM charges c WHERE c.id = n.charge_id) = 0
                THEN 'unknown_charge' ELSE 'no_item' END, n.id
    FROM named n
    WHERE n.kind = 'refund' AND n.credits > 0
      AND (SELECT count(*) FROM makegood_refunds r WHERE r.id = n.refund_id) = 0
      AND (n.output_index IS NULL OR (SELECT count(*) FROM charges c WHERE c.id = n.charge_id) = 0)
)
SELECT lack, count(*) AS entries, min(id) AS first_example, max(id) AS last_example
FROM judged
GROUP BY lack
ORDER BY lack
