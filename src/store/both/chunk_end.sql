-- chunk_end: where the next chunk of a scan ends, so that no statement has to carry a whole table.
-- $1, $2: the charge after which to begin (time, id). $3: the latest time to look at. $4: charges in a chunk, less one.
-- No row: fewer charges than a chunk are left.
SELECT id, charged_at
FROM charges
WHERE (charged_at, id) > ($1, $2) AND charged_at <= $3 AND id IS NOT NULL
ORDER BY charged_at, id
LIMIT 1 OFFSET $4
