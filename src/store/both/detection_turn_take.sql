-- detection_turn_take: takes the lease on detection. No row: another process has it, and has
-- renewed it after $2. $1: now. $2: a lease that was renewed at this time or before has expired.
-- $3: a time later than any that a clock that is not ahead can have written.
INSERT INTO makegood_cursors (name, position, updated_at)
VALUES ('detecting', $1, $1)
ON CONFLICT (name) DO UPDATE
SET position = excluded.position, updated_at = excluded.updated_at
WHERE makegood_cursors.position <= $2 OR makegood_cursors.position > $3
RETURNING name
