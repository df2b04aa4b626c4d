-- brake_free_orphans: what the brake held is due now. $1: now. Runs after brake_release or brake_let_go in the same transaction.
-- What the other brake still holds finds that out at its next settle.
UPDATE makegood_orphans SET state = 'open', due_at = $1, waits = 0 WHERE state = 'held' AND reason = 'brake' RETURNING id
