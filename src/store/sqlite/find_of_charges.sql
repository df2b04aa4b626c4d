-- find_of_charges: items of the listed charges that are paid for, not delivered and have no unresolved orphan.
-- $1: JSON list of charge ids. For charges whose items were mended after every look over time had passed them.
SELECT i.charge_id, i.output_index
FROM charge_items i
WHERE i.charge_id IN (SELECT value FROM json_each($1))
  AND i.output_index IS NOT NULL AND coalesce(i.credits, 1) <> 0
  AND NOT EXISTS (SELECT 1 FROM makegood_deliveries v
                  WHERE v.charge_id = i.charge_id AND v.output_index = i.output_index)
  AND NOT EXISTS (SELECT 1 FROM makegood_orphans o
                  WHERE o.charge_id = i.charge_id AND o.output_index = i.output_index
                    AND (o.state IN ('open', 'held', 'refunded') OR o.reason <> 'delivered' AND o.state = 'closed'))
