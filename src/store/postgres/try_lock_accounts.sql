-- try_lock_accounts: locks makegood's rows of the listed accounts that no other settle has locked, and returns them. The first lock
-- of a settle. $1: JSON list of account ids.
SELECT account_id FROM makegood_accounts
WHERE account_id IN (SELECT v FROM jsonb_array_elements_text($1::jsonb) AS v)
ORDER BY account_id
FOR UPDATE SKIP LOCKED
