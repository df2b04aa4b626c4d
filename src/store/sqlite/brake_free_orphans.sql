-- brake_free_orphans: what the brake held, but not for an account's own limits, is due now, a
-- portion at a time in the order of ids. $1: now. $2: the last id of the portion before. $3: at
-- most so many. Runs after the release of the brake was committed, each portion on its own.
UPDATE makegood_orphans SET state = 'open', due_at = $1, waits = 0
WHERE id IN (SELECT id FROM makegood_orphans WHERE state = 'held' AND reason = 'brake'
             AND held_account IS NULL AND id > $2 ORDER BY id LIMIT $3)
RETURNING id
