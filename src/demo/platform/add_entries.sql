-- add_entries: inserts the platform's own ledger entries: charges (negative) and its refunds.
-- $1: JSON list of {id, account_id, bucket, credits, kind, charge_id, output_index, posted_at}.
INSERT INTO ledger_entries (id, account_id, bucket, credits, kind, charge_id, output_index,
                            posted_at)
SELECT value ->> 'id', value ->> 'account_id', value ->> 'bucket', value ->> 'credits',
       value ->> 'kind', value ->> 'charge_id', value ->> 'output_index', value ->> 'posted_at'
FROM json_each($1)
