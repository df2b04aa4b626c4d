-- due_providers: providers with an orphan that is due and not leased, each of which gets a lane.
-- $1: now. Steps from one provider to the next by index, and tests for each whether one orphan is
-- due: the cost follows the number of providers and of leases, not of orphans.
WITH RECURSIVE queue AS (
    SELECT min(provider) AS provider
    FROM makegood_orphans
    WHERE state IN ('open', 'held') AND queued
    UNION ALL
    SELECT (SELECT min(o.provider) FROM makegood_orphans o
            WHERE o.state IN ('open', 'held') AND o.queued AND o.provider > q.provider)
    FROM queue q WHERE q.provider IS NOT NULL
), waiting AS (
    SELECT min(provider) AS provider
    FROM makegood_orphans
    WHERE state IN ('open', 'held') AND NOT queued
    UNION ALL
    SELECT (SELECT min(o.provider) FROM makegood_orphans o
            WHERE o.state IN ('open', 'held') AND NOT o.queued AND o.provider > w.provider)
    FROM waiting w WHERE w.provider IS NOT NULL
)
SELECT q.provider
FROM queue q
WHERE (SELECT o.id FROM makegood_orphans o
       WHERE o.provider = q.provider AND o.state IN ('open', 'held') AND o.queued AND o.due_at <= $1
         AND (o.leased_until IS NULL OR o.leased_until <= $1)
       ORDER BY o.urgent_at, o.id LIMIT 1) IS NOT NULL
UNION
SELECT w.provider
FROM waiting w
WHERE (SELECT o.id FROM makegood_orphans o
       WHERE o.provider = w.provider AND o.state IN ('open', 'held') AND NOT o.queued
         AND o.due_at <= $1
         AND (o.leased_until IS NULL OR o.leased_until <= $1)
       ORDER BY o.due_at LIMIT 1) IS NOT NULL
ORDER BY 1
