-- erase_events_of_orphans: the details of these orphans' events, and whether their case is open or
-- held (needed 1). $1: JSON list of the orphans' ids.
SELECT e.id, 1 AS due, o.state IN ('open', 'held') AS needed
FROM json_each($1) AS n
CROSS JOIN makegood_orphans o ON o.id = n.value
CROSS JOIN makegood_orphan_events e ON e.charge_id = o.charge_id AND e.output_index = o.output_index
WHERE e.detail IS NOT NULL
