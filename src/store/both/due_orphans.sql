-- due_orphans: what is due, most urgent first, leased or not. $1: due by this. $2: at most so many.
-- For dry runs. Without those that were in flight in two passes that died: a dry run would die like
-- these.
SELECT id
FROM makegood_orphans
WHERE state IN ('open', 'held') AND due_at <= $1
  AND (deaths = 0 OR (deaths = 1 AND leased_until IS NULL))
ORDER BY urgent_at, id
LIMIT $2
