-- brake_state: the state of the brake, for people and metrics.
SELECT engaged_at, reason, released_at, own_faults_at, own_faults_reason, own_faults_released_at
FROM makegood_brake WHERE id = 1
