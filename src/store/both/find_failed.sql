-- find_failed: items that the platform itself recorded as failed, not delivered, without an orphan (P19).
-- $1: recorded after this. $2: recorded at or before this. $3: of charges made after this: failures that are recorded for old
-- charges after the fact are nobody's surprise refund (failed_backlog counts them). No grace.
-- Costs follow the failures recorded in between. A charge without its time counts, so that it is seen and told.
SELECT i.charge_id, i.output_index
FROM charge_items i
JOIN charges c ON c.id = i.charge_id
WHERE i.failed_at > $1 AND i.failed_at <= $2
  AND coalesce(c.charged_at > $3, 1 = 1)
  AND i.output_index IS NOT NULL AND coalesce(i.credits, 1) <> 0
  AND NOT EXISTS (SELECT 1 FROM makegood_deliveries v
                  WHERE v.charge_id = i.charge_id AND v.output_index = i.output_index)
  AND NOT EXISTS (SELECT 1 FROM makegood_orphans o
                  WHERE o.charge_id = i.charge_id AND o.output_index = i.output_index)
