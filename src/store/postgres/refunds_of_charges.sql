-- refunds_of_charges: entries of the ledger that name the listed charges and are not makegood's:
-- refunds, and (is_refund 0) what was taken. What bears a refund_id and is no refund is about a
-- refund: it is left out. $1: JSON list of charge ids. A refund of makegood's is looked up by its
-- key, once per entry.
SELECT l.charge_id, l.output_index, l.bucket, l.credits, CAST(CASE WHEN l.kind = 'refund' THEN 1 ELSE 0 END AS bigint) AS is_refund
FROM ledger_entries l
WHERE l.charge_id = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb))) AND (l.kind = 'refund' OR l.refund_id IS NULL)
  AND (SELECT count(*) FROM makegood_refunds r WHERE r.id = l.refund_id) = 0
