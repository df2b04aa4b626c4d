-- odd_times_shown: times that only people read and that cannot be meant: before $1, in $2 or later,
-- or infinite. Looks at 1,000 rows a relation. shape, at: as in odd_times.
SELECT 'charges.cancelled_at' AS place, t.id AS charge_id, typeof(t.cancelled_at) AS shape,
       CASE WHEN typeof(t.cancelled_at) IN ('integer', 'real')
           THEN CAST(t.cancelled_at AS integer) END AS at
FROM (SELECT p.id, p.cancelled_at FROM charges p LIMIT 1000) AS t
WHERE t.cancelled_at < $1 OR t.cancelled_at >= $2
UNION ALL
SELECT 'stored_outputs.stored_at' AS place, t.id AS charge_id, typeof(t.stored_at) AS shape,
       CASE WHEN typeof(t.stored_at) IN ('integer', 'real')
           THEN CAST(t.stored_at AS integer) END AS at
FROM (SELECT p.id, p.stored_at FROM stored_outputs p LIMIT 1000) AS t
WHERE t.stored_at < $1 OR t.stored_at >= $2
UNION ALL
SELECT 'stored_outputs.moved_at' AS place, t.id AS charge_id, typeof(t.moved_at) AS shape,
       CASE WHEN typeof(t.moved_at) IN ('integer', 'real')
           THEN CAST(t.moved_at AS integer) END AS at
FROM (SELECT p.id, p.moved_at FROM stored_outputs p LIMIT 1000) AS t
WHERE t.moved_at < $1 OR t.moved_at >= $2
UNION ALL
SELECT 'stored_outputs.deleted_at' AS place, t.id AS charge_id, typeof(t.deleted_at) AS shape,
       CASE WHEN typeof(t.deleted_at) IN ('integer', 'real')
           THEN CAST(t.deleted_at AS integer) END AS at
FROM (SELECT p.id, p.deleted_at FROM stored_outputs p LIMIT 1000) AS t
WHERE t.deleted_at < $1 OR t.deleted_at >= $2
UNION ALL
SELECT 'ledger_entries.posted_at' AS place, t.id AS charge_id, typeof(t.posted_at) AS shape,
       CASE WHEN typeof(t.posted_at) IN ('integer', 'real')
           THEN CAST(t.posted_at AS integer) END AS at
FROM (SELECT p.id, p.posted_at FROM ledger_entries p LIMIT 1000) AS t
WHERE t.posted_at < $1 OR t.posted_at >= $2
