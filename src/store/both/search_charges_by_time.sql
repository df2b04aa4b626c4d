-- search_charges_by_time: whether charges can be searched by the time of the charge, in order. Only
-- explained, never run.
SELECT charged_at, id FROM charges
WHERE charged_at > CAST($1 AS timestamptz) AND charged_at <= CAST($2 AS timestamptz)
ORDER BY charged_at, id LIMIT 100
