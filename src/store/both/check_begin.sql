-- check_begin: takes on the trial whether refunds can be posted, unless a process has done it
-- lately. $1: now. $2: makegood's version. $3: the latest time of a check that is too old to count.
-- Returns a row if this process has to do it; the others use the last result meanwhile.
UPDATE makegood_checks SET checked_at = $1, version = $2
WHERE name = 'posting' AND (checked_at IS NULL OR checked_at <= $3 OR checked_at > $1
                            OR version IS NULL OR version <> $2)
RETURNING name
