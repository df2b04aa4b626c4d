-- claim: leases due orphans of one provider, earliest deadline first, all of one job together.
-- $1: provider. $2: due by this (the pass's start, so that a pass ends). $3: now. $4: leased until. $5: at most so many due ones.
-- Every claim raises the token. SQLite has one writer at a time, so nothing needs to be locked or skipped.
WITH due AS (
    SELECT id, provider_job_id
    FROM makegood_orphans
    WHERE provider = $1 AND state IN ('open', 'held') AND due_at <= $2 AND (leased_until IS NULL OR leased_until <= $3)
    ORDER BY urgent_at, id
    LIMIT $5
), members AS (
    SELECT id FROM due
    UNION
    SELECT o.id
    FROM due
    JOIN makegood_orphans o ON o.provider_job_id = due.provider_job_id AND o.provider = $1
                           AND o.state IN ('open', 'held') AND (o.leased_until IS NULL OR o.leased_until <= $3)
)
UPDATE makegood_orphans
SET lease_token = lease_token + 1, leased_until = $4
WHERE id IN (SELECT id FROM members)
RETURNING id
