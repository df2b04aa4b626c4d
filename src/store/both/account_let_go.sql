-- account_let_go: an account is released by itself; what was refunded to it still counts. $1: the
-- account. A row comes back when it was held.
UPDATE makegood_accounts SET held_at = NULL, held_reason = NULL
WHERE account_id = $1 AND held_at IS NOT NULL
RETURNING account_id
