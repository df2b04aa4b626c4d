-- due_providers: which providers have something due, so that each gets a lane of its own. $1: now.
SELECT provider, count(*) AS orphans
FROM makegood_orphans
WHERE state IN ('open', 'held') AND due_at <= $1 AND (leased_until IS NULL OR leased_until <= $1)
GROUP BY provider
ORDER BY provider
