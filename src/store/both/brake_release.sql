-- brake_release: lets refunds go on; what was refunded before no longer counts. $1: now. A row comes back when it was on.
UPDATE makegood_brake SET engaged_at = NULL, reason = NULL, released_at = $1 WHERE id = 1 AND engaged_at IS NOT NULL RETURNING id
