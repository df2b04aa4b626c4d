-- try_lock_balances: returns no row, because the transaction is the only writer. $1: as on
-- PostgreSQL.
SELECT account_id, bucket FROM balances WHERE $1 IS NULL
