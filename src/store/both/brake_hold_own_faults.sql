-- brake_hold_own_faults: from here on refunds are held that rest on nothing but faults of ours,
-- unless they are already. $1: now. $2: why. A row comes back when it was so decided now.
UPDATE makegood_brake SET own_faults_at = $1, own_faults_reason = $2
WHERE id = 1 AND own_faults_at IS NULL
RETURNING id
