-- erase_passes_by_age: the next passes by their key, and whether each ended early enough and has a
-- report (due 1). No case needs a report. $1: after this id. $2: at most this many. $3: before
-- this.
SELECT p.id, p.finished_at IS NOT NULL AND p.finished_at < $3 AND p.report IS NOT NULL AS due,
       0 AS needed
FROM makegood_passes p
WHERE p.id > $1
ORDER BY p.id
LIMIT $2
