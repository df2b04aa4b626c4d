-- erase_passes: erases reports of passes on a person's order. $1: JSON list of ids. $2: the row of
-- makegood_erasures.
UPDATE makegood_passes SET report = NULL, erasure_id = $2
WHERE id IN (SELECT value FROM json_each($1))
