-- lock_timeout: how long the rest of the transaction waits for a lock. $1: milliseconds, as text; 0: as long as a statement may take.
SELECT set_config('lock_timeout', $1, true) AS lock_timeout
