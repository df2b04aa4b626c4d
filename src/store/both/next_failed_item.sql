-- next_failed_item: the first failed item after a position, by its key alone: another column of it
-- cannot be read. $1, $2, $3: the position (failed_at, charge, output index), as in find_failed.
-- $4: the latest time to read.
SELECT i.charge_id, i.output_index, i.failed_at AS at
FROM charge_items i
WHERE i.failed_at >= $1 AND (i.failed_at, i.charge_id, i.output_index) > ($1, $2, $3)
  AND i.failed_at <= $4
  AND i.charge_id IS NOT NULL AND i.output_index IS NOT NULL
ORDER BY i.failed_at, i.charge_id, i.output_index
LIMIT 1
