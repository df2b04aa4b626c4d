-- balances_now: what the listed balances hold now, with all that this transaction has written. No
-- row: there is no such balance.
-- $1: JSON list of {account_id, bucket}.
SELECT b.account_id, b.bucket, b.credits
FROM json_each($1) AS d
CROSS JOIN balances b ON b.account_id = d.value ->> 'account_id' AND b.bucket = d.value ->> 'bucket'
