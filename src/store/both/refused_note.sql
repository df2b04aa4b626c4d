-- refused_note: the database would not take an orphan for an item that was met after this time. $1:
-- the name it is kept by. $2: the time. $3: now. Kept among the cursors: as long as position <
-- updated_at, something was refused after position, and it was tried at updated_at. The first of
-- several counts, and what comes later does not put off the next try.
INSERT INTO makegood_cursors (name, position, updated_at)
VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE
SET position = CASE WHEN excluded.position < makegood_cursors.position THEN excluded.position
    ELSE makegood_cursors.position END,
    updated_at = CASE WHEN makegood_cursors.position < makegood_cursors.updated_at
        THEN makegood_cursors.updated_at
                      ELSE excluded.updated_at END
