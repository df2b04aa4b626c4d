-- add_accounts: makes the rows that settle locks for the listed accounts, before its transaction. $1: JSON list of account ids.
INSERT INTO makegood_accounts (account_id)
SELECT v FROM jsonb_array_elements_text($1::jsonb) AS v
WHERE (SELECT 1 FROM makegood_accounts a WHERE a.account_id = v) IS NULL
ORDER BY v
ON CONFLICT (account_id) DO NOTHING
