-- account_hold: holds the refunds of one account from now on, unless they are held already. $1: the
-- account. $2: now. $3: why. Returns a row if it was held now. Settle holds the lock of the row.
INSERT INTO makegood_accounts (account_id, held_at, held_reason)
VALUES ($1, $2, $3)
ON CONFLICT (account_id) DO UPDATE
SET held_at = excluded.held_at, held_reason = excluded.held_reason
WHERE makegood_accounts.held_at IS NULL
RETURNING account_id
