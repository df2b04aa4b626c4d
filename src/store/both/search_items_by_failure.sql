-- search_items_by_failure: whether charge_items can be searched by the time of the failure. Only
-- explained, never run.
SELECT failed_at FROM charge_items
WHERE failed_at > CAST($1 AS timestamptz) AND failed_at <= CAST($2 AS timestamptz)
