-- lock_accounts: locks makegood's rows of the listed accounts, one by one in the order of their ids, waits for other settles, and
-- returns them. The first lock of a settle: nothing else is locked while it waits. $1: JSON list of account ids.
SELECT l.account_id
FROM (SELECT v FROM jsonb_array_elements_text($1::jsonb) AS v ORDER BY v) AS d
CROSS JOIN LATERAL (SELECT a.account_id FROM makegood_accounts a WHERE a.account_id = d.v FOR UPDATE) AS l
