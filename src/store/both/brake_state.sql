-- brake_state: the brake as it stands, for people and metrics.
SELECT engaged_at, reason, released_at FROM makegood_brake WHERE id = 1
