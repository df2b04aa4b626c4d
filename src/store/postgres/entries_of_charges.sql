-- entries_of_charges: all refunds in the ledger that name the listed charges, with all that this
-- transaction has written.
-- $1: JSON list of charge ids.
SELECT l.id, l.account_id, l.bucket, l.credits, l.charge_id, l.output_index
FROM ledger_entries l
WHERE l.charge_id = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb))) AND l.kind = 'refund'
