-- suspects: unresolved orphans that were in flight in two passes that died, in the order of their
-- next retry. $1: now. $2: at most this many. A lease that expired is one death that is not counted
-- yet.
SELECT charge_id, output_index, deaths + CASE WHEN leased_until <= $1 THEN 1 ELSE 0 END AS deaths,
       refund_by
FROM makegood_orphans
WHERE state IN ('open', 'held') AND deaths > 0 AND (deaths > 1 OR leased_until <= $1)
ORDER BY deaths, urgent_at, id
LIMIT $2
