-- brake_lock: reads the brake; the transaction is the only writer.
SELECT engaged_at, reason, released_at, own_faults_at, own_faults_reason, own_faults_released_at
FROM makegood_brake WHERE id = 1
