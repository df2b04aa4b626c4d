-- brake_engage: pulls the brake unless it is on already. $1: now. $2: why. A row comes back when it
-- was pulled now.
UPDATE makegood_brake SET engaged_at = $1, reason = $2
WHERE id = 1 AND engaged_at IS NULL
RETURNING id
