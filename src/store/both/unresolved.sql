-- unresolved: open and held orphans per provider and reason, the oldest, and how many are past their window. $1: now.
-- Costs follow what is unresolved.
SELECT state, provider, coalesce(reason, 'not_asked_yet') AS reason, count(*) AS orphans, min(charged_at) AS oldest_charged_at,
       count(*) FILTER (WHERE window_ends_at <= $1) AS past_window
FROM makegood_orphans
WHERE state IN ('open', 'held')
GROUP BY state, provider, coalesce(reason, 'not_asked_yet')
ORDER BY state, provider, 3
