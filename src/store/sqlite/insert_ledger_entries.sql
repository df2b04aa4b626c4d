-- insert_ledger_entries: adds one entry to the platform's ledger for each bucket that gets credits.
-- The entry's id is derived from item and bucket, so that even a ledger without other constraints
-- rejects a second one. $1: JSON list of {id, account_id, bucket, credits, kind, charge_id,
-- output_index, refund_id, posted_at}.
INSERT INTO ledger_entries (id, account_id, bucket, credits, kind, charge_id, output_index,
                            refund_id, posted_at)
SELECT d.id, d.account_id, d.bucket, d.credits, d.kind, d.charge_id, d.output_index, d.refund_id,
       d.posted_at
FROM (SELECT value ->> 'id' AS id, value ->> 'account_id' AS account_id,
             value ->> 'bucket' AS bucket, value ->> 'credits' AS credits, value ->> 'kind' AS kind,
             value ->> 'charge_id' AS charge_id, value ->> 'output_index' AS output_index,
             value ->> 'refund_id' AS refund_id, value ->> 'posted_at' AS posted_at
             FROM json_each($1)) AS d
WHERE true
