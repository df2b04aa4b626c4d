-- due_orphans: what is due, most urgent first, leased or not. $1: due by this. $2: at most so many. For dry runs.
SELECT id
FROM makegood_orphans
WHERE state IN ('open', 'held') AND due_at <= $1
ORDER BY urgent_at, id
LIMIT $2
