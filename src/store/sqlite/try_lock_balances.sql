-- try_lock_balances: nothing is locked by others, the transaction is the only writer there is. $1:
-- what PostgreSQL would be given.
SELECT account_id, bucket FROM balances WHERE $1 IS NULL
