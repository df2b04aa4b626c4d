-- next_charge: the first charge after a position, by its key alone: another of its columns cannot
-- be read. $1, $2: the position (time, id), as in find_undelivered. $3: the latest time to read.
SELECT c.id AS charge_id, c.charged_at AS at
FROM charges c
WHERE c.charged_at >= $1 AND (c.charged_at, c.id) > ($1, $2) AND c.charged_at <= $3
  AND c.id IS NOT NULL
ORDER BY c.charged_at, c.id
LIMIT 1
