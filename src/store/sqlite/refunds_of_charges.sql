-- refunds_of_charges: entries of the ledger that name the listed charges and are not makegood's:
-- refunds, and (is_refund 0) what was taken. What bears a refund_id and is no refund is about a
-- refund: it is left out. $1: JSON list of charge ids.
SELECT l.charge_id, l.output_index, l.bucket, l.credits, CASE WHEN l.kind = 'refund' THEN 1
    ELSE 0 END AS is_refund
FROM ledger_entries l
WHERE l.charge_id IN (SELECT value FROM json_each($1))
  AND (l.kind = 'refund' OR l.refund_id IS NULL)
  AND NOT EXISTS (SELECT 1 FROM makegood_refunds r WHERE r.id = l.refund_id)
