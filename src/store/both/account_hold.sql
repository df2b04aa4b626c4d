-- account_hold: from here on the refunds of one account are held, unless they are already. $1: the
-- account. $2: now. $3: why. A row comes back when it was so decided now. Settle holds the lock of
-- the row.
INSERT INTO makegood_accounts (account_id, held_at, held_reason)
VALUES ($1, $2, $3)
ON CONFLICT (account_id) DO UPDATE
SET held_at = excluded.held_at, held_reason = excluded.held_reason
WHERE makegood_accounts.held_at IS NULL
RETURNING account_id
