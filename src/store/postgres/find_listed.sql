-- find_listed: those of the listed items that are paid for, not delivered and have no unresolved
-- orphan. One whose delivery a recovery proves, and whose row the platform has removed since, is
-- not opened again (P10). $1: JSON list of {charge_id, output_index}: items that an output was
-- taken from (P13), and those of a charge whose items were mended (P14). Every relation is read by
-- key, once per item (OFFSET 0 and counts: no join order to choose).
SELECT i.charge_id, i.output_index
FROM jsonb_to_recordset($1::jsonb) AS d(charge_id text, output_index bigint)
CROSS JOIN LATERAL (SELECT p.charge_id, p.output_index, p.credits FROM charge_items p
                    WHERE p.charge_id = d.charge_id AND p.output_index = d.output_index OFFSET 0) AS i
WHERE coalesce(i.credits, 1) <> 0
  AND (SELECT count(*) FROM makegood_deliveries v
       WHERE v.charge_id = i.charge_id AND v.output_index = i.output_index) = 0
  AND (SELECT count(*) FROM makegood_orphans o
       WHERE o.charge_id = i.charge_id AND o.output_index = i.output_index
         AND (o.state IN ('open', 'held', 'refunded') OR o.reason <> 'delivered' AND o.state = 'closed')) = 0
  AND (SELECT count(*) FROM makegood_lost_outputs l
       WHERE l.charge_id = i.charge_id AND l.output_index = i.output_index) = 0
