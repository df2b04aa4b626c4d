-- due_orphans: due orphans, most urgent first, leased or not. $1: due by this. $2: at most this
-- many. For dry runs. It leaves out suspects, which were in flight in two passes that died: a dry
-- run could die in the same way.
SELECT id
FROM makegood_orphans
WHERE state IN ('open', 'held') AND due_at <= $1
  AND (deaths = 0 OR (deaths = 1 AND leased_until IS NULL))
ORDER BY urgent_at, id
LIMIT $2
