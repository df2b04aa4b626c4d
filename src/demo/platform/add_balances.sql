-- add_balances: inserts the opening balances.
-- $1: JSON list of {account_id, bucket, credits}.
INSERT INTO balances (account_id, bucket, credits)
SELECT value ->> 'account_id', value ->> 'bucket', value ->> 'credits' FROM json_each($1)
