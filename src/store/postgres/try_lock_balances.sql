-- try_lock_balances: holds the balances that are about to get credits back without waiting, and returns those that another session
-- has locked. $1: JSON list of {account_id, bucket}.
SELECT account_id, bucket FROM makegood_try_lock_balances($1::jsonb)
