-- try_lock_accounts: locks makegood's rows of the listed accounts that no other settle has locked, one by one by their key, and
-- returns them. The first lock of a settle. $1: JSON list of account ids.
SELECT l.account_id
FROM (SELECT v FROM jsonb_array_elements_text($1::jsonb) AS v ORDER BY v) AS d
CROSS JOIN LATERAL (SELECT a.account_id FROM makegood_accounts a WHERE a.account_id = d.v FOR UPDATE SKIP LOCKED) AS l
