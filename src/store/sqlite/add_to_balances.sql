-- add_to_balances: credits go back to balances (P03). $1: JSON list of {account_id, bucket,
-- credits} in the order of the keys. One row comes back for each balance row that was hit: exactly
-- one a key, otherwise the transaction is rolled back and the items are held. RETURNING rather than
-- a count of rows: over a view with a trigger SQLite counts none.
UPDATE balances AS b
SET credits = b.credits + d.credits
FROM (SELECT value ->> 'account_id' AS account_id, value ->> 'bucket' AS bucket,
             value ->> 'credits' AS credits FROM json_each($1)) AS d
WHERE b.account_id = d.account_id AND b.bucket = d.bucket
RETURNING account_id, bucket
