-- claim: leases queued orphans of one provider that are due, earliest deadline first, all of one
-- job together. $1: provider. $2: due by this (the pass's start, so that a pass ends). $3: now. $4:
-- leased until. $5: at most so many due ones. A suspect is left to claim_suspect, with all of its
-- job: it was in flight in two passes that died (a lease that was not given back is one death that
-- is not counted yet). Every claim raises the token and returns it: read later, it may be the next
-- one's. A claimed orphan leaves the queue. SKIP LOCKED: many workers claim side by side and none
-- waits for another. The lowest id of a job is its lead; only the worker that locks the lead leases
-- the job's orphans, so a job is never split. Every relation is read by key (OFFSET 0, = ANY
-- (ARRAY(…))): the planner has no join order to choose. Without statistics, as after the first
-- large pass, it would otherwise read all orphans of a provider once for each that is claimed.
WITH due AS MATERIALIZED (
    SELECT o.id, o.provider_job_id
    FROM makegood_orphans o
    WHERE o.provider = $1 AND o.state IN ('open', 'held') AND o.queued AND o.due_at <= $2
      AND (o.leased_until IS NULL OR o.leased_until <= $3)
      AND (o.deaths = 0 OR (o.deaths = 1 AND o.leased_until IS NULL))
      -- A job that another worker has leased is not due: it must not block the orphans behind it.
      AND NOT EXISTS (SELECT 1 FROM makegood_orphans l
                      WHERE l.provider_job_id = o.provider_job_id AND l.provider = $1
                        AND l.state IN ('open', 'held')
                        AND (l.leased_until > $3 OR l.deaths > 1 OR (l.deaths = 1 AND l.leased_until IS NOT NULL))
                      OFFSET 0)
    ORDER BY o.urgent_at, o.id
    LIMIT $5
    FOR UPDATE OF o SKIP LOCKED
), leads AS MATERIALIZED (
    -- OFFSET 0: a bare min(id) might be searched for in the order of the ids.
    SELECT DISTINCT coalesce((SELECT min(f.id)
                              FROM (SELECT l.id FROM makegood_orphans l
                                    WHERE l.provider_job_id = due.provider_job_id AND l.provider = $1
                                      AND l.state IN ('open', 'held') OFFSET 0) AS f), due.id) AS id
    FROM due
), locked AS MATERIALIZED (
    SELECT o.id, o.provider_job_id
    FROM makegood_orphans o
    WHERE o.id = ANY (ARRAY(SELECT id FROM leads))
      AND o.state IN ('open', 'held') AND (o.leased_until IS NULL OR o.leased_until <= $3)
    ORDER BY o.id
    FOR UPDATE SKIP LOCKED
), members AS MATERIALIZED (
    SELECT id FROM locked
    UNION
    SELECT o.id
    FROM locked
    CROSS JOIN LATERAL (SELECT m.id FROM makegood_orphans m
                        WHERE m.provider_job_id = locked.provider_job_id AND m.provider = $1
                          AND m.state IN ('open', 'held') AND (m.leased_until IS NULL OR m.leased_until <= $3)
                        OFFSET 0) AS o
)
UPDATE makegood_orphans o
SET lease_token = o.lease_token + 1, leased_until = $4, queued = false, alone_since = NULL,
    deaths = o.deaths + CASE WHEN o.leased_until IS NULL THEN 0 ELSE 1 END
WHERE o.id = ANY (ARRAY(SELECT id FROM members)) AND o.state IN ('open', 'held')
RETURNING o.id, o.lease_token
