-- lock_accounts: locks makegood's rows of the listed accounts in the order of their ids, waits for other settles, and returns them.
-- The first lock of a settle: nothing else is locked while it waits. $1: JSON list of account ids.
SELECT account_id FROM makegood_accounts
WHERE account_id IN (SELECT v FROM jsonb_array_elements_text($1::jsonb) AS v)
ORDER BY account_id
FOR UPDATE
