-- hasten_failed: open orphans whose items the platform recorded as failed since they were last asked about are due now (P19).
-- $1: recorded after this. $2: recorded at or before this. $3: now. Costs follow the failures recorded in between.
UPDATE makegood_orphans AS o
SET due_at = $3
FROM charge_items i
WHERE i.failed_at > $1 AND i.failed_at <= $2
  AND o.charge_id = i.charge_id AND o.output_index = i.output_index
  AND o.state = 'open' AND o.due_at > $3 AND coalesce(o.last_asked_at, o.opened_at) <= i.failed_at
