-- lock_accounts: does nothing, because the transaction is the only writer. $1: as on PostgreSQL.
SELECT value AS account_id FROM json_each($1)
