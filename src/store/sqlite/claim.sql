-- claim: leases queued orphans of one provider that are due, earliest deadline first, all of one
-- job together. $1: provider. $2: due by this (the pass's start, so that a pass ends). $3: now. $4:
-- leased until. $5: at most so many due ones. A suspect is left to claim_suspect, with all of its
-- job: it was in flight in two passes that died (a lease that was not given back is one death that
-- is not counted yet). Every claim raises the token and returns it: read later, it may be the next
-- one's. A claimed orphan leaves the queue. SQLite has one writer at a time, so nothing needs to be
-- locked or skipped.
WITH due AS (
    SELECT o.id, o.provider_job_id
    FROM makegood_orphans o
    WHERE o.provider = $1 AND o.state IN ('open', 'held') AND o.queued AND o.due_at <= $2
      AND (o.leased_until IS NULL OR o.leased_until <= $3)
      AND (o.deaths = 0 OR (o.deaths = 1 AND o.leased_until IS NULL))
      -- A job that another worker has leased is not due: it must not block the orphans behind it.
      AND NOT EXISTS (SELECT 1 FROM makegood_orphans l
                      WHERE l.provider_job_id = o.provider_job_id AND l.provider = $1
                        AND l.state IN ('open', 'held')
                        AND (l.leased_until > $3 OR l.deaths > 1
                             OR (l.deaths = 1 AND l.leased_until IS NOT NULL)))
    ORDER BY o.urgent_at, o.id
    LIMIT $5
), members AS (
    SELECT id FROM due
    UNION
    SELECT o.id
    FROM due
    JOIN makegood_orphans o ON o.provider_job_id = due.provider_job_id AND o.provider = $1
                           AND o.state IN ('open', 'held')
                           AND (o.leased_until IS NULL OR o.leased_until <= $3)
)
UPDATE makegood_orphans
SET lease_token = lease_token + 1, leased_until = $4, queued = false, alone_since = NULL,
    deaths = deaths + CASE WHEN leased_until IS NULL THEN 0 ELSE 1 END
WHERE id IN (SELECT id FROM members)
RETURNING id, lease_token
