-- brake_release: a person releases refunds of every kind; earlier refunds no longer count. $1: now.
-- Returns a row if there was something to release.
UPDATE makegood_brake
SET engaged_at = NULL, reason = NULL, released_at = $1,
    own_faults_at = NULL, own_faults_reason = NULL, own_faults_released_at = $1
WHERE id = 1 AND (engaged_at IS NOT NULL OR own_faults_at IS NOT NULL)
RETURNING id
