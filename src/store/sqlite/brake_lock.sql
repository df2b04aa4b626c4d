-- brake_lock: the one brake; the transaction is the only writer there is.
SELECT engaged_at, reason, released_at, own_faults_at, own_faults_reason, own_faults_released_at
FROM makegood_brake WHERE id = 1
