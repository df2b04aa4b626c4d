-- backlog_note: leaves charges after $1 and up to $2 to the backlog. $3: now. The rest of an
-- earlier backlog is kept, so that the later of two processes does not shorten that of the first.
INSERT INTO makegood_cursors (name, position, until, updated_at)
VALUES ('backlog', $1, $2, $3)
ON CONFLICT (name) DO UPDATE
SET position = CASE WHEN makegood_cursors.position < makegood_cursors.until
    AND makegood_cursors.position < excluded.position
                    THEN makegood_cursors.position ELSE excluded.position END,
    until = CASE WHEN makegood_cursors.position < makegood_cursors.until
        AND makegood_cursors.until > excluded.until
                 THEN makegood_cursors.until ELSE excluded.until END,
    updated_at = excluded.updated_at
