-- insert_ledger_entries: the platform's ledger gets one entry per bucket that something goes back to. Its id is made of the item and bucket,
-- so that even a ledger with no other rule refuses a second one.
-- $1: JSON list of {id, account_id, bucket, credits, kind, charge_id, output_index, refund_id, posted_at}.
INSERT INTO ledger_entries (id, account_id, bucket, credits, kind, charge_id, output_index, refund_id, posted_at)
SELECT d.id, d.account_id, d.bucket, d.credits, d.kind, d.charge_id, d.output_index, d.refund_id, d.posted_at
FROM jsonb_to_recordset($1::jsonb) AS d(id text, account_id text, bucket text, credits bigint, kind text, charge_id text, output_index bigint, refund_id text, posted_at timestamptz)
WHERE true
