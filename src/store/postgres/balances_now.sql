-- balances_now: what the listed balances hold now, with all that this transaction has written. No
-- row: there is no such balance.
-- $1: JSON list of {account_id, bucket}. Every balance is read by key (OFFSET 0: no join order to
-- choose).
SELECT b.account_id, b.bucket, b.credits
FROM jsonb_to_recordset($1::jsonb) AS d(account_id text, bucket text)
CROSS JOIN LATERAL (SELECT p.account_id, p.bucket, p.credits FROM balances p
                    WHERE p.account_id = d.account_id AND p.bucket = d.bucket OFFSET 0) AS b
