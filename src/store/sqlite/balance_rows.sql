-- balance_rows: how many rows the listed accounts have per bucket; exactly one is right (rule 16).
-- One that holds null is none: adding to it gives null.
-- $1: JSON list of account ids.
SELECT b.account_id, b.bucket, CASE WHEN count(*) = count(b.credits) THEN count(*)
    ELSE 0 END AS rows
FROM balances b
WHERE b.account_id IN (SELECT value FROM json_each($1))
GROUP BY b.account_id, b.bucket
