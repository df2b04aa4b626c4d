-- brake_release: a person lets refunds go on, of every kind; what was refunded before no longer
-- counts. $1: now. A row comes back when there was something to release.
UPDATE makegood_brake
SET engaged_at = NULL, reason = NULL, released_at = $1,
    own_faults_at = NULL, own_faults_reason = NULL, own_faults_released_at = $1
WHERE id = 1 AND (engaged_at IS NOT NULL OR own_faults_at IS NOT NULL)
RETURNING id
