-- erase_events_by_age: the next events by their key, whether each is old enough and has a detail
-- (due 1), and whether its case is open or held (needed 1). $1: after this id. $2: at most this
-- many. $3: written before this.
SELECT e.id, e.at < $3 AND e.detail IS NOT NULL AS due,
       EXISTS (SELECT 1 FROM makegood_orphans o
               WHERE o.id = e.orphan_id AND o.state IN ('open', 'held')) AS needed
FROM makegood_orphan_events e
WHERE e.id > $1
ORDER BY e.id
LIMIT $2
