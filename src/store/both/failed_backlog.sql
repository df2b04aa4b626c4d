-- failed_backlog: what find_failed leaves alone because its charge is too old, so that a person is told.
-- $1: recorded after this. $2: recorded at or before this. $3: of charges made at or before this. $4: at most so many are counted.
SELECT count(*) AS items, min(charge_id) AS example
FROM (SELECT i.charge_id
      FROM charge_items i
      JOIN charges c ON c.id = i.charge_id
      WHERE i.failed_at > $1 AND i.failed_at <= $2 AND c.charged_at <= $3
        AND i.output_index IS NOT NULL AND coalesce(i.credits, 1) <> 0
        AND NOT EXISTS (SELECT 1 FROM makegood_deliveries v
                        WHERE v.charge_id = i.charge_id AND v.output_index = i.output_index)
        AND NOT EXISTS (SELECT 1 FROM makegood_orphans o
                        WHERE o.charge_id = i.charge_id AND o.output_index = i.output_index)
      LIMIT $4) AS old
