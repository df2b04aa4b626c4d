-- lock_timeout: nothing to set, the transaction is the only writer there is. $1: what PostgreSQL
-- would be given.
SELECT $1 AS lock_timeout
