-- provider_free_orphans: what the brake held of one provider is due now, a portion at a time in the
-- order of ids. $1: the provider. $2: now. $3: the last id of the portion before. $4: at most so
-- many. Runs after the release was committed, each portion on its own.
UPDATE makegood_orphans SET state = 'open', held_account = NULL, due_at = $2, waits = 0
WHERE id IN (SELECT id FROM makegood_orphans WHERE provider = $1 AND state = 'held'
             AND reason = 'brake' AND held_account IS NULL AND id > $3 ORDER BY id LIMIT $4)
RETURNING id
