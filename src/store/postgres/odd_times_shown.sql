-- odd_times_shown: times that only people read and that cannot be meant: before $1, in $2 or later,
-- or infinite. Looks at 1,000 rows a relation. shape, at: as in odd_times.
SELECT 'charges.cancelled_at' AS place, t.id AS charge_id, CASE WHEN t.cancelled_at IS NULL THEN 'null' WHEN isfinite(t.cancelled_at) THEN 'time' ELSE 'infinite' END AS shape,
       CASE WHEN isfinite(t.cancelled_at) THEN least(extract(epoch FROM t.cancelled_at) * 1000000, 9000000000000000000)::bigint END AS at
FROM (SELECT p.id, p.cancelled_at FROM charges p LIMIT 1000) AS t
WHERE t.cancelled_at < $1 OR t.cancelled_at >= $2
UNION ALL
SELECT 'stored_outputs.stored_at' AS place, t.id AS charge_id, CASE WHEN t.stored_at IS NULL THEN 'null' WHEN isfinite(t.stored_at) THEN 'time' ELSE 'infinite' END AS shape,
       CASE WHEN isfinite(t.stored_at) THEN least(extract(epoch FROM t.stored_at) * 1000000, 9000000000000000000)::bigint END AS at
FROM (SELECT p.id, p.stored_at FROM stored_outputs p LIMIT 1000) AS t
WHERE t.stored_at < $1 OR t.stored_at >= $2
UNION ALL
SELECT 'stored_outputs.moved_at' AS place, t.id AS charge_id, CASE WHEN t.moved_at IS NULL THEN 'null' WHEN isfinite(t.moved_at) THEN 'time' ELSE 'infinite' END AS shape,
       CASE WHEN isfinite(t.moved_at) THEN least(extract(epoch FROM t.moved_at) * 1000000, 9000000000000000000)::bigint END AS at
FROM (SELECT p.id, p.moved_at FROM stored_outputs p LIMIT 1000) AS t
WHERE t.moved_at < $1 OR t.moved_at >= $2
UNION ALL
SELECT 'stored_outputs.deleted_at' AS place, t.id AS charge_id, CASE WHEN t.deleted_at IS NULL THEN 'null' WHEN isfinite(t.deleted_at) THEN 'time' ELSE 'infinite' END AS shape,
       CASE WHEN isfinite(t.deleted_at) THEN least(extract(epoch FROM t.deleted_at) * 1000000, 9000000000000000000)::bigint END AS at
FROM (SELECT p.id, p.deleted_at FROM stored_outputs p LIMIT 1000) AS t
WHERE t.deleted_at < $1 OR t.deleted_at >= $2
UNION ALL
SELECT 'ledger_entries.posted_at' AS place, t.id AS charge_id, CASE WHEN t.posted_at IS NULL THEN 'null' WHEN isfinite(t.posted_at) THEN 'time' ELSE 'infinite' END AS shape,
       CASE WHEN isfinite(t.posted_at) THEN least(extract(epoch FROM t.posted_at) * 1000000, 9000000000000000000)::bigint END AS at
FROM (SELECT p.id, p.posted_at FROM ledger_entries p LIMIT 1000) AS t
WHERE t.posted_at < $1 OR t.posted_at >= $2
