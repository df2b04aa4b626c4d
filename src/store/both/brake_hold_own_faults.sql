-- brake_hold_own_faults: holds refunds that rest only on faults of ours from now on, unless they
-- are held already. $1: now. $2: why. Returns a row if they were held now.
UPDATE makegood_brake SET own_faults_at = $1, own_faults_reason = $2
WHERE id = 1 AND own_faults_at IS NULL
RETURNING id
