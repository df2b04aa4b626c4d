-- lock_timeout: does nothing, because the transaction is the only writer. $1: as on PostgreSQL.
SELECT $1 AS lock_timeout
