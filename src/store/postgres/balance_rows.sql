-- balance_rows: how many rows the listed accounts have per bucket; exactly one is right (rule 16).
-- One that holds null is none: adding to it gives null.
-- $1: JSON list of account ids.
SELECT b.account_id, b.bucket, CASE WHEN count(*) = count(b.credits) THEN count(*) ELSE 0 END AS rows
FROM balances b
WHERE b.account_id = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb)))
GROUP BY b.account_id, b.bucket
