-- add_to_balances: adds credits to balances (P03). $1: JSON list of {account_id, bucket, credits}
-- in the order of the keys. Returns a row for each balance row that was changed: exactly one for
-- each key, otherwise the transaction is rolled back and the items are held. RETURNING instead of
-- the number of rows, because SQLite counts none over a view with a trigger.
UPDATE balances AS b
SET credits = b.credits + d.credits
FROM (SELECT value ->> 'account_id' AS account_id, value ->> 'bucket' AS bucket,
             value ->> 'credits' AS credits FROM json_each($1)) AS d
WHERE b.account_id = d.account_id AND b.bucket = d.bucket
RETURNING account_id, bucket
