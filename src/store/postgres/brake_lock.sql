-- brake_lock: the one brake, locked until the transaction ends, so that limits hold across all processes. The last lock of a
-- settle: nothing is waited for while it is held, but the commit.
SELECT engaged_at, reason, released_at, own_faults_at, own_faults_reason, own_faults_released_at
FROM makegood_brake WHERE id = 1 FOR UPDATE
