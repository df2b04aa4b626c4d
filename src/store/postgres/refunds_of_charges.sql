-- refunds_of_charges: refunds of the listed charges in the ledger that are not makegood's.
-- $1: JSON list of charge ids. A refund of makegood's is looked up by its key, once per entry.
SELECT l.charge_id, l.output_index, l.bucket, l.credits
FROM ledger_entries l
WHERE l.charge_id = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb))) AND l.kind = 'refund'
  AND (SELECT count(*) FROM makegood_refunds r WHERE r.id = l.refund_id) = 0
