-- lock_accounts: nothing to lock, the transaction is the only writer there is. $1: what PostgreSQL
-- would be given.
SELECT value AS account_id FROM json_each($1)
