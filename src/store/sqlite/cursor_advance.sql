-- cursor_advance: a scan has looked up to here. $1: its name. $2: position. $3: now. It never moves
-- back, except from a time that is still to come: there a clock put it that was ahead, and nobody
-- has looked.
INSERT INTO makegood_cursors (name, position, updated_at)
VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE
SET position = CASE WHEN makegood_cursors.position > $3 THEN excluded.position
                    ELSE max(makegood_cursors.position, excluded.position) END,
    updated_at = excluded.updated_at
