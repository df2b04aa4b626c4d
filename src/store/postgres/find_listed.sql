-- find_listed: those of the listed items that are paid for, not delivered and have no unresolved orphan.
-- $1: JSON list of {charge_id, output_index}. For items that an output was taken from (P13), and those of a charge whose items were mended (P14).
SELECT i.charge_id, i.output_index
FROM jsonb_to_recordset($1::jsonb) AS d(charge_id text, output_index bigint)
JOIN charge_items i ON i.charge_id = d.charge_id AND i.output_index = d.output_index
WHERE coalesce(i.credits, 1) <> 0
  AND NOT EXISTS (SELECT 1 FROM makegood_deliveries v
                  WHERE v.charge_id = i.charge_id AND v.output_index = i.output_index)
  AND NOT EXISTS (SELECT 1 FROM makegood_orphans o
                  WHERE o.charge_id = i.charge_id AND o.output_index = i.output_index
                    AND (o.state IN ('open', 'held', 'refunded') OR o.reason <> 'delivered' AND o.state = 'closed'))
