-- hasten_failed: waiting orphans whose items the platform recorded as failed since the last
-- question are due now (P19). $1: JSON list of orphan ids. $2: now.
UPDATE makegood_orphans
SET due_at = $2
WHERE id IN (SELECT value FROM json_each($1)) AND state = 'open' AND due_at > $2
