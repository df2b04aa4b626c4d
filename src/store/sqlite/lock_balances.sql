-- lock_balances: nothing to hold, the transaction is the only writer there is. $1: what PostgreSQL
-- would be given.
SELECT 1 WHERE $1 IS NULL
