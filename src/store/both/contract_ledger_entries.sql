-- contract_ledger_entries: whether the relation has the columns that makegood needs, and a row to
-- see what is in them.
SELECT id, account_id, bucket, credits, kind, charge_id, output_index, refund_id, posted_at
FROM ledger_entries LIMIT 1
