-- erase_answers: erases answers on a person's order. $1: JSON list of ids. $2: the row of
-- makegood_erasures.
UPDATE makegood_answers
SET code = NULL, message = NULL, request = NULL, excerpt = NULL, erasure_id = $2
WHERE id IN (SELECT value FROM json_each($1))
