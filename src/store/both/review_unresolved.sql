-- review_unresolved: open and held orphans by provider and reason, with their price and an example;
-- those that limits of single accounts hold are listed apart. $1: now. The cost follows the
-- unresolved orphans. Credits come in two halves, so that no sum overflows.
SELECT o.state, o.provider, coalesce(o.reason, 'not_asked_yet') AS reason, count(*) AS items,
       CAST(coalesce(sum(i.credits >> 32), 0) AS bigint) AS credits_high,
       CAST(coalesce(sum(i.credits & 4294967295), 0) AS bigint) AS credits_low,
       min(o.charged_at) AS oldest_charged_at,
       count(*) FILTER (WHERE o.window_ends_at <= $1) AS past_window,
       min(o.charge_id || '/' || o.output_index) AS example,
       CAST(CASE WHEN o.state = 'held' AND o.held_account IS NOT NULL THEN 1
            ELSE 0 END AS bigint) AS for_account
FROM makegood_orphans o
LEFT JOIN charge_items i ON i.charge_id = o.charge_id AND i.output_index = o.output_index
WHERE o.state IN ('open', 'held')
GROUP BY o.state, o.provider, coalesce(o.reason, 'not_asked_yet'),
         CASE WHEN o.state = 'held' AND o.held_account IS NOT NULL THEN 1 ELSE 0 END
ORDER BY o.state DESC, o.provider, 3, 10
