-- brake_engage: engages the brake unless it is engaged already. $1: now. $2: why. Returns a row if
-- it was engaged now.
UPDATE makegood_brake SET engaged_at = $1, reason = $2
WHERE id = 1 AND engaged_at IS NULL
RETURNING id
