-- lock_balances: holds the balances that are about to get credits back. $1: JSON list of {account_id, bucket} in the order of the keys.
-- Before the last look: a refund of the platform that is under way is waited for and then seen, and the next one waits for ours.
SELECT makegood_lock_balances($1::jsonb)
