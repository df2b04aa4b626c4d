-- find_listed: those of the listed items that are paid for, not delivered and have no unresolved
-- orphan. One whose delivery a recovery proves, and whose row the platform has removed since, is
-- not opened again (P10). $1: JSON list of {charge_id, output_index}. For items that an output was
-- taken from (P13), and those of a charge whose items were mended (P14).
SELECT i.charge_id, i.output_index
FROM (SELECT value ->> 'charge_id' AS charge_id, value ->> 'output_index' AS output_index
      FROM json_each($1)) AS d
JOIN charge_items i ON i.charge_id = d.charge_id AND i.output_index = d.output_index
WHERE coalesce(i.credits, 1) <> 0
  AND NOT EXISTS (SELECT 1 FROM makegood_deliveries v
                  WHERE v.charge_id = i.charge_id AND v.output_index = i.output_index)
  AND NOT EXISTS (SELECT 1 FROM makegood_orphans o
                  WHERE o.charge_id = i.charge_id AND o.output_index = i.output_index
                    AND (o.state IN ('open', 'held', 'refunded') OR o.reason <> 'delivered'
                         AND o.state = 'closed'))
  AND (SELECT count(*) FROM makegood_lost_outputs l
       WHERE l.charge_id = i.charge_id AND l.output_index = i.output_index) = 0
