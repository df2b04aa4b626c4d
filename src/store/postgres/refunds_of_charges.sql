-- refunds_of_charges: refunds of the listed charges in the ledger that are not makegood's.
-- $1: JSON list of charge ids.
SELECT l.charge_id, l.output_index, l.bucket, l.credits
FROM ledger_entries l
WHERE l.kind = 'refund' AND l.charge_id IN (SELECT v FROM jsonb_array_elements_text($1::jsonb) AS v)
  AND NOT EXISTS (SELECT 1 FROM makegood_refunds r WHERE r.id = l.refund_id)
