-- queue_due: puts orphans of one provider that have become due into the queue from which they are
-- claimed. $1: provider. $2: due by this. $3: now. $4: at most so many. A row for each. Waiting
-- orphans are found by their time, queued ones are claimed by their deadline: so a claim never
-- reads what waits. Suspects, which were in flight in two passes that died, are never queued
-- (claim_suspect).
UPDATE makegood_orphans
SET queued = true
WHERE id IN (SELECT w.id
             FROM makegood_orphans w
             WHERE w.provider = $1 AND w.state IN ('open', 'held') AND NOT w.queued
               AND w.due_at <= $2
               AND (w.leased_until IS NULL OR w.leased_until <= $3)
               AND (w.deaths = 0 OR (w.deaths = 1 AND w.leased_until IS NULL))
             ORDER BY w.due_at
             LIMIT $4)
RETURNING id
