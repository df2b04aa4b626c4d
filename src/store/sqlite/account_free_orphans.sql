-- account_free_orphans: what one account's limits held is due now, a portion at a time in the order
-- of ids. $1: the account. $2: now. $3: the last id of the portion before. $4: at most so many.
-- Runs after the release was committed, each portion on its own.
UPDATE makegood_orphans SET state = 'open', held_account = NULL, due_at = $2, waits = 0
WHERE id IN (SELECT id FROM makegood_orphans WHERE held_account = $1 AND state = 'held' AND id > $3
             ORDER BY id LIMIT $4)
RETURNING id
