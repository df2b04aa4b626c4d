-- takes_writes: whether this connection may write: not on a standby, and not where the role, the
-- database or the server says default_transaction_read_only.
SELECT pg_is_in_recovery()::int::bigint AS standby,
       (current_setting('transaction_read_only') = 'on')::int::bigint AS read_only
