-- claim_suspect: leases one job of a provider that was in flight in two passes that died, with all
-- of its orphans. It is retried alone: of those that were in flight together, the one that ended
-- the passes again comes last. $1: provider. $2: due by this (the pass's start, so that a pass
-- ends). $3: now. $4: leased until. $5: 1: only one that is past refund_by and was asked at least
-- $6 times, first by $7. $8: a job that was asked so often is due again by then, if this pass dies.
-- A pass that died while it retried the job alone has asked a question that has no answer: it is
-- counted here. Every claim raises the token and returns it: read later, it may be the next one's.
-- SQLite has one writer at a time, so nothing needs to be locked or skipped.
WITH due AS (
    SELECT o.id, o.provider_job_id
    FROM makegood_orphans o
    WHERE o.provider = $1 AND o.state IN ('open', 'held') AND o.deaths > 0 AND o.due_at <= $2
      AND (o.leased_until IS NULL OR o.leased_until <= $3)
      AND (o.deaths > 1 OR o.leased_until IS NOT NULL)
      AND ($5 = 0 OR (o.refund_by <= $3 AND o.questions >= $6 AND o.first_asked_at <= $7))
      -- A job that another worker has leased is not due: it must not block the orphans behind it.
      AND NOT EXISTS (SELECT 1 FROM makegood_orphans l
                      WHERE l.provider_job_id = o.provider_job_id AND l.provider = $1
                        AND l.state IN ('open', 'held') AND l.leased_until > $3)
    ORDER BY o.deaths, o.urgent_at, o.id
    LIMIT 1
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
SET lease_token = lease_token + 1, leased_until = $4, queued = false, alone_since = $3,
    deaths = deaths + CASE WHEN leased_until IS NULL THEN 0 ELSE 1 END,
    questions = questions + CASE WHEN leased_until IS NULL OR alone_since IS NULL THEN 0 ELSE 1 END,
    first_asked_at = CASE WHEN leased_until IS NULL THEN first_asked_at
        ELSE coalesce(first_asked_at, alone_since) END,
    last_asked_at = CASE WHEN leased_until IS NULL THEN last_asked_at
        ELSE coalesce(alone_since, last_asked_at) END,
    due_at = CASE WHEN questions < $6 THEN due_at ELSE min($8, max(refund_by, due_at)) END
WHERE id IN (SELECT id FROM members)
RETURNING id, lease_token
