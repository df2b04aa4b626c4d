-- try_lock_accounts: returns all listed accounts as locked, because the transaction is the only
-- writer. $1: JSON list of account ids.
SELECT value AS account_id FROM json_each($1)
