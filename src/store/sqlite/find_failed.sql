-- find_failed: the next chunk of items that the platform recorded as failed, and what is to be done
-- about each (P19). $1, $2, $3: the item after which the chunk begins (failed_at, charge, output
-- index). $4: recorded at or before this. $5: items of charges made at or before this are left
-- alone, so that no old failure becomes a surprise refund. $6: items in the chunk. $7: now. A row
-- without looked_at is an item: paid for, not delivered and without an orphan (orphan_id NULL: to
-- be opened), or one whose open orphan waits although its failure was recorded after the last
-- question (orphan_id: due now). The last row describes the chunk: its last item and time, how many
-- items it has, and how many that would have been opened are too old, with one of their charges.
-- Fewer items than $6: the stretch ends here. No row: nothing is left. No grace. A charge without
-- its time counts, so that it is found and reported. The cost follows the failures recorded.
WITH chunk AS MATERIALIZED (
    SELECT i.charge_id, i.output_index, i.failed_at, i.credits
    FROM charge_items i
    WHERE i.failed_at >= $1 AND (i.failed_at, i.charge_id, i.output_index) > ($1, $2, $3)
      AND i.failed_at <= $4
      AND i.charge_id IS NOT NULL AND i.output_index IS NOT NULL
    ORDER BY i.failed_at, i.charge_id, i.output_index
    LIMIT $6
), looked AS MATERIALIZED (
    SELECT f.charge_id, f.output_index, o.id AS orphan_id,
           coalesce(c.charged_at <= $5, 0) AS is_too_old,
           o.id IS NOT NULL AND o.state = 'open' AND o.due_at > $7
               AND coalesce(o.last_asked_at, o.opened_at) <= f.failed_at AS is_waiting,
           CASE WHEN o.id IS NULL AND coalesce(f.credits, 1) <> 0 THEN
               (SELECT count(*) FROM makegood_deliveries v
                WHERE v.charge_id = f.charge_id AND v.output_index = f.output_index) = 0
           ELSE 0 END AS is_undelivered
    FROM chunk f
    JOIN charges c ON c.id = f.charge_id
    LEFT JOIN makegood_orphans o ON o.charge_id = f.charge_id AND o.output_index = f.output_index
)
SELECT l.charge_id, l.output_index, l.orphan_id, NULL AS at, NULL AS looked_at,
       NULL AS too_old, NULL AS example
FROM looked l
WHERE l.is_waiting OR (l.is_undelivered AND NOT l.is_too_old)
UNION ALL
SELECT last.charge_id, last.output_index, NULL, last.failed_at, (SELECT count(*) FROM chunk),
       (SELECT count(*) FROM looked l WHERE l.is_undelivered AND l.is_too_old),
       (SELECT min(l.charge_id) FROM looked l WHERE l.is_undelivered AND l.is_too_old)
FROM (SELECT f.charge_id, f.output_index, f.failed_at
      FROM chunk f ORDER BY f.failed_at DESC, f.charge_id DESC, f.output_index DESC LIMIT 1) AS last
