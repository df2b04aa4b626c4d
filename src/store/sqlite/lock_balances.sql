-- lock_balances: does nothing, because the transaction is the only writer. $1: as on PostgreSQL.
SELECT 1 WHERE $1 IS NULL
