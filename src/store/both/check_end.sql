-- check_end: records the result of the trial. $1: ok, cannot_post or untried. $2: what is wrong, or
-- null.
UPDATE makegood_checks SET result = $1, detail = $2 WHERE name = 'posting' RETURNING name
