-- unresolved: open and held orphans by provider and reason, the oldest, and how many are past their
-- window; those that an account's own limits hold are listed apart. $1: now. The cost follows the
-- unresolved orphans.
SELECT state, provider, coalesce(reason, 'not_asked_yet') AS reason, count(*) AS orphans,
       min(charged_at) AS oldest_charged_at,
       count(*) FILTER (WHERE window_ends_at <= $1) AS past_window,
       CAST(CASE WHEN state = 'held' AND held_account IS NOT NULL THEN 1
            ELSE 0 END AS bigint) AS for_account
FROM makegood_orphans
WHERE state IN ('open', 'held')
GROUP BY state, provider, coalesce(reason, 'not_asked_yet'), CASE WHEN state = 'held'
    AND held_account IS NOT NULL THEN 1 ELSE 0 END
ORDER BY state, provider, 3, 7
